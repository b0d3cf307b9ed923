//go:build linux && !streams

package farm

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/agentproxy"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade/upgradetest"
)

// succeed has another proxy go on with what p serves, and returns it.
func (p *proxy) succeed() *proxy {
	p.tb.Helper()
	before, moved := upgradetest.Offer(p.tb, p)
	next := &proxy{tb: p.tb, cfg: p.cfg, metrics: prometheus.NewRegistry()}
	var err error
	next.Service, err = agentproxy.New(p.cfg, service.Deps{Log: logger(p.tb, "proxy"), Metrics: next.metrics, Predecessor: before})
	if err != nil {
		p.tb.Fatal(err)
	}
	next.stop = testkit.Run(p.tb, next.Run)
	if r := <-moved; r.Err != nil {
		p.tb.Fatal(r.Err)
	} else {
		p.tb.Logf("%d sessions, pause %s", r.Sessions, r.Pause)
	}
	return next
}

// TestHandOver has ten proxies follow each other while shares and blocks are found: none may be lost or counted twice,
// none refused for it, nobody be disconnected or get a job twice, and the pool see the same link.
func TestHandOver(t *testing.T) {
	t.Parallel()
	for _, protocol := range []agentproxy.Protocol{agentproxy.ProtocolAuto, agentproxy.ProtocolStratum} {
		t.Run(string(protocol), func(t *testing.T) {
			t.Parallel()
			p := startPool(t, nil)
			p.send(p.newJob(1, 100))
			x := startProxy(t, func(c *agentproxy.Config) {
				c.Pools[0].Protocol = protocol
				c.CheckShares = true
			}, p.Addr().String())
			const miners, rounds = 30, 10
			r := mine(t, x.Addr(), miners, "any.rig%d", 3)
			r.everyone(t, "start", miners)
			for i := range rounds {
				x = x.succeed()
				r.goOn(t, miners/2)
				if links, dials := x.metric("links"), x.metric("dials_total", "result", "up"); links != 1 || dials != 0 {
					t.Errorf("%v links, %v of them new", links, dials)
				}
				if i == rounds/2 {
					p.send(p.newJob(2, 101))
				}
			}
			r.everyone(t, "end", miners)
			if got := x.metric("miners"); got != miners {
				t.Errorf("%v miners", got)
			}
			r.stop()
			if rep := r.Report(); rep.Authorized != miners || rep.Reconnects != 0 {
				t.Errorf("%d logins, %d reconnects", rep.Authorized, rep.Reconnects)
			}
			if n := r.unanswered.Load(); n > 0 {
				t.Errorf("%d shares were not answered", n)
			}
			if said, counted := float64(r.accepted.Load()), testkit.Metric(t, p.metrics, "btcpool_sserver_shares_total", "code", "0"); counted != said {
				t.Errorf("miners were told of %v good shares, the pool has counted %v", said, counted)
			}
			x.stop()
			p.stop()
			if protocol == agentproxy.ProtocolAuto { // others are told of the first shares by the account's name
				p.verify(r)
			}
		})
	}
}
