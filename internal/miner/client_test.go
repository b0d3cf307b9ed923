package miner_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/miner"
	"btcpool/internal/miner/pooltest"
)

const emptyHash = `"0000000000000000000000000000000000000000000000000000000000000000"`

const goodNotify = `{"id":null,"method":"mining.notify","params":["j",` + emptyHash + `,"01","02",[],"20000000","1d00ffff","65000000",true]}`

// notifyWith replaces one parameter of a notify.
func notifyWith(old, replacement string) string {
	return strings.Replace(goodNotify, old, replacement, 1)
}

// hostileLines end a session, each with an error that says this.
var hostileLines = []struct{ line, want string }{
	{`not JSON`, "not a JSON object"},
	{`{"id":1`, "not a JSON object"},
	{`[]`, "not a JSON object"},
	{`{"method":7}`, "method is not a string"},
	{strings.Repeat(" ", 70<<10), "line longer than 65536 bytes"},
	{strings.Repeat("[", 60<<10), "not a JSON object"},
	{`{"method":"mining.notify"}`, "0 parameters, want 9"},
	{`{"method":"mining.notify","params":{}}`, "0 parameters, want 9"},
	{notifyWith(`"j"`, `5`), "job id"},
	{notifyWith(`"j"`, `"`+strings.Repeat("j", 300)+`"`), "job id"},
	{notifyWith(`00"`, `0"`), "previous hash"},
	{notifyWith(`"01"`, `"0"`), "coinbase 1"},
	{notifyWith(`"02"`, `"zz"`), "coinbase 2"},
	{notifyWith(`[]`, `"x"`), "merkle branch is not an array"},
	{notifyWith(`[]`, `["00"]`), "merkle branch"},
	{notifyWith(`[]`, `[`+strings.Repeat(emptyHash+`,`, 40)+emptyHash+`]`), "merkle branch of more than 32 hashes"},
	{notifyWith(`"20000000"`, `"2000000"`), "version"},
	{notifyWith(`"1d00ffff"`, `486604799`), "bits"},
	{notifyWith(`"65000000"`, `"6500000x"`), "time"},
	{notifyWith(`true`, `1`), "clean flag"},
	{`{"method":"mining.set_difficulty","params":[0]}`, "not above zero"},
	{`{"method":"mining.set_difficulty","params":[-1]}`, "not above zero"},
	{`{"method":"mining.set_difficulty","params":[1e999]}`, "not above zero"},
	{`{"method":"mining.set_difficulty","params":["1"]}`, "not a number"},
	{`{"method":"mining.set_difficulty","params":[]}`, "not a number"},
	{`{"method":"mining.set_extranonce","params":["00"]}`, "missing"},
	{`{"method":"mining.set_extranonce","params":["0",4]}`, "extranonce1"},
	{`{"method":"mining.set_extranonce","params":["00",0]}`, "extranonce2 size 0"},
	{`{"method":"mining.set_extranonce","params":["00",1.5]}`, "extranonce2 size 1.5"},
	{`{"method":"mining.set_extranonce","params":["00",1e9]}`, "extranonce2 size 1e9"},
	{`{"method":"mining.set_extranonce","params":["` + strings.Repeat("00", 65) + `",4]}`, "extranonce1 of 65 bytes"},
	{`{"method":"mining.set_version_mask","params":["1"]}`, "8 hex digits"},
	{`{"method":"client.reconnect","params":["",70000]}`, "port 70000"},
	{`{"id":{"a":1},"method":"mining.ping"}`, "id is not a short number or string"},
	{`{"id":"` + strings.Repeat("1", 100) + `","method":"client.get_version"}`, "id is not a short number or string"},
}

// harmlessLines are to be answered or passed over.
var harmlessLines = []string{
	`{}`, `{"id":99,"result":true,"error":null}`, `{"id":null,"result":null,"error":[1,2,3]}`, `{"id":-1,"result":true}`,
	`{"id":1e300,"result":true}`, `{"method":"mining.no_such"}`, `{"id":5,"method":"mining.no_such","params":[]}`,
	`{"method":"client.show_message","params":["\u001b[2Jhello"]}`, `{"method":"client.show_message"}`,
	`{"method":"client.reconnect","params":["elsewhere.example",3333,0]}`,
}

func config(addr string) miner.ClientConfig {
	return miner.ClientConfig{Addr: addr, User: "u", Password: "x", Agent: "test/1"}
}

// session runs a client against a pool that sends these lines after authorizing it.
func session(t *testing.T, afterAuthorize ...string) error {
	t.Helper()
	pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method == "mining.authorize" {
			c.Reply(req, "true", "null")
			for _, line := range afterAuthorize {
				c.Send(line)
			}
			return true
		}
		return false
	}}).Start(t)
	return miner.NewClient(config(pool.Addr()), zerolog.Nop()).Run(t.Context())
}

func TestHostilePool(t *testing.T) {
	t.Parallel()
	for _, test := range hostileLines {
		t.Run(test.line[:min(len(test.line), 60)], func(t *testing.T) {
			t.Parallel()
			if err := session(t, test.line); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %q", err, test.want)
			}
		})
	}
}

func TestHarmlessLines(t *testing.T) {
	t.Parallel()
	if err := session(t, append(harmlessLines, `the end`)...); err == nil || !strings.Contains(err.Error(), "the end") {
		t.Errorf("error %v", err)
	}
}

func TestHandshakeRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ method, answer, want string }{
		"subscribe error":         {"mining.subscribe", `"result":null,"error":[25,"Not now",null]`, "Not now"},
		"no extranonce":           {"mining.subscribe", `"result":[[]],"error":null`, "mining.subscribe"},
		"extranonce of no number": {"mining.subscribe", `"result":[[],"00","4"],"error":null`, "extranonce2 size"},
		"authorize false":         {"mining.authorize", `"result":false,"error":null`, "mining.authorize refused"},
		"authorize error":         {"mining.authorize", `"result":null,"error":[29,"Invalid username",null]`, "29 Invalid username"},
		"mask":                    {"mining.configure", `"result":{"version-rolling":true,"version-rolling.mask":"1"}`, "version-rolling.mask"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
				if req.Method != test.method {
					return false
				}
				c.Send(`{"id":` + string(req.ID) + `,` + test.answer + `}`)
				return true
			}}).Start(t)
			cfg := config(pool.Addr())
			cfg.VersionMask = 0xffffffff
			err := miner.NewClient(cfg, zerolog.Nop()).Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %q", err, test.want)
			}
		})
	}
}

// A pool that talks but does not answer is given up all the same.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		c.Send(goodNotify)
		return true
	}}).Start(t)
	cfg := config(pool.Addr())
	cfg.Timeout = 50 * time.Millisecond
	err := miner.NewClient(cfg, zerolog.Nop()).Run(t.Context())
	if netErr := net.Error(nil); !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("error %v, want a timeout", err)
	}
}

func TestSilenceEndsTheSession(t *testing.T) {
	t.Parallel()
	pool := (&pooltest.Pool{}).Start(t)
	cfg := config(pool.Addr())
	cfg.Idle = 50 * time.Millisecond
	err := miner.NewClient(cfg, zerolog.Nop()).Run(t.Context())
	if netErr := net.Error(nil); !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("error %v, want a timeout", err)
	}
}

func TestReconnectRequests(t *testing.T) {
	t.Parallel()
	const other = `{"id":null,"method":"client.reconnect","params":["other.example","4444",7]}`
	tests := map[string]struct {
		line    string
		anyHost bool
		want    *miner.RedirectError // Addr "" is the pool's own
	}{
		"no parameters":       {`{"method":"client.reconnect","params":[]}`, false, &miner.RedirectError{}},
		"wait":                {`{"method":"client.reconnect","params":["",0,3]}`, false, &miner.RedirectError{Wait: 3 * time.Second}},
		"long wait":           {`{"method":"client.reconnect","params":["",0,1e300]}`, false, &miner.RedirectError{Wait: time.Minute}},
		"other port":          {`{"method":"client.reconnect","params":["127.0.0.1",4444]}`, false, &miner.RedirectError{Addr: "127.0.0.1:4444"}},
		"other host":          {other, true, &miner.RedirectError{Addr: "other.example:4444", Wait: 7 * time.Second}},
		"other host, refused": {other, false, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
				if req.Method != "mining.subscribe" {
					return false
				}
				c.Send(test.line)
				c.Send("the end")
				return true
			}}).Start(t)
			cfg := config(pool.Addr())
			cfg.AnyHost = test.anyHost
			err := miner.NewClient(cfg, zerolog.Nop()).Run(t.Context())
			var got *miner.RedirectError
			errors.As(err, &got)
			if test.want != nil && test.want.Addr == "" {
				test.want.Addr = pool.Addr()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("error %v\n%s", err, diff)
			}
		})
	}
}

// A pool may ask, too.
func TestAnswersThePool(t *testing.T) {
	t.Parallel()
	got := make(chan string, 8)
	client, pool := net.Pipe()
	defer pool.Close()
	done := make(chan error)
	go func() { done <- miner.NewClient(config(""), zerolog.Nop()).Serve(client) }()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := pool.Read(buf)
			if err != nil {
				close(got)
				return
			}
			got <- string(buf[:n])
		}
	}()
	for _, test := range []struct{ send, want string }{
		{``, `{"id":1,"method":"mining.subscribe","params":["test/1"]}`},
		{`{"id":1,"result":[[],"0a",4],"error":null}`, `{"id":2,"method":"mining.authorize","params":["u","x"]}`},
		{`{"id":7,"method":"client.get_version","params":[]}`, `{"id":7,"result":"test/1","error":null}`},
		{`{"id":"a","method":"mining.ping"}`, `{"id":"a","result":"pong","error":null}`},
		{`{"id":8,"method":"mining.dance"}`, `{"id":8,"result":null,"error":[20,"Unknown method",null]}`},
	} {
		if test.send != "" {
			io.WriteString(pool, test.send+"\n")
		}
		if diff := cmp.Diff(test.want+"\n", <-got); diff != "" {
			t.Fatal(diff)
		}
	}
	pool.Close()
	if err := <-done; err == nil || err.Error() != "closed by the pool" {
		t.Errorf("error %v", err)
	}
}

// What the session changes holds from the next job on; the version mask holds at once (BIP 310).
func TestJobCarriesTheSession(t *testing.T) {
	t.Parallel()
	type values struct {
		Extranonce1 string
		Size        int
		Difficulty  float64
		Mask        uint32
	}
	line := func(method, params string) string { return `{"method":"` + method + `","params":[` + params + `]}` }
	tests := map[string]struct {
		lines []string
		want  values
	}{
		"at first": {[]string{goodNotify}, values{"\x00\x00\x00\x01", 4, 1, 0x1fffe000}},
		"changes without a job": {
			[]string{goodNotify, line("mining.set_difficulty", "0.25"), line("mining.set_extranonce", `"0b0c",8`)},
			values{"\x00\x00\x00\x01", 4, 1, 0x1fffe000},
		},
		"changes and a job": {
			[]string{line("mining.set_difficulty", "0.25"), line("mining.set_extranonce", `"0b0c",8`), goodNotify},
			values{"\x0b\x0c", 8, 0.25, 0x1fffe000},
		},
		"mask": {[]string{goodNotify, line("mining.set_version_mask", `"0000f000"`)}, values{"\x00\x00\x00\x01", 4, 1, 0x0000e000}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var client *miner.Client
			got := make(chan values, 1)
			pool := &pooltest.Pool{VersionMask: 0x1fffe000}
			pool.Handle = func(c *pooltest.Conn, req pooltest.Request) bool {
				switch req.Method {
				case "mining.authorize":
					c.Reply(req, "true", "null")
					for _, l := range test.lines {
						c.Send(l)
					}
					c.Send(`{"id":0,"method":"mining.ping"}`)
					return true
				case "": // the client has read all of them
					job := client.Job()
					got <- values{string(job.Extranonce1), job.Extranonce2Size, job.Difficulty, job.VersionMask}
					c.Close()
					return true
				}
				return false
			}
			pool.Start(t)
			cfg := config(pool.Addr())
			cfg.VersionMask = 0x1fffe000
			client = miner.NewClient(cfg, zerolog.Nop())
			if err := client.Run(t.Context()); err == nil {
				t.Error("no error")
			}
			if diff := cmp.Diff(test.want, <-got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSubmitOutsideASession(t *testing.T) {
	t.Parallel()
	client := miner.NewClient(config("127.0.0.1:1"), zerolog.Nop())
	if err := client.Submit(miner.Share{}); !errors.Is(err, miner.ErrEnded) {
		t.Errorf("before: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
	if err := client.Submit(miner.Share{}); !errors.Is(err, miner.ErrEnded) {
		t.Errorf("after: %v", err)
	}
}

// FuzzSession: whatever a pool sends, the session ends with an error and gives every share back exactly once.
func FuzzSession(f *testing.F) {
	for _, l := range hostileLines {
		f.Add([]byte(l.line))
	}
	f.Add([]byte(strings.Join(harmlessLines, "\n")))
	f.Add([]byte(`{"id":1,"result":[[],"0a",4]}` + "\n" + `{"id":2,"result":true}` + "\n" + goodNotify + "\n" + `{"id":3,"result":true}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		conn, pool := net.Pipe()
		go io.Copy(io.Discard, pool)
		go func() {
			io.Copy(pool, bytes.NewReader(in))
			pool.Close()
		}()
		submitted, results := 0, 0
		var client *miner.Client
		cfg := config("pool.example:3333")
		cfg.OnJob = func(*miner.Job, time.Time) {
			if client.Submit(miner.Share{}) == nil {
				submitted++
			}
		}
		cfg.OnResult = func(miner.Result) { results++ }
		client = miner.NewClient(cfg, zerolog.Nop())
		if client.Serve(conn) == nil {
			t.Fatal("no error")
		}
		conn.Close()
		if submitted != results {
			t.Fatalf("%d shares, %d results", submitted, results)
		}
	})
}
