package agentproxy

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// quietFarm is a proxy whose clock and log are the test's. It does not run.
type quietFarm struct {
	*Service
	t   *testing.T
	log bytes.Buffer
	reg *prometheus.Registry
}

func newQuietFarm(t *testing.T) *quietFarm {
	f := &quietFarm{t: t, reg: prometheus.NewRegistry()}
	f.Service = &Service{cfg: DefaultConfig(), metrics: newMetrics(f.reg), now: time.Unix(1_700_000_000, 0)}
	f.Service.log = zerolog.New(&f.log)
	f.silences.what, f.returns.what = "silent", "works again"
	return f
}

// machine is one that has sent so many shares.
func (f *quietFarm) machine(name string, interval time.Duration) *miner {
	g := &goal{acct: &account{svc: f.Service, name: "farm"}}
	g.plan.Store(&plan{targets: []target{{}}})
	m := &miner{svc: f.Service, acct: g.acct, goal: g, link: &link{}, worker: name, ip: netip.MustParseAddr("10.0.0.7"), told: 1024, linked: f.now}
	m.counts.since, m.counts.hashes = f.now, newMeter(f.now)
	for range workedShares {
		f.now = f.now.Add(interval)
		m.count(share.StatusAccept, m.told*(1<<32))
	}
	return m
}

// wants looks for a text in the lines of the log since the last time, of which there must be so many.
func (f *quietFarm) wants(lines int, text string) {
	f.t.Helper()
	got := f.log.String()
	if n := strings.Count(got, "\n"); n != lines || !strings.Contains(got, text) {
		f.t.Errorf("%d lines, want %d with %q:\n%s", n, lines, text, got)
	}
	f.log.Reset()
}

// One line says that a machine is silent, and one that it works again.
func TestSilentMachine(t *testing.T) {
	t.Parallel()
	f := newQuietFarm(t)
	m := f.machine("rig1", 10*time.Second)
	f.now = f.now.Add(10 * time.Minute)
	m.fallSilent()
	f.wants(0, "")
	f.now = f.now.Add(time.Second)
	m.fallSilent()
	m.fallSilent()
	f.wants(1, `"account":"farm","worker":"rig1","ip":"10.0.0.7","last_share":"2023-11-14T22:15:00`)
	f.missing()
	if got := testkit.Metric(t, f.reg, "btcpool_agentproxy_silent_miners", "state", "connected"); got != 1 {
		t.Errorf("%v machines are silent", got)
	}
	m.link = nil
	if !m.info(f.now).Silent {
		t.Error("not shown")
	}
	m.count(share.StatusLowDifficulty, 0)
	f.wants(1, "machine works again")
	if f.silent != 0 {
		t.Errorf("%d machines are silent", f.silent)
	}
}

// Luck is not taken for silence, nor is a pool that is away.
func TestNotSilent(t *testing.T) {
	t.Parallel()
	f := newQuietFarm(t)
	slow := f.machine("slow", time.Hour)
	fresh := f.machine("fresh", 0) // has just begun
	f.now = f.now.Add(15 * time.Hour)
	slow.fallSilent()
	waits := f.machine("waits", 10*time.Second)
	waits.link = nil
	f.now = f.now.Add(time.Hour)
	waits.fallSilent()
	waits.link, waits.linked = &link{}, f.now
	f.now = f.now.Add(9 * time.Minute)
	waits.fallSilent()
	fresh.fallSilent()
	never := &miner{svc: f.Service, link: &link{}, linked: f.now.Add(-time.Hour), told: 1024}
	never.fallSilent()
	f.wants(0, "")
	f.now = f.now.Add(8 * time.Hour)
	slow.fallSilent()
	f.wants(1, `"worker":"slow"`)
	f.cfg.SilentAfter = 0
	waits.fallSilent()
	f.wants(0, "")
}

// One that has left and not come back is said to be gone; when it comes back it is silent until it works.
func TestMachineGone(t *testing.T) {
	t.Parallel()
	f := newQuietFarm(t)
	m := f.machine("rig1", 10*time.Second)
	m.link = nil
	w := m.info(f.now)
	w.record = &record{worked: m.worked()}
	f.gone.add(w, f.now)
	idle := worker{Name: "has never worked"}
	f.gone.add(idle, f.now)
	f.now = f.now.Add(10 * time.Minute)
	f.missing()
	f.wants(0, "")
	f.now = f.now.Add(time.Second)
	f.missing()
	f.missing()
	f.wants(1, `"worker":"rig1"`)
	if got := testkit.Metric(t, f.reg, "btcpool_agentproxy_silent_miners", "state", "gone"); got != 1 {
		t.Errorf("%v machines are gone", got)
	}
	back := f.gone.remove("farm", "rig1", "10.0.0.7")
	if !back.Silent || back.record.rate == 0 || len(f.gone.workers) != 1 {
		t.Errorf("it comes back as %+v", back)
	}
}

// When power is away there are not 10,000 lines.
func TestManySilent(t *testing.T) {
	t.Parallel()
	f := newQuietFarm(t)
	var all []*miner
	for i := range 1000 {
		all = append(all, f.machine(fmt.Sprint("rig", i), 0))
	}
	for _, m := range all {
		m.before = &record{worked: worked{f.now, 1e12}}
	}
	f.now = f.now.Add(time.Hour)
	for _, m := range all {
		m.fallSilent()
	}
	f.wants(maxTold, "machine is silent")
	f.now = f.now.Add(toldWindow)
	f.silences.sum(f.Service)
	f.silences.sum(f.Service)
	f.wants(1, fmt.Sprintf(`"machines":%d`, 1000-maxTold))
	all[0].silent = false
	all[0].fallSilent()
	f.wants(1, `"worker":"rig0"`)
}
