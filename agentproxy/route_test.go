package agentproxy

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// Which pools are used, in which order: pools are written as addr/account*weight.
func TestRoutes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pools     string
		multiUser bool
		want      []string
	}{
		{pools: "x/a y/b", want: []string{"1: x y"}},
		{pools: "x/a y/b*5 z/a", want: []string{"1: y x z"}},
		{pools: "x/a*70 y/b*30 z/c", want: []string{"0.7: x z y", "0.3: y z x"}},
		{pools: "x/a*70 y/b*30 z1/b z2/a", want: []string{"0.7: x z2 z1 y", "0.3: y z1 z2 x"}},
		{pools: "x/a*70 y/b*30 z1/b z2/a", multiUser: true, want: []string{"0.7: x z1 z2 y", "0.3: y z1 z2 x"}},
		{pools: "x/a*1 y/b*2 z/a*1", want: []string{"0.25: x z y", "0.5: y x z", "0.25: z x y"}},
	} {
		c := Config{MultiUser: test.multiUser}
		for _, text := range strings.Fields(test.pools) {
			var p Pool
			text, weight, _ := strings.Cut(text, "*")
			fmt.Sscan(weight, &p.Weight)
			p.Addr, p.Account, _ = strings.Cut(text, "/")
			c.Pools = append(c.Pools, p)
		}
		var got []string
		for _, r := range c.routes() {
			line := fmt.Sprintf("%v:", r.weight)
			for _, t := range r.targets {
				line += " " + t.Addr
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.pools, diff)
		}
	}
}

// herd is an account with goals of these weights, without links, whose machines have done with these hashrates for an
// hour; all are of the first goal.
func herd(weights []float64, rates ...float64) *account {
	s := &Service{now: time.Unix(1_700_000_000, 0), metrics: newMetrics(prometheus.NewRegistry())}
	a := &account{svc: s, miners: make(map[*miner]struct{}), mean: 1}
	for _, w := range weights {
		a.goals = append(a.goals, &goal{acct: a, weight: w})
	}
	for i, rate := range rates {
		m := &miner{svc: s, acct: a, number: uint16(i), load: a.mean}
		m.counts.since = s.now.Add(-time.Hour)
		m.counts.hashes = meter{sum: rate * meterSpan.Seconds(), at: s.now, since: time.Unix(0, 0)}
		a.miners[m] = struct{}{}
		a.aim(m, a.goals[0])
	}
	return a
}

// Hashrates are split by weight, with as few machines moved as can be, and none for a difference that is small or that
// moving would not mend.
func TestBalance(t *testing.T) {
	t.Parallel()
	same := func(n int) (rates []float64) {
		for range n {
			rates = append(rates, 100)
		}
		return rates
	}
	for name, test := range map[string]struct {
		weights, rates, want []float64
		moved                int
	}{
		"a hundred machines":       {[]float64{.7, .3}, same(100), []float64{.7, .3}, 30},
		"ten thousand":             {[]float64{.7, .3}, same(10_000), []float64{.702, .298}, 2980},
		"three goals":              {[]float64{.5, .3, .2}, same(100), []float64{.5, .3, .2}, 50},
		"one machine":              {[]float64{.7, .3}, same(1), []float64{1, 0}, 0},
		"one machine, small part":  {[]float64{.3, .7}, same(1), []float64{0, 1}, 1},
		"four machines":            {[]float64{.7, .3}, same(4), []float64{.75, .25}, 1},
		"unlike machines":          {[]float64{.7, .3}, []float64{100, 100, 100, 300, 400}, []float64{.7, .3}, 1},
		"one that is too large":    {[]float64{.9, .1}, []float64{1000}, []float64{1, 0}, 0},
		"four percent":             {[]float64{.96, .04}, same(100), []float64{1, 0}, 0},
		"machines that do nothing": {[]float64{.5, .5}, []float64{0, 0, 0, 0}, []float64{.5, .5}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := herd(test.weights, test.rates...)
			a.balance()
			if a.goals[0].miners < len(test.rates) {
				t.Error("moved at the first look")
			}
			a.svc.now = a.svc.now.Add(balanceInterval)
			a.balance()
			var got []float64
			before := a.goals[0].miners
			for _, g := range a.goals {
				got = append(got, math.Round(g.load/a.load()*1e4)/1e4)
			}
			if diff := cmp.Diff(test.want, got); diff != "" || len(test.rates)-before != test.moved {
				t.Errorf("%d moved, want %d (-want +got):\n%s", len(test.rates)-before, test.moved, diff)
			}
			for range 3 {
				a.svc.now = a.svc.now.Add(balanceInterval)
				if a.balance(); a.goals[0].miners != before {
					t.Error("moved again")
				}
			}
		})
	}
}
