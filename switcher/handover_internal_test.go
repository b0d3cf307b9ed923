//go:build linux && !streams

package switcher

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade"
	"btcpool/internal/upgrade/upgradetest"
)

// succeedBy has another switcher go on with what r serves, by a configuration, and returns it.
func (r *rig) succeedBy(cfg Config) *rig {
	r.t.Helper()
	before, moved := upgradetest.Offer(r.t, r.Service)
	reg := prometheus.NewRegistry()
	next, err := New(cfg, service.Deps{
		Log: zerolog.New(zerolog.NewTestWriter(r.t)).Level(zerolog.ErrorLevel), Metrics: reg, Predecessor: before,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	testkit.Run(r.t, next.Run)
	if o := <-moved; o.Err != nil {
		r.t.Fatal(o.Err)
	}
	testkit.Eventually(r.t, "it serves", next.running.Load)
	return &rig{next, r.t, reg}
}

func (r *rig) succeed() *rig {
	r.t.Helper()
	return r.succeedBy(r.cfg)
}

// await waits until so many sessions are as that says.
func (r *rig) await(what string, want int, is func(*session) bool) {
	r.t.Helper()
	testkit.Eventually(r.t, what, func() bool {
		n := 0
		for _, l := range r.loops {
			_ = l.Call(r.t.Context(), func() {
				for _, s := range l.sessions {
					if is(s) {
						n++
					}
				}
			})
		}
		return n == want
	})
}

// all says something on all connections.
func (p *pool) all(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.say(format, args...)
	}
}

// come has a miner ask to log in, and returns the id of the request.
func (m *machine) come(name string) string {
	m.t.Helper()
	m.hear(m.ask("mining.subscribe", `["test/1"]`))
	return m.ask("mining.authorize", fmt.Sprintf(`["%s","x"]`, name))
}

func (m *machine) wantTrue(what string, got message) {
	m.t.Helper()
	if string(got.Result) != "true" {
		m.t.Errorf("%s: %s", what, got.line)
	}
}

// number is that of a request as a server gets it.
func number(line string) string { return regexp.MustCompile(`"id":(\d+)`).FindStringSubmatch(line)[1] }

// Sessions go on in another process in every phase, with half a line that was read, with a request that a server has not
// answered, with what came during a login, and with the server that was left. Nobody hears of it, and no id is given twice.
func TestHandOver(t *testing.T) {
	t.Parallel()
	btc := startPool(t, "a", func(p *pool) { p.silent = map[string]bool{"test.wait": true} })
	bch := startPool(t, "b")
	slow := startPool(t, "s", func(p *pool) {
		p.early = true
		p.silent = map[string]bool{"mining.authorize": true}
	})
	none := Chain{Name: "none", Servers: []Server{{Addr: testkit.FreeAddr(t)}}}
	r := startRig(t, []Chain{chainOf("btc", btc), chainOf("bch", bch), chainOf("slow", slow), none},
		map[string]string{"alice": "btc", "bob": "btc", "carol": "slow", "dave": "none", "erin": "bch"},
		func(c *Config) {
			c.Users.Timeout, c.Hold = config.Duration(testkit.Patience), config.Duration(testkit.Patience)
		})

	fresh, half, asks, waits, moved, joins, held, moving, sought := r.machine(), r.machine(), r.machine(), r.machine(), r.machine(),
		r.machine(), r.machine(), r.machine(), r.machine()
	fmt.Fprint(half, `{"id":1,"method":"mining.subsc`)
	told := asks.hear(asks.ask("mining.subscribe", `["test/1"]`))
	_, job := waits.login("alice.rig", "mining.configure")
	_, old := moved.login("bob.rig")
	r.says("bob", "bch")
	next := moved.hear("mining.notify")
	joinsID := joins.come("carol.rig")
	held.come("dave.rig")
	_, from := moving.login("erin.rig")
	r.says("erin", "slow")
	soughtID := sought.come("frank.rig") // nobody says what that user mines
	waitsID := waits.ask("test.wait", `[1]`)
	fmt.Fprint(waits, `{"id":77,"method":"mining.submit","params":["alice.rig","`)
	r.await("all are where they should be", 9, func(s *session) bool {
		switch s.Name.user {
		case "":
			return s.spoken == (len(s.pending) > 0 || s.Phase == subscribed)
		case "alice":
			return len(s.now.questions) == 1 && len(s.pending) > 0
		case "bob":
			return s.now.chain.Name == "bch" && len(s.past) == 1
		case "carol", "erin":
			return s.next != nil && s.next.link != nil && len(s.next.early) > 0
		case "dave":
			return s.Phase == joining && s.tries > 0
		}
		return s.Phase == finding && s.used
	})
	r.await("half a line is read", 2, func(s *session) bool { return len(s.pending) > 0 })

	for range 2 {
		r = r.succeed()
	}
	r.await("all are there", 9, func(*session) bool { return true })
	r.knows("frank", "btc")
	r = r.succeed()

	fmt.Fprintf(waits, `%s","01020304","650a0b0c","0000000a"]}`+"\n", job.param(0))
	waits.wantTrue("a share whose line was half sent", waits.hear("77"))
	btc.all(`{"id":%s,"result":true,"error":null}`, number(btc.last("test.wait")))
	waits.wantTrue("a request that waited", waits.hear(waitsID))
	moved.wantTrue("a late share", moved.submit(old.param(0)))
	moved.wantTrue("a share for the new chain", moved.submit(next.param(0)))
	moving.wantTrue("a share amid a switch", moving.submit(from.param(0)))
	if btc, bch := btc.count("mining.submit"), bch.count("mining.submit"); btc != 2 || bch != 2 {
		t.Errorf("%d and %d shares", btc, bch)
	}
	slow.all(`{"id":%d,"result":true,"error":null}`, numberAuthorize)
	joins.wantTrue("a login under way", joins.hear(joinsID))
	kept := joins.hear("mining.notify")
	joins.wantTrue("a share for a job that was kept", joins.submit(kept.param(0)))
	if got := moving.hear("mining.notify"); got.param(8) != "true" {
		t.Errorf("the job of a new chain: %s", got.line)
	}
	r.says("dave", "btc")
	held.wantTrue("a login that found no server", held.hear(fmt.Sprint(held.next)))
	sought.wantTrue("a login whose user was sought", sought.hear(soughtID))
	asks.wantTrue("a login", asks.hear(asks.ask("mining.authorize", `["alice.two","x"]`)))
	fmt.Fprint(half, `ribe","params":["test/1"]}`+"\n")
	ids := map[string]bool{}
	for _, got := range []message{told, half.hear("1"), fresh.hear(fresh.ask("mining.subscribe", `["test/1"]`)), func() message {
		m := r.machine()
		return m.hear(m.ask("mining.subscribe", `["test/1"]`))
	}()} {
		var result []json.RawMessage
		if err := json.Unmarshal(got.Result, &result); err != nil || ids[string(result[1])] {
			t.Errorf("%s: %v", got.line, err)
			continue
		}
		ids[string(result[1])] = true
	}
	r.await("all are where they should be again", 7, func(s *session) bool { return s.Phase == mining })
	if n := testkit.Metric(t, r.reg, "btcpool_switcher_sessions", "phase", "mining"); n != 7 {
		t.Errorf("%v sessions are counted", n)
	}
	if n := testkit.Metric(t, r.reg, "btcpool_switcher_chain_sessions", "chain", "btc"); n != 4 {
		t.Errorf("%v sessions are counted for the chain", n)
	}
	fresh.Close()
	r.await("one has left", 9, func(*session) bool { return true })
}

// What users mine is followed without a gap: what the old process was told last, but its sessions were not, and what the new
// one hears.
func TestHandOverOfUsers(t *testing.T) {
	t.Parallel()
	btc, bch := startPool(t, "a"), startPool(t, "b")
	r := startRig(t, []Chain{chainOf("btc", btc), chainOf("bch", bch)}, map[string]string{"alice": "btc"})
	m := r.machine()
	m.login("alice")
	r.knows("alice", "bch")
	r.knows("bob", "bch")
	r = r.succeed()
	if job := m.hear("mining.notify"); !strings.Contains(job.param(0), "b") {
		t.Errorf("job %s", job.line)
	}
	r.says("alice", "btc")
	m.hear("mining.notify")
	other := r.machine()
	if _, job := other.login("bob"); !strings.Contains(job.param(0), "b") {
		t.Errorf("job %s", job.line)
	}
	other.Close()
	m.Close()
	r.await("both have left", 0, func(*session) bool { return true })
}

// Shares that come all the time are answered once each by whichever process serves, while users are switched and miners
// come all the time.
func TestHandOverWhileSharesCome(t *testing.T) {
	t.Parallel()
	btc, bch := startPool(t, "a"), startPool(t, "b")
	r := startRig(t, []Chain{chainOf("btc", btc), chainOf("bch", bch)}, map[string]string{"alice": "btc", "bob": "bch"},
		func(c *Config) { c.Grace = config.Duration(testkit.Patience) })
	const machines, rounds = 8, 10
	stop := make(chan struct{})
	var submitting sync.WaitGroup
	var answered atomic.Int64
	for i := range machines {
		m := r.machine()
		_, job := m.login([...]string{"alice", "bob"}[i%2])
		submitting.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprint(1000 + n)
				if _, err := fmt.Fprintf(m.Conn, `{"id":%s,"method":"mining.submit","params":["x","%s","01020304","650a0b0c","%08x"]}`+"\n", id, job.param(0), n); err != nil {
					t.Error(err)
					return
				}
				for got := (message{Method: "none"}); got.Method != ""; {
					var err error
					if got, err = m.read(); err != nil {
						t.Error(err)
						return
					}
					switch {
					case got.Method == "mining.notify":
						job = got
					case got.Method == "" && (string(got.ID) != id || string(got.Result) != "true"):
						t.Errorf("share %s is answered by %s", id, got.line)
						return
					}
				}
				answered.Add(1)
			}
		})
	}
	addr := r.Addrs()[0].String()
	submitting.Go(func() { // nobody who comes is refused
		for {
			select {
			case <-stop:
				return
			default:
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.SetReadDeadline(time.Now().Add(testkit.Patience))
			fmt.Fprint(conn, `{"id":1,"method":"mining.subscribe","params":["test/1"]}`+"\n")
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			conn.Close()
		}
	})
	for i := range rounds {
		had := answered.Load()
		r.says("alice", [...]string{"bch", "btc"}[i%2])
		r = r.succeed()
		testkit.Eventually(t, "shares are accepted", func() bool { return answered.Load() > had+2*machines })
	}
	close(stop)
	submitting.Wait()
	if btc, bch := btc.count("mining.submit"), bch.count("mining.submit"); int64(btc+bch) != answered.Load() {
		t.Errorf("%d shares are answered, servers had %d and %d", answered.Load(), btc, bch)
	}
	t.Logf("%d shares", answered.Load())
}

// Whichever of the two dies, and when: the old process goes on as if nothing had been, and the new one does not begin.
func TestHandOverCutOff(t *testing.T) {
	t.Parallel()
	p := startPool(t, "a")
	r := startRig(t, []Chain{chainOf("btc", p)}, map[string]string{"alice": "btc"}, func(c *Config) {
		c.Status = "" // its address is that of the other process until that is gone
	})
	m := r.machine()
	_, job := m.login("alice")
	if messages := upgradetest.CutOff(t, r.Service, func(before *upgrade.Predecessor) (*Service, error) {
		return New(r.cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(), Predecessor: before})
	}, func(int) {
		m.wantTrue("a share", m.submit(job.param(0)))
		m := r.machine()
		m.login("alice.more")
		m.Close()
	}, func(int, *Service) {
		m.wantTrue("a share", m.submit(job.param(0)))
	}, r.cfg.Listeners[0].name()); messages < 3 {
		t.Errorf("taken over after %d messages", messages)
	}
}

// A process that another one does not take over from goes on as if nothing had been.
func TestNotHandedOver(t *testing.T) {
	t.Parallel()
	p := startPool(t, "a")
	r := startRig(t, []Chain{chainOf("btc", p)}, map[string]string{"alice": "btc"})
	m := r.machine()
	_, job := m.login("alice")
	for name, other := range map[string]func(*upgrade.Predecessor){
		"gone":      func(*upgrade.Predecessor) {},
		"refuses":   func(b *upgrade.Predecessor) { b.Refuse(context.Canceled) },
		"version 0": func(b *upgrade.Predecessor) { _ = b.Ready([]byte{0}) },
		"version 9": func(b *upgrade.Predecessor) { _ = b.Ready([]byte{9}) },
		"dies in the middle": func(b *upgrade.Predecessor) {
			_ = b.Ready([]byte{1})
			got, _ := b.Receive()
			got.Close()
		},
	} {
		before, moved := upgradetest.Offer(t, r.Service)
		other(before)
		_ = before.Close()
		if err := (<-moved).Err; err == nil {
			t.Fatalf("%s: taken over", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		m.wantTrue(name, m.submit(job.param(0)))
	}
}

// What does not fit is refused by the new process, with a reason.
func TestHandOverRefused(t *testing.T) {
	t.Parallel()
	p := startPool(t, "a")
	r := startRig(t, []Chain{chainOf("btc", p)}, map[string]string{"alice": "btc"})
	m := r.machine()
	_, job := m.login("alice")
	for _, bad := range []struct {
		want string
		set  func(*Config)
	}{
		{"server_id", func(c *Config) { c.ServerID = 9 }},
		{"data_dir", func(c *Config) { c.DataDir = t.TempDir() }},
		{"is not configured here", func(c *Config) { c.Chains = []Chain{chainOf("bch", p)}; c.DefaultChain = "" }},
	} {
		cfg := r.cfg
		bad.set(&cfg)
		before, moved := upgradetest.Offer(t, r.Service)
		other, err := New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(), Predecessor: before})
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", bad.want, err)
		}
		if err := (<-moved).Err; err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v", bad.want, err)
		}
		m.wantTrue("a share", m.submit(job.param(0)))
	}
}

// A server that the new configuration does not have is left for another of its chain, and takes shares for a while.
func TestHandOverWithoutServer(t *testing.T) {
	t.Parallel()
	one, two := startPool(t, "a"), startPool(t, "b")
	r := startRig(t, []Chain{chainOf("btc", one)}, map[string]string{"alice": "btc"})
	m := r.machine()
	_, old := m.login("alice")
	cfg := r.cfg
	cfg.Chains = []Chain{chainOf("btc", two), chainOf("bch", one)}
	r.succeedBy(cfg)
	job := m.hear("mining.notify")
	m.wantTrue("a share for the other server", m.submit(job.param(0)))
	m.wantTrue("a share for the one that was left", m.submit(old.param(0)))
	if one, two := one.count("mining.submit"), two.count("mining.submit"); one != 1 || two != 1 {
		t.Errorf("%d and %d shares", one, two)
	}
}

// Connections that have TLS, of miners and to servers, are served by the next process, and the one after that, by way of
// the first.
func TestHandOverOfTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	roots := testkit.Certificate(t, cert, key)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	p := startPool(t, "a", func(p *pool) {
		p.ln = tls.NewListener(p.ln, &tls.Config{Certificates: []tls.Certificate{pair}})
	})
	chains := []Chain{chainOf("btc", p)}
	chains[0].Servers[0].TLS, chains[0].Servers[0].TLSSkipVerify = true, true
	r := startRig(t, chains, map[string]string{"alice": "btc"}, func(c *Config) {
		c.Listeners[0].TLSCertFile, c.Listeners[0].TLSKeyFile = cert, key
	})
	secure := func() *machine {
		m := r.machine()
		m.Conn = tls.Client(m.Conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
		m.reset()
		return m
	}
	m := secure()
	_, job := m.login("alice")
	for range 2 {
		r = r.succeed()
		m.wantTrue("a share", m.submit(job.param(0)))
	}
	secure().login("alice.other")
	m.Close()
	r.await("it has left", 1, func(*session) bool { return true })
}

// A farm proxy stays where it is, with half a frame that was read.
func TestHandOverOfFarm(t *testing.T) {
	t.Parallel()
	p := startPool(t, "a", func(p *pool) { p.cooperates = true })
	chains := []Chain{chainOf("btc", p)}
	chains[0].Cooperative = true
	r := startRig(t, chains, map[string]string{"alice": "btc"})
	m := r.machine()
	m.hear(m.ask("mining.subscribe", `["btccom-agent/1.0"]`))
	m.hear(m.ask("mining.authorize", `["alice","x"]`))
	m.hear("mining.notify")
	frame := []byte{agentwire.Magic, 4, 6, 0, 1, 0} // somebody has left
	if _, err := m.Write(frame[:3]); err != nil {
		t.Fatal(err)
	}
	r.await("half a frame is read", 1, func(s *session) bool { return len(s.pending) == 3 })
	r.succeed()
	if _, err := m.Write(frame[3:]); err != nil {
		t.Fatal(err)
	}
	m.ask("test.silence", `[]`) // ends the line, for the test's server
	testkit.Eventually(t, "the server has the frame", func() bool { return p.count(string(frame)+"{") == 1 })
}
