//go:build integration

package load

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/testkit"
)

// sample is what one look at sserver says.
type sample struct {
	rss, heap, goroutines, descriptors float64
}

// TestSoak mines for long, at difficulties that follow the miners, while they reconnect and blocks come. It fails when
// an honest miner is disconnected or refused, when something is left of the connections at the end, and, if it ran for
// twenty minutes at least, when something grows.
func TestSoak(t *testing.T) {
	const usual bitcoin.Difficulty = -28 // 16 hashes
	p := startPool(t, difficulties(usual, bitcoin.MinDifficulty, 0))
	m := start(t, "miners")
	before, goroutines := p.usage(t), p.metrics(t)["go_goroutines"]
	connect(t, m, p.addr, *connections, "")
	connected := ask[tally](t, m, order{Do: "report"})
	ask[tally](t, m, order{Do: "hash", Rate: *rate, Difficulty: usual})
	ask[tally](t, m, order{Do: "churn", Rate: *churn * float64(*connections)})
	t.Logf("%8s %9s %9s %10s %11s %9s %9s %9s %9s %9s %6s %6s", "", "RSS MiB", "heap MiB", "goroutines", "descriptors",
		"shares", "p50", "p99", "reconnect", "difficult", "stale", "lost")

	every := min(time.Minute, *soak/5)
	look, line, blocks, end := time.NewTicker(min(time.Second, *soak/50)), time.NewTicker(every), time.NewTicker(*block), time.After(*soak)
	defer look.Stop()
	defer line.Stop()
	defer blocks.Stop()
	var all, recent []sample
	begin := time.Now()
	var last tally
	for running := true; running; {
		select {
		case <-end:
			running = false
		case <-blocks.C:
			p.newBlock(t)
		case <-look.C:
			u, metrics := p.usage(t), p.metrics(t)
			recent = append(recent, sample{float64(u.RSS), metrics["go_memstats_heap_alloc_bytes"], metrics["go_goroutines"], float64(u.Descriptors)})
		case <-line.C:
			if len(recent) == 0 {
				continue
			}
			now := ask[tally](t, m, order{Do: "report"})
			s := typical(recent)
			all, recent = append(all, recent...), nil
			t.Logf("%8s %9.1f %9.1f %10.0f %11.0f %9d %9s %9s %9d %9d %6d %6d %v", time.Since(begin).Round(time.Second), s.rss/(1<<20), s.heap/(1<<20),
				s.goroutines, s.descriptors, now.Accepted-last.Accepted, short(now.P50), short(now.P99), now.Churned-last.Churned,
				now.DifficultyChanges-last.DifficultyChanges, now.Stale-last.Stale, now.Disconnects-last.Disconnects, now.Refused)
			last = now
		}
	}
	rest(t, m)
	innocent(t, m, connected)
	compare(t, append(all, recent...))
	last = ask[tally](t, m, order{Do: "leave"})
	t.Logf("%d reconnects, %d shares", last.Churned, last.Accepted)
	p.settled(t, before.Descriptors, goroutines)
	p.stop(t)
	p.verify(t, m)
}

// innocent fails the test when an honest miner was disconnected or refused since then. Shares of the block before, and
// at the least difficulty one in 65,536 for its hash, may be refused.
func innocent(t *testing.T, m *helper, since tally) {
	t.Helper()
	got := ask[tally](t, m, order{Do: "report"})
	got.Disconnects, got.DialErrors = got.Disconnects-since.Disconnects, got.DialErrors-since.DialErrors
	if got.Disconnects != 0 || got.DialErrors != 0 || len(got.Refused) != 0 || got.Unlucky > 3+got.Submitted/10_000 {
		t.Errorf("honest miners were not served: %d disconnected, %d not connected, refused %v, %d for their hash",
			got.Disconnects, got.DialErrors, got.Refused, got.Unlucky)
	}
}

// typical is the middle of samples; of the heap the least, which is what lives when garbage has been collected.
func typical(list []sample) (s sample) {
	middle := func(of func(sample) float64, part float64) float64 {
		values := make([]float64, len(list))
		for i, s := range list {
			values[i] = of(s)
		}
		slices.Sort(values)
		return values[int(part*float64(len(values)-1))]
	}
	s.rss = middle(func(s sample) float64 { return s.rss }, .5)
	s.heap = middle(func(s sample) float64 { return s.heap }, .02)
	s.goroutines = middle(func(s sample) float64 { return s.goroutines }, .5)
	s.descriptors = middle(func(s sample) float64 { return s.descriptors }, .5)
	return s
}

// warmUp is how long memory grows for reasons: jobs live five minutes, and their shares are known as long.
const warmUp = 10 * time.Minute

// compare holds the last fifth of a run against the first, warm-up apart: ten minutes each of an hour.
func compare(t *testing.T, all []sample) {
	t.Helper()
	all = all[int(float64(len(all))*float64(min(warmUp, *soak/2))/float64(*soak)):]
	part := len(all) / 5
	if part == 0 {
		return
	}
	first, last := typical(all[:part]), typical(all[len(all)-part:])
	for _, v := range []struct {
		what        string
		first, last float64
		noise       float64 // that is no leak
	}{
		{"RSS, MiB", first.rss / (1 << 20), last.rss / (1 << 20), 8},
		{"heap that lives, MiB", first.heap / (1 << 20), last.heap / (1 << 20), 4},
		{"goroutines", first.goroutines, last.goroutines, 10},
		{"descriptors", first.descriptors, last.descriptors, 10},
	} {
		verdict := "flat"
		switch {
		case *soak < 2*warmUp:
			verdict = "too short to say"
		case v.last > 1.05*v.first+v.noise:
			verdict = "GROWS"
			t.Errorf("%s grows", v.what)
		}
		t.Logf("%-22s first %9.1f, last %9.1f, %+.1f %%: %s", v.what, v.first, v.last, 100*(v.last/v.first-1), verdict)
	}
}

// settled waits until sserver holds no more descriptors and goroutines than it did, but for a few that its connections
// to Kafka come and go with.
func (p *pool) settled(t *testing.T, descriptors int, goroutines float64) {
	t.Helper()
	p.settledIn(t, p.cmd.Process.Pid, descriptors, goroutines)
}

// settledIn is settled, of another process than the first.
func (p *pool) settledIn(t *testing.T, pid, descriptors int, goroutines float64) {
	t.Helper()
	const few = 10
	testkit.Until(t, time.Minute, "sserver is as it was", func(context.Context) error {
		u, now := usageOf(t, pid), p.metrics(t)["go_goroutines"]
		if u.Descriptors > descriptors+few || now > goroutines+few {
			return fmt.Errorf("%d descriptors of %d, %.0f goroutines of %.0f", u.Descriptors, descriptors, now, goroutines)
		}
		return nil
	})
}
