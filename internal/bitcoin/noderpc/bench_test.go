package noderpc_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"btcpool/internal/bitcoin/noderpc"
)

// BenchmarkSubmitBlock submits a block of 1.5 MB to a node that only reads it, beside a bare POST of the same bytes.
func BenchmarkSubmitBlock(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"result":null,"error":null,"id":"1"}`)
	}))
	defer server.Close()
	block := strings.Repeat("0123456789abcdef", 3_000_000/16)

	b.Run("submitblock", func(b *testing.B) {
		client, err := noderpc.New(noderpc.Config{URL: server.URL, User: "user", Password: "secret"})
		if err != nil {
			b.Fatal(err)
		}
		defer client.Close()
		b.SetBytes(int64(len(block)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := client.SubmitBlock(b.Context(), block); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(int64(len(block)))
		b.ReportAllocs()
		for b.Loop() {
			resp, err := server.Client().Post(server.URL, "application/json", strings.NewReader(block))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}
