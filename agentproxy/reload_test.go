package agentproxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

var _ service.Reloader[Config] = (*Service)(nil)

// reload changes the configuration of a proxy that runs.
func (s *Service) reload(t *testing.T, change func(*Config)) error {
	t.Helper()
	var cfg Config
	s.onLoop(t, func() { cfg = s.cfg })
	cfg.Pools = slices.Clone(cfg.Pools)
	cfg.Listeners = slices.Clone(cfg.Listeners)
	change(&cfg)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return s.Reload(t.Context(), cfg)
}

func (s *Service) mustReload(t *testing.T, change func(*Config)) {
	t.Helper()
	if err := s.reload(t, change); err != nil {
		t.Fatal(err)
	}
}

// awaitJob waits for a job with that in it.
func (r *rig) awaitJob(part string) {
	r.t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(testkit.Patience))
	for {
		if line := r.hear(); strings.Contains(line, "mining.notify") && strings.Contains(line, part) {
			return
		}
	}
}

// guestsHaveBeen has all guests stay no longer.
func (s *Service) guestsHaveBeen(t testing.TB) {
	t.Helper()
	s.onLoop(t, func() {
		for _, a := range s.accounts {
			for l := range a.links {
				for number, g := range l.guests {
					g.until = time.Time{}
					l.guests[number] = g
				}
			}
		}
	})
}

// left waits until the proxy has closed the link, as it does some time after the last machine has left it.
func (l *fakeLink) left(s *Service) {
	l.t.Helper()
	testkit.Eventually(l.t, "the link has ended", func() bool {
		s.guestsHaveBeen(l.t)
		_ = l.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := io.Copy(io.Discard, l.r)
		return !errors.Is(err, os.ErrDeadlineExceeded)
	})
}

// A pool that is taken out of the configuration, or is another one than it was, is left when its successor is up. No
// machine is lost over that, and none is without work.
func TestReloadPools(t *testing.T) {
	t.Parallel()
	p, l, s, r := farm(t, nil)
	other := newFakePool(t)
	s.mustReload(t, func(c *Config) { c.Pools = []Pool{{Addr: other.addr(), Account: "new", NoExtensions: true}} })
	next := other.accept()
	next.hear()
	// Until the new one is up the old one works.
	l.say(notify("7", true))
	r.awaitJob("")
	r.say(`{"id":4,"method":"mining.submit","params":["a.b","1","00000001","65000000","b2957c02"]}`)
	l.hear()
	next.say(capable)
	for range 4 {
		if line := next.hear(); strings.Contains(line, "authorize") && !strings.Contains(line, `"new"`) {
			t.Errorf("logged in as %s", line)
		}
	}
	next.say(strings.ReplaceAll(loggedInAs, "01a2b3c4", "0f0f0f0f") + notify("0", true))
	r.awaitJob("0f0f0f0f")
	// A verdict that is still awaited comes.
	l.say(string(agentwire.SubmitResponse{Index: 0, Status: share.StatusAccept}.AppendTo(nil)))
	r.want(`{"id":4,"result":true,"error":null}`)
	l.left(s)
	s.onLoop(t, func() {
		if len(s.miners) != 1 || s.miners[0].link.addr() != other.addr() {
			t.Error("the machine is elsewhere")
		}
	})

	// Back to the first, then as another account there: a link each.
	s.mustReload(t, func(c *Config) { c.Pools[0].Addr, c.Pools[0].Account = p.addr(), "farm" })
	l = p.login()
	r.awaitJob("01a2b3c4")
	s.mustReload(t, func(c *Config) { c.Pools[0].Account = "renamed" })
	l.hear() // register
	again := p.login()
	r.awaitJob("01a2b3c4")
	l.left(s)
	again.hear() // register
	// A second pool behind the first changes nothing, its becoming the first does.
	s.mustReload(t, func(c *Config) {
		c.Pools = append(c.Pools, Pool{Addr: other.addr(), Account: "new", NoExtensions: true})
	})
	s.mustReload(t, func(c *Config) { slices.Reverse(c.Pools) })
	other.login()
	r.awaitJob("01a2b3c4")
	again.left(s)
	if got := testutil.ToFloat64(s.metrics.linksLost.WithLabelValues(p.addr())); got > 0 {
		t.Errorf("%v links lost", got)
	}
}

// A pool with a weight that is taken out of the configuration is left when another is up, and not before.
func TestReloadWeights(t *testing.T) {
	t.Parallel()
	p, silent := newFakePool(t), newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.Pools[0].Weight, c.Pools[1].Weight = 1, 1 }, p, silent)
	l := p.login()
	r := dial(t, s)
	r.login("a.rig1")
	s.mustReload(t, func(c *Config) { c.Pools = c.Pools[1:] })
	s.onLoop(t, s.tick)
	l.say(notify("7", true))
	r.awaitJob("")
	silent.login()
	r.awaitJob("")
	l.left(s)
	s.onLoop(t, func() {
		if m := s.miners[0]; m.goal != s.accounts[""].goals[0] || len(s.accounts[""].goals) != 1 || m.goal.miners != 1 {
			t.Errorf("the machine is of goal %+v", m.goal)
		}
	})
}

// Verdicts are agreed on when a link is made, so another answer needs another link. The number of links follows, too.
func TestReloadLinks(t *testing.T) {
	t.Parallel()
	p, l, s, r := farm(t, func(c *Config) { c.PoolVerdicts = false })
	s.mustReload(t, func(c *Config) { c.PoolVerdicts = true })
	with := p.accept()
	with.hear()
	with.say(capable)
	if line := with.hear(); !strings.Contains(line, "subres") {
		t.Errorf("the pool is not asked for verdicts: %s", line)
	}
	for range 3 {
		with.hear()
	}
	with.say(loggedInAs + notify("0", true))
	r.awaitJob("")
	l.left(s)
	s.mustReload(t, func(c *Config) { c.Links = 3 })
	p.login()
	p.login()
	up := func() (n int) {
		s.onLoop(t, func() {
			for link := range s.accounts[""].links {
				if link.up() {
					n++
				}
			}
		})
		return n
	}
	testkit.Eventually(t, "three links", func() bool { return up() == 3 })
	s.mustReload(t, func(c *Config) { c.Links = 1 })
	testkit.Eventually(t, "one link", func() bool { return up() == 1 })
	r.say(`{"id":4,"method":"mining.ping","params":[]}`)
	for !strings.Contains(r.hear(), "pong") {
	}
}

// Machines of a listener that is gone stay. A proxy that cannot listen where it is to changes nothing.
func TestReloadListeners(t *testing.T) {
	t.Parallel()
	_, _, s, r := farm(t, nil)
	old := s.Addrs()[0].String()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = s.reload(t, func(c *Config) {
		c.Links = 9
		c.Listeners = []Listener{{Listen: "127.0.0.1:0", TLSCertFile: "x", TLSKeyFile: "x"}}
	})
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a certificate: %v", err)
	}
	err = s.reload(t, func(c *Config) {
		c.Links = 9
		c.Listeners = []Listener{{Listen: "127.0.0.1:0"}, {Listen: "localhost:0"}, {Listen: taken.Addr().String()}}
	})
	if err == nil || !strings.Contains(err.Error(), "listen = \""+taken.Addr().String()) {
		t.Errorf("where another listens: %v", err)
	}
	s.onLoop(t, func() {
		if s.cfg.Links != 1 {
			t.Error("a part of it is used")
		}
	})
	if len(s.Addrs()) != 1 || s.Addrs()[0].String() != old {
		t.Errorf("listening at %v, not at %s", s.Addrs(), old)
	}
	dial(t, s).login("a.rig2") // where it was closed and opened again

	s.mustReload(t, func(c *Config) {
		c.Listeners = []Listener{{Listen: "localhost:0"}}
		c.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	if conn, err := net.Dial("tcp", old); err == nil {
		t.Error("the old port is still open")
		conn.Close()
	}
	stranger := dial(t, s)
	if line, err := stranger.r.ReadString('\n'); err == nil {
		t.Errorf("not allowed, but hears %s", line)
	}
	r.say(`{"id":4,"method":"mining.ping","params":[]}`)
	for !strings.Contains(r.hear(), "pong") {
	}
	s.mustReload(t, func(c *Config) { c.Allow, c.MaxConnections, c.Workers.Fixed = nil, 3, "all" })
	dial(t, s).login("a.rig3")
	s.onLoop(t, func() {
		if name := s.miners[2].worker; name != "all" {
			t.Errorf("a worker's name: %s", name)
		}
	})
	if line, err := dial(t, s).r.ReadString('\n'); err == nil {
		t.Errorf("one too many, but hears %s", line)
	}
}

// Machines are split by weights; those of a pool that is away go to the one that has no weight and return, and one that
// connects again goes where it was.
func TestWeights(t *testing.T) {
	t.Parallel()
	pools := []*fakePool{newFakePool(t), newFakePool(t), newFakePool(t)}
	s := proxyOf(t, func(c *Config) {
		c.Pools[0].Account, c.Pools[0].Weight = "A", 70
		c.Pools[1].Account, c.Pools[1].Weight = "B", 30
		c.ReturnInterval = config.Duration(time.Second)
	}, pools...)
	first := pools[0].login()
	pools[1].login()
	where := func() (n [3]int) {
		s.onLoop(t, func() {
			for _, m := range s.miners {
				for i, p := range pools {
					if m.link != nil && m.link.addr() == p.addr() {
						n[i]++
					}
				}
			}
		})
		return n
	}
	become := func(want [3]int) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprint(want), func() bool { return where() == want })
	}
	var rigs []*rig
	login := func(name string) {
		r := dial(t, s)
		r.login("a." + name)
		rigs = append(rigs, r)
	}
	for i := range 10 {
		login(fmt.Sprintf("rig%d", i))
	}
	become([3]int{7, 3, 0})
	accounts := func() map[string]string {
		of := make(map[string]string)
		s.onLoop(t, func() {
			for _, m := range s.miners {
				of[m.worker] = m.link.accountName()
			}
		})
		return of
	}
	before := accounts()
	for _, r := range rigs {
		r.conn.Close()
	}
	testkit.Eventually(t, "all are away", func() bool { return len(accounts()) == 0 })
	for _, account := range []string{"B", "A"} { // the other way round than new ones would be taken
		for name, of := range before {
			if of == account {
				login(name)
			}
		}
	}
	if diff := cmp.Diff(before, accounts()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}

	first.conn.Close()
	pools[0].ln.Close()
	pools[2].login()
	become([3]int{0, 3, 7})
	ln, err := net.Listen("tcp", pools[0].addr())
	if err != nil {
		t.Fatal(err)
	}
	pools[0].ln = ln
	t.Cleanup(func() { ln.Close() })
	pools[0].login()
	become([3]int{7, 3, 0})

	s.mustReload(t, func(c *Config) { c.Pools[0].Weight, c.Pools[1].Weight = 50, 50 })
	become([3]int{5, 5, 0})
	if got := testutil.ToFloat64(s.metrics.moved); got != 2 {
		t.Errorf("%v machines moved, want 2", got)
	}
	s.mustReload(t, func(c *Config) { c.Pools[0].Weight = 0 }) // and it is now behind the other
	become([3]int{0, 10, 0})
	snap, err := s.look(t.Context())
	if err != nil || len(snap.summary.Goals) != 1 || snap.summary.Goals[0].Pool != pools[1].addr() {
		t.Errorf("goals %+v, %v", snap.summary.Goals, err)
	}
}

// stuck is the link of a machine whose socket is full now and then.
type stuck struct {
	deaf
	full, waits bool
}

func (s *stuck) Want(_, write bool) { s.waits = write }

func (s *stuck) Write(b []byte) (int, error) {
	if s.full {
		return 0, nil
	}
	return len(b), nil
}

// A machine that cannot take its new job at once, when its link ends, is waited for: until write_timeout, also at the end.
func TestMovedWhileItReadsSlowly(t *testing.T) {
	t.Parallel()
	p := newFakePool(t)
	s := proxyOf(t, func(c *Config) { c.Links, c.WriteTimeout = 2, config.Duration(time.Second) }, p)
	p.login()
	p.login()
	machine := &stuck{}
	testkit.Eventually(t, "both links are up", func() (up bool) {
		s.onLoop(t, func() { up = len(s.accounts[""].links) == 2 })
		return up
	})
	s.onLoop(t, func() {
		s.add(machine, netip.MustParseAddr("10.0.0.1"))
		m := s.miners[0]
		m.receive([]byte(`{"id":1,"method":"mining.subscribe","params":["cgminer/4"]}` + "\n" +
			`{"id":2,"method":"mining.authorize","params":["a.rig1","x"]}` + "\n"))
		m.settle()
		machine.full = true
		m.link.close(errBroken)
		if m.link == nil || m.outbox.Len() == 0 {
			t.Error("it has not been moved")
		}
	})
	if !machine.waits {
		t.Error("nobody waits until it can take more")
	}
}
