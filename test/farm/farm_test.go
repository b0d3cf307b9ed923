// Package farm tries the farm proxy between miners and a pool, all in one process.
package farm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/agentproxy"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/miner"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
	"btcpool/sserver"
)

// pool is an sserver with a broker of its own, whose shares a processor can find.
type pool struct {
	*sserver.Service
	tb   testing.TB
	cfg  sserver.Config
	jobs *job.IDs
	stop func()
	bus  *bus.Client

	metrics *prometheus.Registry
}

func startPool(tb testing.TB, change func(*sserver.Config)) *pool {
	tb.Helper()
	cfg := sserver.DefaultConfig()
	cfg.Kafka = testkit.Broker(tb)
	cfg.Listen = testkit.FreeAddr(tb)
	cfg.DataDir = tb.TempDir()
	cfg.Limits.Exempt = nil
	cfg.DefaultDifficulty = 1.0 / (1 << 20) // 4096 hashes
	cfg.MinDifficulty = 1.0 / (1 << 30)
	cfg.MaxDifficulty = cfg.DefaultDifficulty // whatever the machine does besides, it finds shares
	cfg.Users.Kind = users.Static
	cfg.Users.Static = map[string]int32{"alice": 7, "bob": 8}
	if change != nil {
		change(&cfg)
	}
	topics := cfg.Kafka.Topics
	client := testkit.Bus(tb, cfg.Kafka, topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents)
	p := &pool{tb: tb, cfg: cfg, jobs: job.NewIDs(1), bus: client}
	p.start()
	return p
}

// start starts the pool, again where it was before if it ran already.
func (p *pool) start() {
	p.tb.Helper()
	var err error
	p.metrics = prometheus.NewRegistry()
	p.Service, err = sserver.New(p.cfg, service.Deps{Log: logger(p.tb, "pool"), Metrics: p.metrics})
	if err != nil {
		p.tb.Fatal(err)
	}
	p.cfg.Listen = p.Addr().String()
	p.stop = testkit.Run(p.tb, p.Run)
}

// send has miners mine a job.
func (p *pool) send(j *job.StratumJob) {
	p.tb.Helper()
	if err := p.bus.Write(p.tb.Context(), p.cfg.Kafka.Topics.Job, bus.Message{Value: j.AppendTo(nil)}); err != nil {
		p.tb.Fatal(err)
	}
}

func logger(tb testing.TB, who string) zerolog.Logger {
	return zerolog.New(zerolog.NewTestWriter(tb)).With().Str("who", who).Logger().Level(zerolog.WarnLevel)
}

func (p *pool) newJob(prev byte, height int32) *job.StratumJob {
	return testkit.Job(p.jobs, prev, height)
}

// proxy is an agentproxy.
type proxy struct {
	*agentproxy.Service
	tb      testing.TB
	cfg     agentproxy.Config
	metrics *prometheus.Registry
	stop    func()
}

func startProxy(tb testing.TB, change func(*agentproxy.Config), pools ...string) *proxy {
	tb.Helper()
	cfg := agentproxy.DefaultConfig()
	cfg.Listeners = []agentproxy.Listener{{Listen: "127.0.0.1:0"}}
	cfg.Page = "127.0.0.1:0"
	cfg.Patience = config.Duration(testkit.Patience)
	for _, addr := range pools {
		cfg.Pools = append(cfg.Pools, agentproxy.Pool{Addr: addr, Account: "alice"})
	}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		tb.Fatal(err)
	}
	p := &proxy{tb: tb, cfg: cfg, metrics: prometheus.NewRegistry()}
	var err error
	p.Service, err = agentproxy.New(cfg, service.Deps{Log: logger(tb, "proxy"), Metrics: p.metrics})
	if err != nil {
		tb.Fatal(err)
	}
	p.stop = testkit.Run(tb, p.Run)
	return p
}

// Addr returns where miners connect.
func (p *proxy) Addr() string { return p.Addrs()[0].String() }

func (p *proxy) metric(name string, labels ...string) float64 {
	p.tb.Helper()
	return testkit.Metric(p.tb, p.metrics, "btcpool_agentproxy_"+name, labels...)
}

// rigs are miners behind a proxy.
type rigs struct {
	*miner.Miner
	ledger
	accepted, refused, unanswered atomic.Int64
	stop                          func()
}

// mine has n miners mine at addr, each with a rate of shares a second.
func mine(tb testing.TB, addr string, n int, user string, rate float64) *rigs {
	tb.Helper()
	r := new(rigs)
	var err error
	r.Miner, err = miner.New(miner.Config{
		URL:         "stratum+tcp://" + addr,
		User:        user,
		Threads:     1,
		VersionMask: 0x1fffe000,
		Conns:       n,
		Rate:        rate,
		Reconnect:   true,
		OnShare: func(res miner.Result) {
			r.note(res)
			switch res.Outcome {
			case miner.Accepted:
				r.accepted.Add(1)
			case miner.Rejected:
				r.refused.Add(1)
			default:
				r.unanswered.Add(1)
			}
		},
	}, logger(tb, "miners"))
	if err != nil {
		tb.Fatal(err)
	}
	r.stop = testkit.Run(tb, r.Run)
	return r
}

// goOn waits until shares are accepted again.
func (r *rigs) goOn(tb testing.TB, n int64) {
	tb.Helper()
	want := r.accepted.Load() + n
	testkit.Until(tb, testkit.Patience, "shares are accepted", func(context.Context) error {
		if r.accepted.Load() < want {
			return r.lags()
		}
		return nil
	})
}

// lags says what miners do that have too few shares: whether they find none, or the proxy takes none.
func (r *rigs) lags() error {
	rep := r.Report()
	return fmt.Errorf("%d shares accepted, %d refused, %d not answered, %d not found in time at difficulty %g and %s",
		r.accepted.Load(), r.refused.Load(), r.unanswered.Load(), rep.Missed, rep.Difficulty, miner.FormatHashrate(rep.HashPower))
}

// TestMine has miners mine by each of the protocols that a pool may speak.
func TestMine(t *testing.T) {
	t.Parallel()
	for _, protocol := range []agentproxy.Protocol{agentproxy.ProtocolAuto, agentproxy.ProtocolStratum} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			p := startPool(t, func(c *sserver.Config) {
				c.ShareInterval, c.MaxDifficulty = config.Duration(time.Second), 8*c.DefaultDifficulty
			})
			p.send(p.newJob(1, 100))
			x := startProxy(t, func(c *agentproxy.Config) { c.Pools[0].Protocol = protocol }, p.Addr().String())
			r := mine(t, x.Addr(), 20, "any.rig%d", 5)
			r.goOn(t, 40)
			p.send(p.newJob(2, 101))
			r.goOn(t, 5)
			// A share may be under way when the chain grows; nothing else may be refused.
			if refused, late := r.refused.Load(), x.metric("verdicts_total", "status", "21")+x.metric("verdicts_total", "status", "37"); float64(refused) > late {
				t.Errorf("%d shares refused, %v of them late", refused, late)
			}
			if got := x.metric("verdicts_total", "status", "0"); got < 45 {
				t.Errorf("the pool has accepted %v", got)
			}
		})
	}
}

// TestOwnDifficulties has small machines mine at a pool that is too hard for them: what the proxy finds good and sends,
// and nothing else, the pool does, too.
func TestOwnDifficulties(t *testing.T) {
	t.Parallel()
	for _, protocol := range []agentproxy.Protocol{agentproxy.ProtocolAuto, agentproxy.ProtocolStratum} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			const difficulty = 1.0 / (1 << 18)
			p := startPool(t, func(c *sserver.Config) {
				c.DefaultDifficulty, c.MinDifficulty, c.MaxDifficulty = difficulty, difficulty, difficulty
			})
			p.send(p.newJob(1, 100))
			x := startProxy(t, func(c *agentproxy.Config) {
				c.Pools[0].Protocol = protocol
				c.CheckShares = true
				c.Vardiff.ShareInterval, c.Vardiff.MinDifficulty = config.Duration(time.Second), difficulty/16
			}, p.Addr().String())
			r := mine(t, x.Addr(), 40, "any.rig%d", .05)
			testkit.Until(t, 4*testkit.Patience, "some shares meet the pool's difficulty, some their machine's only", func(context.Context) error {
				if x.metric("checked_total", "status", "0") > 10 && x.metric("verdicts_total", "status", "0") > 10 {
					return nil
				}
				return errors.New("not enough of both")
			})
			r.stop()
			if refused := r.refused.Load(); refused > 0 {
				t.Errorf("%d shares refused", refused)
			}
			testkit.Eventually(t, "the pool has counted as many good shares as were sent", func() bool {
				return x.metric("verdicts_total", "status", "0") == testkit.Metric(t, p.metrics, "btcpool_sserver_shares_total", "code", "0")
			})
			if low := testkit.Metric(t, p.metrics, "btcpool_sserver_shares_total", "code", "23"); low > 0 {
				t.Errorf("the pool has had %v shares of low difficulty", low)
			}
		})
	}
}

// TestLinesCut has everything happen to the lines between proxy and pool that happens to them in the world: no miner
// may be disconnected, and all must mine again.
func TestLinesCut(t *testing.T) {
	t.Parallel()
	p := startPool(t, nil)
	p.send(p.newJob(1, 100))
	line := newRelay(t, p.Addr().String())
	x := startProxy(t, func(c *agentproxy.Config) {
		c.Links = 3
		c.ReadTimeout = config.Duration(3 * time.Second)
	}, line.addr())
	const miners = 30
	r := mine(t, x.Addr(), miners, "any.rig%d", 3)
	r.goOn(t, 2*miners)
	all := func(what string) {
		t.Helper()
		testkit.Eventually(t, what+": all links are up", func() bool { return x.metric("links") == 3 })
		testkit.Eventually(t, what+": nobody waits", func() bool { return x.metric("miners_waiting") == 0 })
		r.goOn(t, 2*miners)
		if got := x.metric("miners"); got != miners {
			t.Fatalf("%s: %v miners are left", what, got)
		}
	}
	all("start")
	line.cut(1)
	all("a link cut")
	line.cut(-1)
	all("all links cut")
	line.refuse(5)
	line.cut(2)
	all("links refused")
	line.silence()
	testkit.Eventually(t, "nothing is heard from the pool", func() bool { return x.metric("miners_waiting") == miners })
	line.speak()
	all("silence")
	p.stop()
	p.start()
	p.send(p.newJob(2, 101))
	all("pool started again")
	if got := x.metric("disconnects_total"); got != 0 {
		t.Errorf("%v miners were disconnected", got)
	}
}

// TestLinesCutWithShares has the only line cut, now and then for a while, while shares are on their way and found: none
// may be lost or counted twice, and no miner be told what is not so.
func TestLinesCutWithShares(t *testing.T) {
	t.Parallel()
	for _, verdicts := range []bool{true, false} {
		t.Run(map[bool]string{true: "told by the pool", false: "told at once"}[verdicts], func(t *testing.T) {
			t.Parallel()
			p := startPool(t, nil)
			p.send(p.newJob(1, 100))
			line := newRelay(t, p.Addr().String())
			x := startProxy(t, func(c *agentproxy.Config) { c.PoolVerdicts = verdicts }, line.addr())
			const miners = 20
			r := mine(t, x.Addr(), miners, "any.rig%d", 3)
			r.goOn(t, miners)
			for i := range 3 {
				line.refuse(-1)
				line.cut(-1)
				held := x.metric("shares_held_total") + 5
				testkit.Eventually(t, "shares are found without a link", func() bool { return x.metric("shares_held_total") >= held })
				if i == 1 {
					p.send(p.newJob(1, 100)) // nobody hears of it before the link is back
				}
				line.refuse(0)
				r.goOn(t, 2*miners)
			}
			r.stop()
			if refused, unanswered := r.refused.Load(), r.unanswered.Load(); refused+unanswered > 0 {
				t.Errorf("%d shares refused, %d not answered", refused, unanswered)
			}
			said := float64(r.accepted.Load())
			testkit.Eventually(t, "all verdicts have come", func() bool { return x.metric("verdicts_total", "status", "0") == said })
			if counted := testkit.Metric(t, p.metrics, "btcpool_sserver_shares_total", "code", "0"); counted != said {
				t.Errorf("miners were told of %v good shares, the pool has counted %v", said, counted)
			}
			if late := x.metric("shares_late_total"); late < 15 {
				t.Errorf("%v shares came late", late)
			}
		})
	}
}

// TestLineHangs has the only line go dead without an end that either side could see, while shares are on it: the pool
// still holds the session, and lets the next link have it.
func TestLineHangs(t *testing.T) {
	t.Parallel()
	p := startPool(t, nil)
	p.send(p.newJob(1, 100))
	line := newRelay(t, p.Addr().String())
	x := startProxy(t, func(c *agentproxy.Config) { c.ReadTimeout = config.Duration(8 * time.Second) }, line.addr())
	const miners = 10
	r := mine(t, x.Addr(), miners, "any.rig%d", 3)
	r.everyone(t, "start", miners)
	for range 2 {
		late := x.metric("shares_late_total")
		line.hang()
		testkit.Eventually(t, "shares come late", func() bool { return x.metric("shares_late_total") > late })
		r.everyone(t, "after the line hung", miners)
	}
	r.stop()
	if got := testkit.Metric(t, p.metrics, "btcpool_sserver_disconnects_total", "reason", "replaced"); got != 2 {
		t.Errorf("%v sessions replaced, want 2", got)
	}
	if refused, unanswered := r.refused.Load(), r.unanswered.Load(); refused+unanswered > 0 {
		t.Errorf("%d shares refused, %d not answered", refused, unanswered)
	}
	p.stop()
	p.verify(r)
}

// TestReturn has miners mine elsewhere while the first pool is away, and come back, again and again.
func TestReturn(t *testing.T) {
	t.Parallel()
	first, second := startPool(t, nil), startPool(t, nil)
	first.send(first.newJob(1, 100))
	second.send(second.newJob(1, 100))
	line := newRelay(t, first.Addr().String())
	x := startProxy(t, func(c *agentproxy.Config) { c.ReturnInterval = config.Duration(time.Second) }, line.addr(), second.Addr().String())
	r := mine(t, x.Addr(), 10, "any.rig%d", 5)
	r.goOn(t, 20)
	for range 3 {
		line.refuse(-1)
		line.cut(-1)
		testkit.Eventually(t, "the second pool is used", func() bool {
			return x.metric("links", "pool", second.Addr().String()) == 1
		})
		r.goOn(t, 20)
		line.refuse(0)
		testkit.Eventually(t, "the first pool is used again, and only that", func() bool {
			return x.metric("links", "pool", line.addr()) == 1 && x.metric("links", "pool", second.Addr().String()) == 0
		})
		r.goOn(t, 20)
	}
	if got := x.metric("disconnects_total"); got != 0 {
		t.Errorf("%v miners were disconnected", got)
	}
}

// TestAccounts has miners mine for the accounts that they name.
func TestAccounts(t *testing.T) {
	t.Parallel()
	p := startPool(t, nil)
	p.send(p.newJob(1, 100))
	x := startProxy(t, func(c *agentproxy.Config) { c.MultiUser = true }, p.Addr().String())
	a, b := mine(t, x.Addr(), 5, "alice.rig%d", 5), mine(t, x.Addr(), 5, "bob.rig%d", 5)
	a.goOn(t, 10)
	b.goOn(t, 10)
	if got := x.metric("links"); got != 2 {
		t.Errorf("%v links for 2 accounts", got)
	}
	if n := a.Report().Reconnects + b.Report().Reconnects; n > 0 {
		t.Errorf("%d miners have lost their connection", n)
	}
}
