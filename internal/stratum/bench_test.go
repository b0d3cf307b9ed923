package stratum_test

import (
	"encoding/json"
	"testing"

	"btcpool/internal/stratum"
)

var submitLine = []byte(`{"params": ["user.worker", "25", "00000000000000ff", "655f0a1c", "1a2b3c4d", "00802000"], "id": 1011, "method": "mining.submit"}`)

// A line in, its verdict's line out, without the hash between them.
func BenchmarkSubmit(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(submitLine)))
	dst := make([]byte, 0, 256)
	for b.Loop() {
		req, err := stratum.ParseRequest(submitLine)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := stratum.ParseSubmit(req.Params, 8); err != nil {
			b.Fatal(err)
		}
		dst = stratum.AppendTrue(dst[:0], req.ID)
	}
}

// What the general decoder costs for the same line.
func BenchmarkSubmitEncodingJSON(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(submitLine)))
	for b.Loop() {
		var req struct {
			ID     any
			Method string
			Params []string
		}
		if err := json.Unmarshal(submitLine, &req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNotify(b *testing.B) {
	j := testJob()
	for range 10 {
		j.MerkleBranch = append(j.MerkleBranch, hash(1))
	}
	notify := stratum.NewNotify(j, j.Coinbase1, j.Coinbase2)
	b.ReportAllocs()
	dst := make([]byte, 0, 4096)
	for b.Loop() {
		dst = notify.AppendTo(dst[:0], 77, 0, false)
	}
}
