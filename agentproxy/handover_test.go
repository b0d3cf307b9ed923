//go:build linux && !streams

package agentproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade"
	"btcpool/internal/upgrade/upgradetest"
)

// config returns that in use.
func (s *Service) config(t *testing.T) (cfg Config) {
	t.Helper()
	s.onLoop(t, func() { cfg = s.cfg })
	return cfg
}

// succeed has another proxy go on with what s serves, by a configuration, and returns it.
func succeed(t *testing.T, s *Service, cfg Config) *Service {
	t.Helper()
	before, moved := upgradetest.Offer(t, s)
	metrics := prometheus.NewRegistry()
	next, err := New(cfg, service.Deps{
		Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel), Metrics: metrics, Predecessor: before,
	})
	if err != nil {
		t.Fatal(err)
	}
	registries.Store(next, metrics)
	t.Cleanup(func() { registries.Delete(next) })
	testkit.Run(t, next.Run)
	if err := (<-moved).Err; err != nil {
		t.Fatal(err)
	}
	return next
}

func (s *Service) succeed(t *testing.T) *Service {
	t.Helper()
	return succeed(t, s, s.config(t))
}

// A proxy goes on in another process in all that it does: machines in every phase, with half a line that was read, and a
// link on which verdicts are awaited. Nobody hears of it, and no number begins anew.
func TestHandOver(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, nil)
	fresh, half := dial(t, s), dial(t, s)
	if _, err := half.conn.Write([]byte(`{"id":1,"method":"mining.subsc`)); err != nil {
		t.Fatal(err)
	}
	subscribed := dial(t, s)
	subscribed.say(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}`)
	subscribed.hear()
	r.say(share4)
	frame := func(number string) string { return "7f020f00" + "00" + "0000" + number + "027c95b2" }
	l.want(frame("01000000"))
	if _, err := r.conn.Write([]byte(share5[:20])); err != nil {
		t.Fatal(err)
	}
	l.say(notify("9", false)[:30])
	testkit.Eventually(t, "half a line of each has been read", func() (read bool) {
		s.onLoop(t, func() {
			lines := 0
			for _, m := range s.miners {
				if len(m.pending) > 0 {
					lines++
				}
			}
			read = lines == 2 && len(s.miners) == 4
			for l := range s.accounts[""].links {
				read = read && len(l.pending) == 30
			}
		})
		return read
	})

	for range 3 {
		s = s.succeed(t)
	}
	testkit.Eventually(t, "ready", func() bool { return s.Ready() == nil })

	l.say(notify("9", false)[30:])
	if got := r.hear(); !strings.Contains(got, `"params":["1"`) {
		t.Errorf("the next job is %s", got)
	}
	l.verdict(0, share.StatusAccept)
	r.want(`{"id":4,"result":true,"error":null}`)
	r.say(share5[20:])
	l.want(frame("02000000"))
	l.verdict(1, share.StatusStale)
	r.want(`{"id":5,"result":null,"error":[21,"Job not found (=stale)",null]}`)
	half.say(`ribe","params":["cgminer/4"]}`)
	if got := half.hear(); !strings.Contains(got, `"00000002",4]`) { // 0 and 1 are others'
		t.Errorf("a machine that comes gets %s", got)
	}
	subscribed.say(`{"id":2,"method":"mining.authorize","params":["a.rig2","x"]}`)
	subscribed.want(`{"id":2,"result":true,"error":null}`, `{"id":null,"method":"mining.set_difficulty","params":[16384]}`)
	if got := subscribed.hear(); !strings.Contains(got, `"params":["0"`) || !strings.HasSuffix(got, "true]}") {
		t.Errorf("its first job is %s", got)
	}
	l.hear() // register
	fresh.login("a.rig3")
	l.hear()
	late := dial(t, s)
	late.login("a.rig4")
	if links, dials := s.counter(t, "links"), s.counter(t, "dials_total", "result", "up"); links != 1 || dials != 0 {
		t.Errorf("%v links, %v of them new", links, dials)
	}
	if miners := s.counter(t, "miners"); miners != 4 {
		t.Errorf("%v miners", miners)
	}
}

// sharePool takes whatever it is sent, and notes it.
type sharePool struct {
	mu     sync.Mutex
	shares map[string]int // by machine and nonce
}

func (p *sharePool) serve(l *fakeLink) {
	verdict := func(index uint16) {
		_, _ = l.conn.Write(agentwire.SubmitResponse{Index: index, Status: share.StatusAccept}.AppendTo(nil)) // the test may be over
	}
	_ = l.conn.SetReadDeadline(time.Time{})
	for index := uint16(0); ; {
		first, err := l.r.Peek(1)
		if err != nil {
			return
		}
		if first[0] != agentwire.Magic {
			if _, err := l.r.ReadString('\n'); err != nil {
				return
			}
			continue
		}
		head, err := l.r.Peek(4)
		if err != nil {
			return
		}
		frame := make([]byte, int(head[2])|int(head[3])<<8)
		if _, err := io.ReadFull(l.r, frame); err != nil {
			return
		}
		if frame[1] != 2 {
			continue
		}
		p.mu.Lock()
		p.shares[hex.EncodeToString(frame[5:15])]++
		p.mu.Unlock()
		verdict(index)
		index++
	}
}

// Shares that come all the time reach the pool once each and are answered once each, whichever process serves, and so do
// machines that come all the time.
func TestHandOverWhileSharesCome(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.Hold = config.Duration(5 * time.Millisecond) }, p)
	l := p.login()
	pool := sharePool{shares: make(map[string]int)}
	go pool.serve(l)
	const machines, rounds = 8, 10
	stop := make(chan struct{})
	var submitting sync.WaitGroup
	addr := s.Addrs()[0].String()
	var mu sync.Mutex
	accepted := make(map[string]int)
	for range machines {
		r := dial(t, s)
		r.say(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}`)
		number := strings.Split(r.hear(), `"`)[13]
		r.say(`{"id":2,"method":"mining.authorize","params":["a.rig","x"]}`)
		for !strings.Contains(r.hear(), "mining.notify") {
		}
		submitting.Go(func() {
			for n := uint32(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := fmt.Fprintf(r.conn, `{"id":%d,"method":"mining.submit","params":["a.b","0","%08x","65000000","00000007"]}`+"\n", n+10, n); err != nil {
					t.Error(err)
					return
				}
				line, err := r.r.ReadString('\n')
				if err != nil || line != fmt.Sprintf(`{"id":%d,"result":true,"error":null}`+"\n", n+10) {
					t.Errorf("heard %q, %v", line, err)
					return
				}
				mu.Lock()
				accepted[number[6:8]+number[4:6]+fmt.Sprintf("%02x%02x%02x%02x", byte(n), byte(n>>8), byte(n>>16), byte(n>>24))+"07000000"]++
				mu.Unlock()
			}
		})
	}
	var dialled int
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
			_, _ = conn.Write([]byte(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}` + "\n"))
			if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
				t.Error(err)
			}
			conn.Close()
			dialled++
		}
	})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(accepted)
	}
	for range rounds {
		had := count()
		s = s.succeed(t)
		testkit.Eventually(t, "shares are accepted", func() bool { return count() > had+2*machines })
	}
	close(stop)
	submitting.Wait()
	s.onLoop(t, func() {
		for _, a := range s.accounts {
			for l := range a.links {
				l.flush()
			}
		}
	})
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if !maps.Equal(accepted, pool.shares) {
		t.Errorf("%d shares were accepted, the pool has had %d", len(accepted), len(pool.shares))
	}
	t.Logf("%d shares, %d dialled", len(accepted), dialled)
}

// Whichever of the two dies, and when: the old process goes on as if nothing had been, and the new one does not begin.
func TestHandOverCutOff(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, func(c *Config) {
		c.Page = "" // its address is that of the other process until that is gone
		c.CheckShares = true
	})
	cfg := s.config(t)
	var shares uint16
	share := func() {
		t.Helper()
		r.say(fmt.Sprintf(`{"id":%d,"method":"mining.submit","params":["a.b","0","%08x","65000000","b2957c02"]}`, shares+10, shares))
		r.want(fmt.Sprintf(`{"id":%d,"result":null,"error":[23,"Low difficulty",null]}`, shares+10)) // it is judged
		shares++
	}
	seen := uint64(0)
	more := func() { s.onLoop(t, func() { s.checker.seen.add(seen); seen++ }) }
	more()
	if messages := upgradetest.CutOff(t, s, func(before *upgrade.Predecessor) (*Service, error) {
		return New(cfg, service.Deps{Log: zerolog.Nop(), Predecessor: before})
	}, func(int) {
		share()
		dial(t, s).login("a.more")
		l.hear()
		more()
	}, func(int, *Service) {
		share()
		l.say(notify("1", false))
		r.hear()
	}, cfg.Listeners[0].name()); messages < 3 {
		t.Errorf("taken over after %d messages", messages)
	}
}

// A process that another one does not take over from goes on as if nothing had been.
func TestNotHandedOver(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, nil)
	for name, other := range map[string]func(*upgrade.Predecessor){
		"gone":      func(*upgrade.Predecessor) {},
		"refuses":   func(b *upgrade.Predecessor) { b.Refuse(context.Canceled) },
		"version 0": func(b *upgrade.Predecessor) { _ = b.Ready([]byte{0}) },
		"version 9": func(b *upgrade.Predecessor) { _ = b.Ready([]byte{9}) },
		"dies in the middle": func(b *upgrade.Predecessor) {
			_ = b.Ready([]byte{1})
			m, _ := b.Receive()
			m.Close()
		},
	} {
		before, moved := upgradetest.Offer(t, s)
		other(before)
		_ = before.Close()
		if err := (<-moved).Err; err == nil {
			t.Fatalf("%s: taken over", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		r.say(share4)
		l.want("7f020f00" + "00" + "0000" + "01000000" + "027c95b2")
	}
	for index := range uint16(5) {
		l.verdict(index, share.StatusAccept)
		r.want(`{"id":4,"result":true,"error":null}`)
	}
}

// What does not fit is refused by the new process, with a reason.
func TestHandOverRefused(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, nil)
	cfg := s.config(t)
	cfg.MultiUser = true
	before, moved := upgradetest.Offer(t, s)
	other, err := New(cfg, service.Deps{Log: zerolog.Nop(), Predecessor: before})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "multi_user") {
		t.Errorf("%v", err)
	}
	if err := (<-moved).Err; err == nil || !strings.Contains(err.Error(), "multi_user is false there, true here") {
		t.Errorf("%v", err)
	}
	cfg = s.config(t)
	cfg.Listeners[0].Listen, cfg.Page = "127.0.0.1:0", ""
	newer, err := New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	w := upgrade.NewWriter(0, moment, nil)
	(&settings{stateVersion + 2, stateVersion + 1, false}).code(w)
	if _, err := newer.agree(w.Bytes()); err == nil || !strings.Contains(err.Error(), "versions") {
		t.Errorf("a state that is newer: %v", err)
	}
	if err := newer.Close(); err != nil {
		t.Error(err)
	}
	r.say(share4)
	l.want("7f020f00" + "00" + "0000" + "01000000" + "027c95b2")
}

// Shares that are held for a link that broke are delivered by the next process, which asks for the link's session.
func TestHandOverOfHeldShares(t *testing.T) {
	t.Parallel()
	p, l, s, r := sessionFarm(t, nil)
	r.say(share4)
	l.want(frame4)
	l.breaks(s)
	r.say(share5)
	testkit.Eventually(t, "both shares are held", func() (both bool) {
		s.onLoop(t, func() { both = s.held == 2 })
		return both
	})
	p.accept() // the link that the old process begins
	s = s.succeed(t)
	next, subscribe := p.sessionLogin("01a2b3c4", "7")
	if !strings.HasSuffix(subscribe, `"01a2b3c4"]}`) {
		t.Errorf("it does not ask for the session: %s", subscribe)
	}
	next.hear() // register
	next.want(frame4, frame5)
	next.verdict(0, share.StatusDuplicate)
	next.verdict(1, share.StatusAccept)
	r.wantAnswers(`{"id":4,"result":true,"error":null}`, `{"id":5,"result":true,"error":null}`)
	if got := s.counter(t, "shares_late_total"); got != 2 {
		t.Errorf("%v late shares", got)
	}
}

// The configuration that the new process has is used as after a reload: machines go over when the new link is up.
func TestHandOverToOtherPool(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, nil)
	other := newFakePool(t)
	cfg := s.config(t)
	cfg.Pools = []Pool{{Addr: other.addr(), Account: "farm", NoExtensions: true}}
	succeed(t, s, cfg)
	r.say(share4)
	l.want("7f020f00" + "00" + "0000" + "01000000" + "027c95b2")
	next := other.login()
	next.hear() // register
	for !strings.Contains(r.hear(), "mining.notify") {
	}
	l.verdict(0, share.StatusAccept)
	r.want(`{"id":4,"result":true,"error":null}`)
	r.say(`{"id":5,"method":"mining.submit","params":["a.b","1","00000001","65000000","b2957c02"]}`)
	next.want("7f020f00" + "00" + "0000" + "01000000" + "027c95b2")
}

// A pool of plain Stratum V1 goes on being one.
func TestHandOverOfPlainLink(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.Pools[0].Protocol = ProtocolStratum }, p)
	l := p.accept()
	l.hear()
	l.hear()
	l.hear()
	l.say(loggedInAs + notify("job7", true))
	r := dial(t, s)
	r.login("a.rig1")
	l.want(`{"id":"worker","method":"mining.authorize","params":["farm.rig1",""]}`)
	l.say(`{"id":"worker","result":true,"error":null}` + "\n")
	testkit.Eventually(t, "the worker is known", func() (named bool) {
		s.onLoop(t, func() {
			for l := range s.accounts[""].links {
				named = l.named
			}
		})
		return named
	})
	r.say(share4)
	l.hear()
	s = s.succeed(t)
	l.say(`{"id":0,"result":true,"error":null}` + "\n")
	r.want(`{"id":4,"result":true,"error":null}`)
	r.say(share5)
	l.want(`{"id":1,"method":"mining.submit","params":["farm.rig1","job7","0000000000000002","65000000","b2957c02"]}`)
	dial(t, s).login("b.rig1") // is known there
	l.say(`{"id":1,"result":true,"error":null}` + "\n")
	r.want(`{"id":5,"result":true,"error":null}`)
}

// A machine that speaks TLS is served by the next process, and the one after that; the first relays.
func TestHandOverOfTLS(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	roots := testkit.Certificate(t, cert, key)
	s := proxyOf(t, func(c *Config) { c.Listeners[0].TLSCertFile, c.Listeners[0].TLSKeyFile = cert, key }, p)
	l := p.login()
	secure := func() *rig {
		conn, err := tls.Dial("tcp", s.Addrs()[0].String(), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(testkit.Patience))
		return &rig{t, conn, bufio.NewReader(conn)}
	}
	r := secure()
	r.login("a.rig1")
	l.hear() // register
	for range 2 {
		s = s.succeed(t)
	}
	r.say(share4)
	l.want("7f020f00" + "00" + "0000" + "01000000" + "027c95b2")
	l.verdict(0, share.StatusAccept)
	r.want(`{"id":4,"result":true,"error":null}`)
	secure().login("a.rig2")
	l.hear() // register
	r.conn.Close()
	l.want("7f0406000000")
}

// Another farm proxy keeps its line to the pool, or gets one if it had none yet.
func TestHandOverOfRelay(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, nil, p)
	p.login()
	agent := dial(t, s)
	first := string(probe[:len(probe)-1])
	agent.say(first)
	line := p.accept()
	line.want(first)
	line.say(capable)
	line.want(first)
	line.say(capable)
	agent.want(strings.TrimSuffix(capable, "\n"))
	early := dial(t, s)
	early.say(first)
	p.accept().want(first) // not answered: no pool has been found yet

	s.succeed(t)
	agent.say("more")
	line.want("more")
	line.say("else\n")
	agent.want("else")
	again := p.accept()
	again.want(first)
	again.say(capable)
	again.want(first)
	again.say(capable)
	early.want(strings.TrimSuffix(capable, "\n"))
}
