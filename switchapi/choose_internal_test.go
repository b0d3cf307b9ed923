package switchapi

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"btcpool/internal/config"
	"btcpool/internal/userchain"
)

func testRules(caps map[string]float64) rules {
	return rules{AutoChain{
		MinGain: 0.05, MinDwell: config.Duration(10 * time.Minute), FailSafeChain: "btc", FailSafeAfter: config.Duration(5 * time.Minute),
	}, caps}
}

type worth = map[string]float64

func TestDecide(t *testing.T) {
	t.Parallel()
	long, lately := at.Add(-time.Hour), at.Add(-time.Minute)
	all := func(chain string) userchain.Shares { return userchain.Shares{chain: 1} }
	for name, tt := range map[string]struct {
		before choice
		o      outlook
		best   string
		reason string
		since  time.Time
	}{
		"first":                  {choice{}, outlook{worth: worth{"btc": 1, "bch": 2}}, "bch", reasonFirst, at},
		"the best already":       {choice{"btc", all("btc"), long, lately, 0}, outlook{worth: worth{"btc": 2, "bch": 1}}, "btc", reasonKeep, long},
		"gain":                   {choice{"btc", all("btc"), long, lately, 0}, outlook{worth: worth{"btc": 100, "bch": 106}}, "bch", reasonGain, at},
		"little gain":            {choice{"btc", all("btc"), long, lately, 0}, outlook{worth: worth{"btc": 100, "bch": 104}}, "btc", reasonLittle, long},
		"a rank says no gain":    {choice{"btc", all("btc"), long, lately, 0}, outlook{worth: worth{"btc": 100, "bch": 104}, rank: true}, "bch", reasonGain, at},
		"too early":              {choice{"btc", all("btc"), lately, lately, 0}, outlook{worth: worth{"btc": 100, "bch": 200}}, "btc", reasonDwell, lately},
		"not quoted any more":    {choice{"bsv", all("bsv"), long, lately, 0}, outlook{worth: worth{"btc": 100, "bch": 50}}, "btc", reasonGain, at},
		"silent":                 {choice{"bch", all("bch"), lately, at.Add(-5*time.Minute + 1), 0}, outlook{}, "bch", reasonSilent, lately},
		"silent for long":        {choice{"bch", all("bch"), lately, at.Add(-5 * time.Minute), 0}, outlook{}, "btc", reasonFailSafe, at},
		"still silent":           {choice{"btc", all("btc"), long, long, 0}, outlook{}, "btc", reasonFailSafe, long},
		"silent from the start":  {choice{}, outlook{}, "btc", reasonFailSafe, at},
		"equal: the one that is": {choice{"btc", all("btc"), long, lately, 0}, outlook{worth: worth{"btc": 1, "bch": 1}}, "btc", reasonLittle, long},
	} {
		next, reason := testRules(nil).decide(at, tt.before, tt.o)
		if next.Best != tt.best || reason != tt.reason || !next.Since.Equal(tt.since) || !cmp.Equal(next.Shares, all(tt.best)) {
			t.Errorf("%s: %+v, %s", name, next, reason)
		}
	}
}

// farm is a pool whose users in auto mode do as they are told: what is mined on each chain without them, and theirs.
type farm struct {
	fixed map[string]float64
	auto  float64
}

func (f farm) rates(s userchain.Shares) map[string]float64 {
	rates := make(map[string]float64)
	for chain, rate := range f.fixed {
		rates[chain] = rate + s[chain]*f.auto
	}
	return rates
}

// TestCapIsApproached has the best chain take what its cap allows: shares go towards it, each step in the same
// direction, and rest there.
func TestCapIsApproached(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		farm
		limit, want float64 // of bch, hashrate and share
	}{
		"room for half":      {farm{worth{"btc": 0, "bch": 0}, 100}, 50, 0.5},
		"room beside others": {farm{worth{"btc": 300, "bch": 20}, 100}, 50, 0.3},
		"room for all":       {farm{worth{"btc": 300, "bch": 20}, 100}, 500, 1},
		"none":               {farm{worth{"btc": 300, "bch": 60}, 100}, 50, 0},
	} {
		r := testRules(map[string]float64{"bch": tt.limit})
		c, _ := r.decide(at, choice{}, outlook{worth: worth{"btc": 1, "bch": 2}, rates: tt.rates(nil)})
		now, moves := at, 0
		for range 200 {
			now = now.Add(10 * time.Minute)
			rates := tt.rates(c.Shares)
			if over := rates["bch"] - tt.limit; over > 1e-6 && c.Shares["bch"] > 0 {
				t.Fatalf("%s: %v on bch, whose cap is %v", name, rates["bch"], tt.limit)
			}
			next, _ := r.decide(now, c, outlook{worth: worth{"btc": 1, "bch": 2}, rates: rates})
			if next.Shares["bch"] < c.Shares["bch"]-1e-9 {
				t.Fatalf("%s: back from %v to %v", name, c.Shares, next.Shares)
			}
			if !cmp.Equal(next.Shares, c.Shares) {
				moves++
			}
			c = next
		}
		if math.Abs(c.Shares["bch"]-tt.want) > 0.03 || c.Shares.Check() != nil || c.Best != "bch" {
			t.Errorf("%s: %v after %d moves, want %v", name, c.Shares, moves, tt.want)
		}
	}
}

// TestCapExceeded takes a part of the users away from a chain that has too many, not all.
func TestCapExceeded(t *testing.T) {
	t.Parallel()
	r, f := testRules(map[string]float64{"bch": 50}), farm{worth{"btc": 100, "bch": 30}, 100}
	c := choice{Best: "bch", Shares: userchain.Shares{"bch": 0.9, "btc": 0.1}, Since: at, Quoted: at}
	now := at
	for range 100 {
		now = now.Add(10 * time.Minute)
		next, _ := r.decide(now, c, outlook{worth: worth{"btc": 1, "bch": 2}, rates: f.rates(c.Shares)})
		if next.Shares["bch"] > c.Shares["bch"]+1e-9 || next.Shares["bch"] < 0.2-1e-9 {
			t.Fatalf("from %v to %v", c.Shares, next.Shares)
		}
		c = next
	}
	if got := c.Shares["bch"]; got > 0.24 {
		t.Errorf("%v", c.Shares)
	}
	// While the hashrate is not known nobody new goes there, and nobody leaves for that.
	next, _ := r.decide(now.Add(time.Hour), c, outlook{worth: worth{"btc": 1, "bch": 2}})
	if diff := cmp.Diff(next.Shares, c.Shares, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
}

// TestThreeChains fills one after the other, and the fail-safe chain with the rest.
func TestThreeChains(t *testing.T) {
	t.Parallel()
	r := testRules(map[string]float64{"bch": 50, "bsv": 20})
	before := choice{Best: "btc", Shares: userchain.Shares{"btc": 1}, Since: at.Add(-time.Hour), Quoted: at}
	next, _ := r.decide(at, before, outlook{worth: worth{"btc": 1, "bch": 3, "bsv": 2}, rates: worth{"btc": 100, "bch": 20, "bsv": 0}})
	if diff := cmp.Diff(next.Shares, userchain.Shares{"bch": 0.3, "bsv": 0.2, "btc": 0.5}, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Error(diff)
	}
	next, _ = r.decide(at, before, outlook{worth: worth{"bch": 3}, rates: worth{"btc": 100, "bch": 20}})
	if diff := cmp.Diff(next.Shares, userchain.Shares{"bch": 0.3, "btc": 0.7}, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("a chain that nobody quotes: %s", diff)
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 50.0, 0.5)
	f.Fuzz(func(t *testing.T, w1, w2, w3, r1, r2, r3, limit, part float64) {
		for _, x := range []*float64{&w1, &w2, &w3, &r1, &r2, &r3, &limit} {
			if *x = math.Abs(*x); !(*x < 1e30) {
				*x = 1
			}
		}
		if !(part >= 0 && part <= 1) {
			part = 0.5
		}
		before := choice{Best: "bch", Shares: userchain.Shares{"bch": part, "btc": 1 - part}, Since: at.Add(-time.Hour), Quoted: at}
		next, _ := testRules(map[string]float64{"bch": limit, "bsv": limit}).decide(at, before, outlook{
			worth: worth{"btc": w1, "bch": w2, "bsv": w3}, rates: worth{"btc": r1, "bch": r2, "bsv": r3},
		})
		if err := next.Shares.Check(); err != nil {
			t.Fatalf("%+v: %v", next, err)
		}
	})
}
