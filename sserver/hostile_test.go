package sserver_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/stratum"
	"btcpool/internal/testkit"
)

// wantEnd reads until the pool closes the connection, and returns what came.
func (c *client) wantEnd() string {
	c.tb.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.tb.Errorf("not closed after %q", text)
	}
	return string(text)
}

func TestOversizedLine(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	c := p.dial()
	c.send(`{"id":1,"method":"mining.ping","params":["` + strings.Repeat("x", stratum.MaxLine))
	if got := c.wantEnd(); got != `{"id":null,"result":null,"error":[27,"Illegal params",null]}`+"\n" {
		t.Errorf("got %q", got)
	}
	testkit.Eventually(t, "count", func() bool { return p.metric("disconnects_total", "reason", "line too long") == 1 })
}

func TestLongestLine(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	c := p.dial()
	line := `{"id":1,"method":"mining.ping","params":[""]}`
	c.send(strings.Replace(line, `""`, `"`+strings.Repeat("x", stratum.MaxLine-len(line))+`"`, 1) + "\n")
	if m := c.read(); string(m.Result) != `"pong"` {
		t.Errorf("got %+v", m)
	}
}

// Whoever talks much without logging in is heard more rarely, limits or not.
func TestTalkativeStranger(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	c := p.dial()
	const pings = 300
	c.send(strings.Repeat(`{"id":1,"method":"mining.ping","params":[]}`+"\n", pings))
	for range pings {
		if m := c.read(); string(m.Result) != `"pong"` {
			t.Fatalf("got %+v", m)
		}
	}
	if got := p.metric("pauses_total"); got == 0 {
		t.Error("no pause")
	}
	c.login()
}

func TestLinesInPieces(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c := p.dial()
	text := `{"id":1,"method":"mining.subscribe","params":[]}` + "\r\n" + `{"id":2,"method":"mining.authorize","params":["alice.rig"]}` + "\n"
	for i := range len(text) {
		c.send(text[i : i+1])
	}
	for id := range 2 {
		if m := c.read(); m.ID != float64(id+1) || m.Error != nil {
			t.Errorf("got %+v", m)
		}
	}
	c.work()
}

// Many requests in one packet, the shares among them acknowledged together.
func TestPipelinedRequests(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	var text bytes.Buffer
	const n = 10
	for i := range uint64(n) {
		f := c.share(w, i)
		fmt.Fprintf(&text, `{"id":%d,"method":"mining.submit","params":["alice.rig","%s","%s","%s","%s"]}`+"\n", i, f.job, f.extraNonce2, f.time, f.nonce)
	}
	c.send(text.String())
	for i := range n {
		if m := c.read(); m.ID != float64(i) || string(m.Result) != "true" {
			t.Errorf("got %+v", m)
		}
	}
}

// A miner that will say nothing more still hears of the shares it has sent.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	f := c.share(w, 1)
	c.request("mining.submit", f.params()...)
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.wantEnd(); !strings.Contains(got, `"result":true`) {
		t.Errorf("got %q", got)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.LoginTimeout, cfg.TCPReadTimeout = 5e9, 5e9
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	trickle := p.dial() // never says anything whole, and does not end
	go func() {
		for {
			if _, err := trickle.conn.Write([]byte("{")); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond) // the pace of the attack
		}
	}()
	trickle.wantEnd()
	c, _ := p.miner()
	spoken := time.Now()
	c.mustCall(nil, "mining.ping")
	c.wantEnd()
	if waited := time.Since(spoken); waited < time.Second {
		t.Errorf("an idle miner was kept for %s", waited)
	}
	testkit.Eventually(t, "count", func() bool { return p.metric("disconnects_total", "reason", "timeout") == 2 })
}

// A miner that does not read is cut off and costs others nothing.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.WriteTimeout = config.Duration(2 * testkit.Patience) // so long would others wait, if the pool waited for one
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	slow, _ := p.miner()
	if err := slow.conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	good, _ := p.miner()
	for i := 0; p.metric("disconnects_total", "reason", "slow") == 0; i++ {
		if i == 500 {
			t.Fatal("never cut off")
		}
		j := p.newJob(byte(2+i), int32(101+i))
		j.Coinbase2 = bytes.Repeat([]byte{0x22}, 25_000)
		p.TakeJob(j)
		good.work()
	}
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 1 })
}

func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.MaxConnections = 2
	p := startPool(t, cfg)
	first, second := p.dial(), p.dial()
	first.mustCall(nil, "mining.ping")
	second.mustCall(nil, "mining.ping")
	p.dial().wantEnd()
	if got := p.metric("connections_refused_total", "reason", "limit"); got != 1 {
		t.Errorf("%v refused", got)
	}
	first.conn.Close()
	testkit.Eventually(t, "room", func() bool { return p.Sessions() == 1 })
	p.dial().mustCall(nil, "mining.ping")
}

// At the end, what was read is answered, and all connections are closed.
func TestStop(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Listen = testkit.FreeAddr(t)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	idle := p.dial()
	idle.mustCall(nil, "mining.ping")
	c.wantSubmit(c.share(w, 1), 0)
	p.stop()
	c.wantEnd()
	idle.wantEnd()
	if _, err := net.Dial("tcp", p.Addr().String()); err == nil {
		t.Error("still listens")
	}
	if got := p.metric("sessions"); got != 0 {
		t.Errorf("%v sessions", got)
	}
}

// endOfFrame completes any frame and any line; of who is no agent, frames are short.
var endOfFrame = strings.Repeat("\n", agentwire.MaxFrame)

// Arbitrary bytes, in two pieces, before and after an agent's login: the connection may end, the pool may not.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"{}\n", "\x7f\x01\x05\x00", "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n",
		"{\"id\":1,\"method\":\"mining.submit\",\"params\":[\"a\",\"0\",\"0000000000000000\",\"00000001\",\"00000000\",\"1fffe000\"]}\n",
		"{\"id\":1,\"method\":\"mining.configure\",\"params\":[[\"version-rolling\"],{\"version-rolling.mask\":\"ffffffff\"}]}\n",
	} {
		f.Add([]byte(seed), 3, true)
		f.Add([]byte(seed), 0, false)
	}
	frames := agentwire.Register{Session: 1, Agent: "a", Worker: "w"}.AppendTo(nil)
	frames = agentwire.Submit{Session: 1, Nonce: 1, Time: 1, Rolled: true}.AppendTo(frames)
	frames = agentwire.Submit{Session: 2}.AppendTo(append(frames, pingLine+"\n"...))
	frames = agentwire.Unregister{Session: 1}.AppendTo(frames)
	f.Add(frames, 9, true)
	cfg := testConfig(f)
	cfg.Limits.LinesPerSec = 0
	p := startPool(f, cfg)
	p.TakeJob(p.newJob(1, 100))
	f.Fuzz(func(t *testing.T, in []byte, cut int, login bool) {
		if cut < 0 || cut > len(in) {
			return
		}
		own := *p
		own.tb = t
		c := own.dial()
		if login {
			c.mustCall(nil, "agent.get_capabilities", []string{"subres"})
			c.mustCall(nil, "mining.subscribe", "btccom-agent/fuzz")
			c.mustCall(nil, "mining.authorize", "alice.rig", "x")
		}
		_, _ = c.conn.Write(in[:cut])
		end := endOfFrame
		if !login {
			end = end[:4096]
		}
		_, _ = c.conn.Write(append(in[cut:], end+pingLine+"\n"...))
		for {
			line, err := c.readLine()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("no answer")
			}
			if err != nil || strings.HasSuffix(strings.TrimSpace(line), pongLine) { // frames have no line end
				break
			}
		}
		if own.metric("panics_total") > 0 {
			t.Fatal("panic")
		}
	})
}
