package agentproxy

import (
	"cmp"
	"slices"
)

// route is what a part of an account's machines mines for.
type route struct {
	weight  float64  // the part, 0 to 1
	targets []target // in the order of preference
}

// target is what a link is made for. One that differs needs another link.
type target struct {
	Pool          // without its weight, which is no matter of links
	verdicts bool // the pool is to say what it thinks of each share
}

// poolKey is what people know a target by.
type poolKey struct{ addr, account string }

func (t target) key() poolKey { return poolKey{t.Addr, t.Account} }

// routes returns the routes of each account: to every pool that has a weight, or else to the first one. The other pools
// are for when that cannot be reached, in their order; with several routes those of the same account come first, and
// pools of other routes last.
func (c Config) routes() []route {
	mains := slices.DeleteFunc(slices.Clone(c.Pools), func(p Pool) bool { return p.Weight == 0 })
	others := slices.DeleteFunc(slices.Clone(c.Pools), func(p Pool) bool { return p.Weight > 0 })
	if len(mains) == 0 {
		mains, others = c.Pools[:1], c.Pools[1:]
	}
	var all float64
	for _, p := range mains {
		all += p.Weight
	}
	routes := make([]route, len(mains))
	for i, main := range mains {
		rest := slices.Clone(others)
		if len(mains) > 1 {
			rest = slices.Concat(rest, mains[:i], mains[i+1:])
			slices.SortStableFunc(rest, func(a, b Pool) int {
				strange := func(p Pool) int {
					n := 0
					if p.Weight > 0 {
						n = 2
					}
					if p.Account != main.Account && !c.MultiUser {
						n++
					}
					return n
				}
				return cmp.Compare(strange(a), strange(b))
			})
		}
		routes[i].weight = 1
		if all > 0 {
			routes[i].weight = main.Weight / all
		}
		for _, p := range append([]Pool{main}, rest...) {
			p.Weight = 0
			routes[i].targets = append(routes[i].targets, target{p, c.PoolVerdicts})
		}
	}
	return routes
}
