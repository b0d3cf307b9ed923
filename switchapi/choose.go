package switchapi

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"btcpool/internal/userchain"
)

const (
	// leastMove is the part of the users for which it is not worth to change shares, nor to have one.
	leastMove = 0.01
	// firstStep is the part of the users that goes to a chain with a cap when nobody can say how much hashrate that is.
	firstStep = 0.1
)

// choice is what the users in auto mode mine, and what has to be remembered to choose again.
type choice struct {
	// Best is the chain that is worth most, as far as gain and dwell let that change; it stays when its cap sends users
	// elsewhere.
	Best   string           `json:"best"`
	Shares userchain.Shares `json:"shares"`
	// Since is when Best or Shares changed last, Quoted when sources said something last.
	Since  time.Time `json:"since"`
	Quoted time.Time `json:"quoted"`
	ID     uint64    `json:"id"` // of the last command
}

// outlook is what is known at the time of a decision.
type outlook struct {
	worth map[string]float64 // what a hash earns on each chain, in any unit; only the order counts if ranked
	rank  bool               // worth is a rank, so gains are not known
	rates map[string]float64 // hashes a second of the pool on each chain with a cap, as far as known, and on others
}

// Why a decision is as it is.
const (
	reasonFirst    = "first"
	reasonKeep     = "best"
	reasonGain     = "gain"
	reasonLittle   = "gain too small"
	reasonDwell    = "changed too recently"
	reasonSilent   = "no quotes"
	reasonFailSafe = "fail safe"
	reasonCap      = "cap"
)

// rules are those of the configuration.
type rules struct {
	AutoChain
	caps map[string]float64 // by chain; none: no cap
}

// decide returns the next choice and its reason. It changes nothing.
func (r rules) decide(now time.Time, before choice, o outlook) (next choice, reason string) {
	next = before
	next.Shares = maps.Clone(before.Shares)
	dwelt := now.Sub(before.Since) >= r.MinDwell.Std()
	switch {
	case len(o.worth) > 0:
		next.Quoted = now
		next.Best, reason = r.best(before.Best, o, dwelt)
	case now.Sub(before.Quoted) >= r.FailSafeAfter.Std():
		next.Best, reason = r.FailSafeChain, reasonFailSafe
		if before.Best == r.FailSafeChain && before.Shares[r.FailSafeChain] == 1 {
			return next, reason
		}
		next.Shares, next.Since = userchain.Shares{r.FailSafeChain: 1}, now
		return next, reason
	default:
		return next, reasonSilent
	}
	if next.Best == before.Best && !dwelt {
		return next, reason
	}
	if shares := r.fill(next.Best, before, o); moved(before.Shares, shares) >= leastMove {
		if next.Best == before.Best {
			reason = reasonCap
		}
		next.Shares, next.Since = shares, now
	} else if next.Best != before.Best {
		next.Since = now
	}
	return next, reason
}

// best returns the chain that is worth most, or the one before if the gain is too small or it is too early.
func (r rules) best(before string, o outlook, dwelt bool) (chain, reason string) {
	top := r.order("", o)[0]
	was, quoted := o.worth[before]
	switch {
	case before == "":
		return top, reasonFirst
	case top == before:
		return before, reasonKeep
	case !dwelt:
		return before, reasonDwell
	case quoted && !o.rank && o.worth[top] < was*(1+r.MinGain):
		return before, reasonLittle
	}
	return top, reasonGain
}

// order returns the chains that are quoted, the one that is worth most first; ahead of all the one given, if any.
func (r rules) order(first string, o outlook) []string {
	chains := slices.Sorted(maps.Keys(o.worth))
	slices.SortStableFunc(chains, func(a, b string) int {
		switch first {
		case a:
			return -1
		case b:
			return 1
		}
		return cmp.Compare(o.worth[b], o.worth[a])
	})
	return chains
}

// fill gives the users to the chains in the order of their worth, each as many as its cap allows.
//
// How much hashrate all users in auto mode have is not known, but it cannot be more than the pool has on a chain,
// divided by the share of them that mines there. Reckoned by that, a share that is to grow into the room under a cap
// does not grow too far, and one that has to shrink comes down in steps: shares near a cap go one way only, and rest
// there.
func (r rules) fill(best string, before choice, o outlook) userchain.Shares {
	all := math.Inf(1)
	for chain, part := range before.Shares {
		if rate, ok := o.rates[chain]; ok && part > 0 {
			all = min(all, rate/part)
		}
	}
	shares, rest := make(userchain.Shares), 1.0
	for _, chain := range r.order(best, o) {
		part := rest
		if limit, capped := r.caps[chain]; capped {
			rate, known := o.rates[chain]
			switch was := before.Shares[chain]; {
			case !known:
				part = min(part, was) // nobody new until it is known
			case all > 0 && !math.IsInf(all, 1):
				part = min(part, max(0, was+(limit-rate)/all))
			case rate < limit:
				part = min(part, was+firstStep)
			default:
				part = 0
			}
		}
		if part >= leastMove {
			shares[chain] = part
			rest -= part
		}
	}
	if rest > 1e-9 {
		shares[r.FailSafeChain] += rest
	}
	return shares
}

// moved returns which part of the users mines something else by the shares b than by a.
func moved(a, b userchain.Shares) (part float64) {
	for chain := range b {
		part += max(0, b[chain]-a[chain])
	}
	return part
}
