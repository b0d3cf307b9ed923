package switcher

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/testkit"
)

// How a miner goes over to another extranonce, by what its server and itself can do.
func TestExtraNonces(t *testing.T) {
	t.Parallel()
	next := func(set func(*pool)) func(*pool) { return func(p *pool) { p.extraNonce1 = "beef"; set(p) } }
	for _, test := range []struct {
		name       string
		own        int  // size of the miner's extranonce2
		cooperates bool // both servers
		subscribes bool // the miner takes extranonces
		reconnect  bool
		set        func(*pool)
		want       string // methods up to the job, or to the end
		share      string // extranonce2 as the server gets it
	}{
		{"the same", 8, true, false, false, func(p *pool) { p.cooperates = true }, "mining.set_difficulty mining.notify", "01020304"},
		{"inside the server's", 4, false, false, false, func(*pool) {}, "mining.set_difficulty mining.notify", "0100008001020304"},
		{"inside a larger one", 4, false, false, false, func(p *pool) { p.size = 10 }, "mining.set_difficulty mining.notify", "00000100008001020304"},
		{"told", 8, false, true, false, func(*pool) {}, "mining.set_extranonce mining.set_difficulty mining.notify", "01020304"},
		{"asked to connect again", 8, true, false, true, func(*pool) {}, "client.reconnect", ""},
		{"disconnected", 8, true, false, false, func(*pool) {}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			btc := startPool(t, "a", func(p *pool) { p.cooperates = true })
			bch := startPool(t, "b", next(test.set))
			chains := []Chain{chainOf("btc", btc), chainOf("bch", bch)}
			chains[0].Cooperative, chains[1].Cooperative = true, test.cooperates
			r := startRig(t, chains, map[string]string{"alice": "btc"}, func(c *Config) { c.ExtraNonce2Size, c.Reconnect = test.own, test.reconnect })
			m := r.machine()
			more := []string{}
			if test.subscribes {
				more = []string{"mining.extranonce.subscribe"}
			}
			subscribed, _ := m.login("alice", more...)
			if !strings.Contains(string(subscribed.Result), `"01000080"`) {
				t.Errorf("subscribed: %s", subscribed.line)
			}
			r.says("alice", "bch")
			var heard []string
			var job message
			for job.Method == "" {
				got, err := m.read()
				if err != nil {
					break
				}
				heard = append(heard, got.Method)
				if got.Method == "mining.notify" {
					job = got
				}
				if got.Method == "mining.set_extranonce" && (got.param(0) != "beef" || got.param(1) != "8") {
					t.Errorf("another extranonce: %s", got.line)
				}
			}
			if got := strings.Join(heard, " "); got != test.want {
				t.Errorf("heard %q, want %q", got, test.want)
			}
			if test.share == "" {
				return
			}
			m.submit(job.param(0))
			if line := bch.last("mining.submit"); !strings.Contains(line, `"`+test.share+`"`) {
				t.Errorf("the share is sent as %s", line)
			}
			if inside := strings.Contains(job.param(2), "beef"); inside != strings.Contains(test.name, "inside") {
				t.Errorf("the coinbase begins with %s", job.param(2))
			}
		})
	}
}

// A server's new extranonce is for its next jobs: the miner hears of it, or of nothing where it need not.
func TestServersNewExtraNonce(t *testing.T) {
	t.Parallel()
	p := startPool(t, "a", func(p *pool) {
		p.onJob = func(c *poolConn) {
			c.notify(false)
			c.say(`{"id":null,"method":"mining.set_extranonce","params":["cafe0001",8]}`)
			c.notify(true)
		}
	})
	r := startRig(t, []Chain{chainOf("btc", p)}, map[string]string{"alice": "btc"})
	m := r.machine()
	_, job := m.login("alice")
	if !strings.HasSuffix(job.param(2), "f0000000") && !strings.HasSuffix(job.param(2), "f0000001") {
		t.Errorf("the coinbase begins with %s", job.param(2))
	}
	if job = m.hear("mining.notify"); !strings.HasSuffix(job.param(2), "cafe0001") {
		t.Errorf("the coinbase begins with %s after another extranonce", job.param(2))
	}
}

// A miner whose server breaks, or sends it away, is at another one of the chain without a break; where there is none it
// waits for one, and not for ever.
func TestFailOver(t *testing.T) {
	t.Parallel()
	one, two := startPool(t, "a"), startPool(t, "b")
	chains := []Chain{chainOf("btc", one, two)}
	chains[0].Servers[0].Weight = 1e6
	r := startRig(t, chains, map[string]string{"alice": "btc"}, func(c *Config) { c.Hold = config.Duration(2 * time.Second) })
	m := r.machine()
	_, job := m.login("alice")
	one.mu.Lock()
	for _, c := range one.conns {
		c.say(`{"id":null,"method":"client.reconnect","params":["elsewhere",1,0]}`)
	}
	one.mu.Unlock()
	for !strings.HasPrefix(job.param(0)[1:], "b") {
		job = m.hear("mining.notify")
	}
	if got := m.submit(job.param(0)); string(got.Result) != "true" {
		t.Errorf("share: %s", got.line)
	}
	two.stop()
	for !strings.HasPrefix(job.param(0)[1:], "a") {
		job = m.hear("mining.notify")
	}
	if got := m.submit(job.param(0)); string(got.Result) != "true" {
		t.Errorf("share: %s", got.line)
	}
	if n := testkit.Metric(t, r.reg, "btcpool_switcher_failovers_total", "chain", "btc"); n != 2 {
		t.Errorf("%v failovers", n)
	}
	one.stop()
	m.ended()
	if n := testkit.Metric(t, r.reg, "btcpool_switcher_disconnected_total", "reason", "no server"); n != 1 {
		t.Errorf("%v disconnected for lack of a server", n)
	}
}

// TLS on either side, and who the miner is from one proxy to the next.
func TestTransport(t *testing.T) {
	t.Parallel()
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprint("PROXY ", version), func(t *testing.T) {
			t.Parallel()
			heard := make(chan []byte, 10)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ln.Close() })
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					b := make([]byte, 200)
					n, _ := conn.Read(b)
					_ = conn.Close()
					heard <- b[:n]
				}
			}()
			r := startRig(t, []Chain{{Name: "btc", Servers: []Server{{Addr: ln.Addr().String(), ProxyProtocol: version}}}}, map[string]string{"alice": "btc"}, func(c *Config) {
				c.Listeners[0].ProxyNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			})
			m := r.machine()
			fmt.Fprint(m.Conn, "PROXY TCP4 192.0.2.7 192.0.2.8 1000 3333\r\n")
			m.ask("mining.subscribe", "[]")
			m.ask("mining.authorize", `["alice","x"]`)
			want := []byte("PROXY TCP4 192.0.2.7 127.0.0.1 0 ")
			if version == 2 {
				want = []byte("\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01")
			}
			for deadline := time.After(testkit.Patience); ; {
				select {
				case got := <-heard: // or of a probe
					if bytes.Contains(got, want) {
						return
					}
				case <-deadline:
					t.Fatal("the server has not heard who the miner is")
				}
			}
		})
	}
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		roots := testkit.Certificate(t, cert, key)
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		p := startPool(t, "a", func(p *pool) {
			p.ln = tls.NewListener(p.ln, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
		})
		next := startPool(t, "b")
		chains := []Chain{chainOf("btc", p), chainOf("bch", next)}
		chains[0].Servers[0].TLS, chains[0].Servers[0].TLSSkipVerify = true, true
		r := startRig(t, chains, map[string]string{"alice": "btc"}, func(c *Config) {
			c.Listeners[0].TLSCertFile, c.Listeners[0].TLSKeyFile = cert, key
		})
		m := r.machine()
		secure := tls.Client(m.Conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
		m.Conn, m.lines = secure, nil
		m.reset()
		_, job := m.login("alice")
		if got := m.submit(job.param(0)); string(got.Result) != "true" {
			t.Errorf("share: %s", got.line)
		}
		r.says("alice", "bch")
		if job = m.hear("mining.notify"); !strings.HasPrefix(job.param(0)[1:], "b") {
			t.Errorf("job %s", job.line)
		}
	})
}

// A farm proxy's frames pass as they are, both ways, and whole; it is switched by the end of its connection.
func TestFarm(t *testing.T) {
	t.Parallel()
	frame := []byte("\x7f\x10\x08\x00abc\n")
	btc := startPool(t, "a", func(p *pool) {
		p.cooperates = true
		p.onJob = func(c *poolConn) {
			c.notify(false)
			for i := range frame {
				_, _ = c.Write(frame[i : i+1])
			}
			c.notify(false)
		}
	})
	bch := startPool(t, "b")
	chains := []Chain{chainOf("btc", btc), chainOf("bch", bch)}
	chains[0].Cooperative = true
	r := startRig(t, chains, map[string]string{"alice": "btc"}, func(c *Config) { c.AgentSwitchSpread = config.Duration(time.Second) })
	m := r.machine()
	caps := m.hear(m.ask("agent.get_capabilities", `[["verrol"]]`))
	if !strings.Contains(string(caps.Result), `"subres"`) {
		t.Errorf("capabilities: %s", caps.line)
	}
	m.hear(m.ask("mining.subscribe", `["btccom-agent/2.0.0-mu"]`))
	m.hear(m.ask("mining.authorize", `["alice","x"]`))
	if job := m.hear("mining.notify"); job.param(0) != "a1" {
		t.Errorf("job %s: has a mark", job.line)
	}
	got := make([]byte, len(frame))
	_ = m.SetReadDeadline(time.Now().Add(testkit.Patience))
	for i := range got {
		b, err := m.lines.ReadByte()
		if err != nil {
			t.Fatal(err)
		}
		got[i] = b
	}
	if !bytes.Equal(got, frame) {
		t.Errorf("frame %q, want %q", got, frame)
	}
	m.hear("mining.notify")
	fmt.Fprintf(m.Conn, "\x7f\x01\x09\x00\x00\x00a|b\n")
	m.ask("mining.unheard_of", "[]") // which ends the line
	testkit.Eventually(t, "the frame is there", func() bool {
		btc.mu.Lock()
		defer btc.mu.Unlock()
		return strings.Contains(strings.Join(btc.lines, "\n"), "\x7f\x01\x09\x00\x00\x00a|b")
	})
	r.says("alice", "bch")
	m.ended()
	if n := testkit.Metric(t, r.reg, "btcpool_switcher_disconnected_total", "reason", "switched agent"); n != 1 {
		t.Errorf("%v farms disconnected for a switch", n)
	}
}

// Which server is chosen.
func TestChoose(t *testing.T) {
	t.Parallel()
	r := startRig(t, []Chain{{Name: "btc", Servers: []Server{{Addr: testkit.FreeAddr(t)}}}}, nil)
	gauge := r.metrics.serverUp.WithLabelValues("btc", "x")
	a, b, c := newServer(Server{Addr: "a", Weight: 3}, gauge), newServer(Server{Addr: "b"}, gauge), newServer(Server{Addr: "c", Weight: 5}, gauge)
	of := &chain{servers: []*server{a, b, c}}
	now := time.Now()
	c.failed(errEnded, now)
	count := make(map[*server]int)
	for range 10_000 {
		count[of.choose(now, nil)]++
	}
	if count[c] != 0 || count[a] < 7000 || count[a] > 8000 {
		t.Errorf("chosen %d and %d times of weights 3 and 1, and %d times broken", count[a], count[b], count[c])
	}
	if got := of.choose(now, a); got != b {
		t.Errorf("%s is chosen where a is to be avoided", got.Addr)
	}
	a.failed(errEnded, now)
	b.failed(errEnded, now)
	if got := of.choose(now.Add(time.Hour), b); got == nil {
		t.Error("none is chosen where all are broken")
	}
	var pauses []time.Duration
	for range 8 {
		c.failed(errEnded, c.until)
		pauses = append(pauses, c.until.Sub(now))
	}
	if last := pauses[7] - pauses[6]; last < 10*time.Second || last > 50*time.Second {
		t.Errorf("pauses up to %s", last)
	}
}

// The memory of a connection that does nothing, and of its way to a server.
func TestIdleMemory(t *testing.T) {
	p := startPool(t, "a")
	r := startRig(t, []Chain{chainOf("btc", p)}, map[string]string{"alice": "btc"})
	const n = 500
	before := heap()
	for range n {
		r.machine().login("alice")
	}
	// The miners and servers of the test are in the figure, with some 10 KiB each.
	if per := (heap() - before) / n; per > 32<<10 {
		t.Errorf("%d bytes a connection", per)
	} else {
		t.Logf("%d bytes a connection, with the test's own ends of both", per)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
