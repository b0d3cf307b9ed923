package rskrpc_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"btcpool/internal/auxpow"
	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/auxwork/rskrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, cfg rskrpc.Config) *rskrpc.Client {
	t.Helper()
	client, err := rskrpc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func TestWork(t *testing.T) {
	t.Parallel()
	node := auxpowtest.StartRSK(0x1d00ffff)
	t.Cleanup(node.Close)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := newClient(t, rskrpc.Config{URL: node.URL(), User: "user", PasswordFile: password})
	for _, notify := range []bool{true, false} {
		work, err := client.Work(t.Context())
		if err != nil || work.BlockHash.String() != node.Hash() || work.FeesForMiner != "21000" || work.Notify != notify {
			t.Errorf("%+v, %v", work, err)
		}
		if got := work.Target.Target().Bits(); got != 0x1d00ffff {
			t.Errorf("target %s, bits %08x", work.Target, got)
		}
	}
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	const hash = `"0x00000000000000000000000000000000000000000000000000000000000000ab"`
	for _, tt := range []struct{ name, answer, want string }{
		{"no JSON", "<html>", "does not answer like a node"},
		{"refusal", `{"error":{"code":-32601,"message":"no mnr"}}`, "node error -32601: no mnr"},
		{"nothing", `{}`, "without result"},
		{"null", `{"result":null}`, "without result"},
		{"no notify", `{"result":{"target":` + hash + `,"parentBlockHash":` + hash + `,"blockHashForMergedMining":` + hash + `,"feesPaidToMiner":"0"}}`, "missing"},
		{"short hash", `{"result":{"target":"0xab"}}`, "64 hex digits"},
		{"huge", strings.Repeat("x", 1<<20+1), "larger than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tt.answer) }))
			t.Cleanup(server.Close)
			_, err := newClient(t, rskrpc.Config{URL: server.URL}).Work(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "mnr_getWork") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// A refusal is told from an answer that never came.
func TestRefusal(t *testing.T) {
	t.Parallel()
	node := auxpowtest.StartRSK(0x1d00ffff)
	t.Cleanup(node.Close)
	client := newClient(t, rskrpc.Config{URL: node.URL()})
	parent := &auxpow.Parent{Coinbase: []byte("no coinbase")}
	_, err := client.Submit(t.Context(), parent, 1)
	if refusal := (*rskrpc.Error)(nil); !errors.As(err, &refusal) || refusal.Code != -33000 || refusal.Message == "" {
		t.Errorf("refusal: %v", err)
	}
	node.SetDown(true)
	_, err = client.Submit(t.Context(), parent, 1)
	if refusal := (*rskrpc.Error)(nil); err == nil || errors.As(err, &refusal) {
		t.Errorf("node down: %v", err)
	}
}

func TestBlock(t *testing.T) {
	t.Parallel()
	const own, other = "0x00000000000000000000000000000000000000000000000000000000000000aB", "0xcd"
	header := func(hash, number string) string { return `{"hash":"` + hash + `","number":"` + number + `"}` }
	for name, tt := range map[string]struct {
		byHash, byNumber, latest string
		want                     rskrpc.Place
		err                      string
	}{
		"newest":            {header(own, "0x10"), header(strings.ToLower(own), "0x10"), header(own, "0x10"), rskrpc.Place{Height: 16, Confirmations: 1}, ""},
		"buried":            {header(own, "0x10"), header(own, "0x10"), header(other, "0x1a"), rskrpc.Place{Height: 16, Confirmations: 11}, ""},
		"chain shrank":      {header(own, "0x10"), header(own, "0x10"), header(other, "0xf"), rskrpc.Place{Height: 16, Confirmations: 1}, ""},
		"left behind":       {header(own, "0x10"), header(other, "0x10"), header(other, "0x1a"), rskrpc.Place{Height: 16}, ""},
		"above the chain":   {header(own, "0x10"), "null", header(other, "0xf"), rskrpc.Place{Height: 16}, ""},
		"unknown":           {"null", "null", "null", rskrpc.Place{}, "unknown"},
		"height is decimal": {header(own, "16"), "null", "null", rskrpc.Place{}, "hex digits"},
		"height is huge":    {header(own, "0xffffffffffffffff"), "null", "null", rskrpc.Place{}, "hex digits"},
		"no block":          {`"x"`, "null", "null", rskrpc.Place{}, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				request, _ := io.ReadAll(r.Body)
				answer := tt.byNumber
				switch {
				case bytes.Contains(request, []byte("eth_getBlockByHash")):
					answer = tt.byHash
				case bytes.Contains(request, []byte("latest")):
					answer = tt.latest
				}
				_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":`+answer+`}`)
			}))
			t.Cleanup(server.Close)
			got, err := newClient(t, rskrpc.Config{URL: server.URL}).Block(t.Context(), own)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || got != tt.want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg  rskrpc.Config
		want string
	}{
		"no URL":        {rskrpc.Config{}, "rpc_url"},
		"login in URL":  {rskrpc.Config{URL: "http://user:secret@h"}, "must not hold a login"},
		"two passwords": {rskrpc.Config{URL: "http://h", User: "u", Password: "p", PasswordFile: "f"}, "rpc_password_file: only one of them"},
		"no user":       {rskrpc.Config{URL: "http://h", Password: "p"}, "rpc_user"},
		"timeout":       {rskrpc.Config{URL: "http://h", Timeout: -1}, "timeout"},
		"no file":       {rskrpc.Config{URL: "http://h", User: "u", PasswordFile: "/nowhere/at/all"}, "rpc_password_file"},
	} {
		_, err := rskrpc.New(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
