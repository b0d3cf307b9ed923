package noderpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/config"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/go-zeromq/zmq4.(*pubMWriter).run"), // a PUB socket's, even when closed
	)
}

// serve returns a client of a node that handler plays.
func serve(t *testing.T, handler http.HandlerFunc, change ...func(*noderpc.Config)) *noderpc.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	cfg := noderpc.Config{URL: server.URL, User: "user", Password: "secret"}
	for _, c := range change {
		c(&cfg)
	}
	client, err := noderpc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// answer returns a handler that answers every call alike.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	var seen struct {
		auth bool
		kind string
		body map[string]any
	}
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		seen.auth = user == "user" && password == "secret"
		seen.kind = r.Header.Get("Content-Type")
		if err := json.NewDecoder(r.Body).Decode(&seen.body); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, `{"result":"00ab","error":null,"id":"1"}`+"\n")
	})
	var got string
	if err := client.Call(t.Context(), "getblockhash", &got, 5); err != nil || got != "00ab" {
		t.Errorf("got %q, %v", got, err)
	}
	if !seen.auth || seen.kind != "application/json" {
		t.Errorf("login %v, content type %q", seen.auth, seen.kind)
	}
	want := map[string]any{"jsonrpc": "1.0", "id": "1", "method": "getblockhash", "params": []any{5.0}}
	if diff := cmp.Diff(want, seen.body); diff != "" {
		t.Error(diff)
	}
	if err := client.Call(t.Context(), "getblockcount", nil); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]any{}, seen.body["params"]); diff != "" {
		t.Error(diff)
	}
	var number int
	if err := client.Call(t.Context(), "getblockcount", &number); err == nil || !strings.Contains(err.Error(), "unexpected result") {
		t.Errorf("text for a number: %v", err)
	}
}

// TestRefusals replays what Bitcoin Core, btcd and things that are neither say.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status int
		body   string
		code   int    // of the *Error, 0 for none
		text   string // in the error
	}{
		{"core wrong password", 401, ``, 0, "check rpc_user and rpc_password"},
		{"btcd wrong password", 401, "401 Unauthorized.\n", 0, "check rpc_user and rpc_password"},
		{"core foreign host", 403, ``, 0, "rpcallowip"},
		{"core stopping", 503, "", 0, "is stopping"},
		{"core overloaded", 503, "Work queue depth exceeded", 0, "rpcworkqueue"},
		{"core warming up", 500, `{"result":null,"error":{"code":-28,"message":"Loading block index…"},"id":"1"}`, -28, "Loading block index"},
		{"core unknown method", 404, `{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":"1"}`, -32601, "Method not found"},
		{"core not connected", 500, `{"result":null,"error":{"code":-9,"message":"Bitcoin Core is not connected!"},"id":"1"}`, -9, "not connected"},
		{"btcd unknown method", 200, `{"jsonrpc":"1.0","result":null,"error":{"code":-32601,"message":"Method not found"},"id":"1"}`, -32601, "Method not found"},
		{"btcd unimplemented", 200, `{"jsonrpc":"1.0","result":null,"error":{"code":-1,"message":"Command unimplemented"},"id":"1"}`, -1, "Command unimplemented"},
		{"empty", 200, ``, 0, "check rpc_url"},
		{"cut short", 200, `{"result":{"height":`, 0, "check rpc_url"},
		{"web page", 200, `<html>`, 0, "check rpc_url"},
		{"web page's 404", 404, `404 page not found`, 0, "check rpc_url"},
		{"other json", 200, `[1]`, 0, "check rpc_url"},
		{"no result", 200, `{"error":null}`, 0, "check rpc_url"},
		{"redirect", 302, ``, 0, "check rpc_url"},
		{"error of no form", 500, `{"result":null,"error":"x"}`, 0, "unknown form"},
		{"error with status only", 500, `{"result":1,"error":null}`, 0, "HTTP 500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := serve(t, answer(tt.status, tt.body)).Call(t.Context(), "getblockcount", nil)
			if err == nil || !strings.HasPrefix(err.Error(), "getblockcount: ") || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %q", err, tt.text)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error tells the password: %v", err)
			}
			code := 0
			if refusal := (*noderpc.Error)(nil); errors.As(err, &refusal) {
				code = refusal.Code
			}
			if code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
		})
	}
}

func TestNoNode(t *testing.T) {
	t.Parallel()
	url := "http://" + testkit.FreeAddr(t)
	client, err := noderpc.New(noderpc.Config{URL: url, User: "user", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	err = client.Call(t.Context(), "getblockcount", nil)
	if err == nil || !strings.Contains(err.Error(), "nothing listens at "+url+": is the node running") {
		t.Error(err)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	polled := make(chan struct{}, 1)
	client := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		call, _ := io.ReadAll(r.Body) // only then the server notices that the caller left
		if bytes.Contains(call, []byte("getblocktemplate")) {
			polled <- struct{}{}
		}
		<-r.Context().Done()
	}, func(cfg *noderpc.Config) { cfg.Timeout = config.Duration(20 * time.Millisecond) })

	err := client.Call(t.Context(), "getblockcount", nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 20ms") {
		t.Errorf("silent node: %v", err)
	}

	// A long poll outlives the time-out and ends with its context.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := client.BlockTemplate(ctx, "id", nil)
		ended <- err
	}()
	<-polled
	select {
	case err := <-ended:
		t.Errorf("long poll ended: %v", err)
	case <-time.After(60 * time.Millisecond):
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("long poll ended: %v", err)
	}
}

func TestAnswerBound(t *testing.T) {
	t.Parallel()
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 1<<20); ; {
			if _, err := w.Write(chunk); err != nil {
				return // the client has had enough
			}
		}
	})
	err := client.Call(t.Context(), "getblockcount", nil)
	if err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Error(err)
	}
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(answer(200, `{"result":1,"error":null}`))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client, err := noderpc.New(noderpc.Config{URL: server.URL, User: "user", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for round := range 3 {
		for range 5 {
			if err := client.Call(t.Context(), "getblockcount", nil); err != nil {
				t.Fatal(err)
			}
		}
		if got := connections.Load(); int(got) != round+1 {
			t.Errorf("%d connections, want %d", got, round+1)
		}
		server.CloseClientConnections() // as a restarted node does
	}
}

func TestCookie(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), ".cookie")
	var password atomic.Value
	password.Store("first")
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, got, _ := r.BasicAuth(); user != "__cookie__" || got != password.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"result":1,"error":null}`)
	}, func(cfg *noderpc.Config) { cfg.User, cfg.Password, cfg.CookieFile = "", "", file })
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	call := func() error { return client.Call(t.Context(), "getblockcount", nil) }

	if err := call(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "rpc_cookie_file: ") || !strings.Contains(err.Error(), "is the node running") {
		t.Errorf("before the node ran: %v", err)
	}
	write("no colon")
	if err := call(); err == nil || !strings.Contains(err.Error(), "no user:password") {
		t.Errorf("no cookie in the file: %v", err)
	}
	write("__cookie__:first")
	if err := call(); err != nil {
		t.Error(err)
	}
	password.Store("second") // the node was restarted
	if err := call(); err == nil || !strings.Contains(err.Error(), "check rpc_cookie_file") {
		t.Errorf("stale cookie: %v", err)
	}
	write("__cookie__:second\n")
	if err := call(); err != nil {
		t.Error(err)
	}
}

func TestPasswordFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("from file\r\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != "from file" {
			t.Errorf("password %q", got)
		}
		_, _ = io.WriteString(w, `{"result":1,"error":null}`)
	}, func(cfg *noderpc.Config) { cfg.Password, cfg.PasswordFile = "", file })
	if err := client.Call(t.Context(), "getblockcount", nil); err != nil {
		t.Error(err)
	}
}

func TestBlockTemplate(t *testing.T) {
	t.Parallel()
	const text = `{"result":{"height":1},"error":null,"id":"1"}` + "\n"
	var params string
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var request struct{ Params json.RawMessage }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		params = string(request.Params)
		_, _ = io.WriteString(w, text)
	})
	for id, want := range map[string]string{
		"":   `[{"rules":["segwit","signet"]}]`,
		"ab": `[{"rules":["segwit","signet"],"longpollid":"ab"}]`,
	} {
		got, err := client.BlockTemplate(t.Context(), id, nil)
		if err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
		if params != want {
			t.Errorf("params %s, want %s", params, want)
		}
	}
}

// What has arrived of a template is told as it comes, and of nothing else.
func TestBlockTemplateArrives(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", 100_000)
	for name, size := range map[string]int{"announced": 2 * len(half), "of unknown size": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cookie := filepath.Join(t.TempDir(), ".cookie")
			write := func(text string) {
				if err := os.WriteFile(cookie, []byte(text), 0o600); err != nil {
					t.Error(err)
				}
			}
			write("user:old")
			more := make(chan struct{})
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if _, password, _ := r.BasicAuth(); password == "old" {
					write("user:new")
					w.WriteHeader(http.StatusUnauthorized)
					_, _ = io.WriteString(w, "401 Unauthorized")
					return
				}
				if size > 0 {
					w.Header().Set("Content-Length", strconv.Itoa(size))
				}
				_, _ = io.WriteString(w, half)
				w.(http.Flusher).Flush()
				<-more
				_, _ = io.WriteString(w, half)
			}, func(cfg *noderpc.Config) { cfg.User, cfg.Password, cfg.CookieFile = "", "", cookie })
			arrived := 0
			got, err := client.BlockTemplate(t.Context(), "", func(soFar []byte) {
				if len(soFar) <= arrived || strings.Trim(string(soFar), "x") != "" {
					t.Errorf("%d bytes have arrived after %d", len(soFar), arrived)
				}
				if arrived < len(half) && len(soFar) >= len(half) {
					close(more) // the rest comes when this has been told
				}
				arrived = len(soFar)
			})
			if err != nil || string(got) != half+half || arrived != len(got) {
				t.Errorf("%d bytes, %d told: %v", len(got), arrived, err)
			}
		})
	}
}

func TestSubmitBlock(t *testing.T) {
	t.Parallel()
	tests := []struct {
		result string
		want   noderpc.Verdict
	}{
		{`null`, noderpc.Verdict{Outcome: noderpc.Accepted}},
		{`"duplicate"`, noderpc.Verdict{Outcome: noderpc.Duplicate, Reason: "duplicate"}},
		{`"duplicate-invalid"`, noderpc.Verdict{Outcome: noderpc.Rejected, Reason: "duplicate-invalid"}},
		{`"duplicate-inconclusive"`, noderpc.Verdict{Outcome: noderpc.Inconclusive, Reason: "duplicate-inconclusive"}},
		{`"inconclusive"`, noderpc.Verdict{Outcome: noderpc.Inconclusive, Reason: "inconclusive"}},
		{`"rejected"`, noderpc.Verdict{Outcome: noderpc.Rejected, Reason: "rejected"}},
		{`"bad-cb-amount"`, noderpc.Verdict{Outcome: noderpc.Rejected, Reason: "bad-cb-amount"}},
		{`"high-hash"`, noderpc.Verdict{Outcome: noderpc.Rejected, Reason: "high-hash"}},
		{`""`, noderpc.Verdict{Outcome: noderpc.Rejected}},
		{`"rejected: already have block 7f40"`, noderpc.Verdict{Outcome: noderpc.Duplicate, Reason: "already have block 7f40"}},
		{`"rejected: already have block (orphan) 7f40"`, noderpc.Verdict{Outcome: noderpc.Inconclusive, Reason: "already have block (orphan) 7f40"}},
		{`"rejected: block hash of ff is higher than expected max of 7f"`, noderpc.Verdict{Outcome: noderpc.Rejected, Reason: "block hash of ff is higher than expected max of 7f"}},
	}
	for _, tt := range tests {
		client := serve(t, answer(200, `{"result":`+tt.result+`,"error":null}`))
		got, err := client.SubmitBlock(t.Context(), "00")
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", tt.result, err, diff)
		}
	}

	for body, text := range map[string]string{
		`{"result":null,"error":{"code":-22,"message":"Block decode failed"},"id":"1"}`: "node error -22: Block decode failed",
		`{"result":true,"error":null}`: "unexpected result",
	} {
		client := serve(t, answer(200, body))
		if got, err := client.SubmitBlock(t.Context(), "00"); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
}

func TestChainInfo(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body string
		want noderpc.ChainInfo
	}{
		"core": {
			`{"result":{"chain":"main","blocks":870000,"headers":870001,"bestblockhash":"00ab","bits":"17030ecd","difficulty":1.01e14,"time":1,"mediantime":1,"verificationprogress":0.99,"initialblockdownload":true,"chainwork":"00","size_on_disk":1,"pruned":false,"warnings":[]},"error":null,"id":"1"}`,
			noderpc.ChainInfo{Chain: "main", Blocks: 870000, Headers: 870001, BestBlockHash: "00ab", ChainWork: "00", InitialBlockDownload: true},
		},
		"btcd": {
			`{"jsonrpc":"1.0","result":{"chain":"regtest","blocks":2,"headers":2,"bestblockhash":"7f40","difficulty":1,"mediantime":1795262422,"pruned":false,"warnings":null,"bip9_softforks":{}},"error":null,"id":"1"}`,
			noderpc.ChainInfo{Chain: "regtest", Blocks: 2, Headers: 2, BestBlockHash: "7f40"},
		},
		"btcd mainnet": {`{"jsonrpc":"1.0","result":{"chain":"mainnet","blocks":2},"error":null}`, noderpc.ChainInfo{Chain: "main", Blocks: 2}},
		"btcd testnet": {`{"jsonrpc":"1.0","result":{"chain":"testnet3","blocks":2},"error":null}`, noderpc.ChainInfo{Chain: "test", Blocks: 2}},
	}
	for name, tt := range tests {
		got, err := serve(t, answer(200, tt.body)).ChainInfo(t.Context())
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestBlock(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		want   noderpc.BlockInfo
		err    error
	}{
		"core":            {200, `{"result":{"hash":"00ab","confirmations":3,"height":7},"error":null}`, noderpc.BlockInfo{Height: 7, Confirmations: 3}, nil},
		"core side chain": {200, `{"result":{"hash":"00ab","confirmations":-1,"height":7},"error":null}`, noderpc.BlockInfo{Height: 7, Confirmations: -1}, nil},
		"core unknown":    {500, `{"result":null,"error":{"code":-5,"message":"Block not found"}}`, noderpc.BlockInfo{}, noderpc.ErrUnknownBlock},
		"btcd":            {200, `{"jsonrpc":"1.0","result":{"hash":"7f40","confirmations":1,"height":2,"version":536870912},"error":null}`, noderpc.BlockInfo{Height: 2, Confirmations: 1}, nil},
		"btcd side chain": {200, `{"jsonrpc":"1.0","result":null,"error":{"code":-32603,"message":"block 7f40 is not in the main chain"}}`, noderpc.BlockInfo{Confirmations: -1}, nil},
		"btcd unknown":    {200, `{"jsonrpc":"1.0","result":null,"error":{"code":-5,"message":"Block not found"}}`, noderpc.BlockInfo{}, noderpc.ErrUnknownBlock},
	}
	for name, tt := range tests {
		got, err := serve(t, answer(tt.status, tt.body)).Block(t.Context(), "7f40")
		if diff := cmp.Diff(tt.want, got); !errors.Is(err, tt.err) || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  noderpc.Config
		want []string // each in the error; none: valid
	}{
		{"password", noderpc.Config{URL: "http://127.0.0.1:8332", User: "u", Password: "p", ZMQ: "tcp://127.0.0.1:28332"}, nil},
		{"password file", noderpc.Config{URL: "https://node/", User: "u", PasswordFile: "f"}, nil},
		{"cookie", noderpc.Config{URL: "http://[::1]:8332", CookieFile: "f", ZMQ: "ipc:///run/zmq"}, nil},
		{"empty", noderpc.Config{}, []string{"rpc_url: is empty", "rpc_user: is empty"}},
		{"everything wrong", noderpc.Config{URL: "127.0.0.1:8332", User: "a:b", ZMQ: "127.0.0.1:28332", Timeout: -1}, []string{"rpc_url", "rpc_user", "rpc_password", "zmq_hashblock", "timeout"}},
		{"not a url", noderpc.Config{URL: "http://u:secret@node:x", CookieFile: "f"}, []string{"rpc_url: is not a URL"}},
		{"login in the url", noderpc.Config{URL: "http://u:secret@node", CookieFile: "f"}, []string{"rpc_url", "rpc_user"}},
		{"own authority", noderpc.Config{URL: "https://node", CookieFile: "f", CAFile: "c"}, nil},
		{"authority without TLS", noderpc.Config{URL: "http://node", CookieFile: "f", CAFile: "c"}, []string{"rpc_ca_file"}},
		{"other scheme", noderpc.Config{URL: "tcp://node", CookieFile: "f"}, []string{"rpc_url"}},
		{"two logins", noderpc.Config{URL: "http://node", CookieFile: "f", User: "u"}, []string{"rpc_cookie_file"}},
		{"two passwords", noderpc.Config{URL: "http://node", User: "u", Password: "p", PasswordFile: "f"}, []string{"rpc_password_file"}},
	}
	for _, tt := range tests {
		err := tt.cfg.Validate()
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, text := range tt.want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q lacks %q", tt.name, err, text)
			}
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error tells the password: %v", tt.name, err)
		}
		if client, newErr := noderpc.New(tt.cfg); (newErr == nil) != (err == nil) {
			t.Errorf("%s: New gives %v, %v", tt.name, client, newErr)
		}
	}
}
