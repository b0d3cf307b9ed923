package agentproxy

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// goal is what a part of an account's machines mines for, by links of its own: a pool that has a weight, with those that
// are used when it cannot be reached. All of it belongs to the loop, but for plan.
type goal struct {
	acct   *account
	weight float64
	plan   atomic.Pointer[plan]
	slots  []*slot

	miners int
	load   float64 // the sum of theirs
}

// plan is what links are made by. It does not change.
type plan struct {
	targets      []target // in the order of preference
	dialer       *dialer
	again        time.Duration // between attempts to return to a preferred pool
	writeTimeout time.Duration
}

// rank returns the place of t in the order of preference; one that is not wanted has the last.
func (p *plan) rank(t target) int {
	if i := slices.Index(p.targets, t); i >= 0 {
		return i
	}
	return len(p.targets)
}

// main is the pool that the goal is named after.
func (g *goal) main() target { return g.plan.Load().targets[0] }

// account is whom machines mine for there.
func (g *goal) account() string { return cmp.Or(g.acct.name, g.main().Account) }

// adopt has links made by r, and the configuration as it is now.
func (g *goal) adopt(r route) {
	s := g.acct.svc
	g.weight = r.weight
	g.plan.Store(&plan{
		targets:      r.targets,
		dialer:       s.dialer,
		again:        s.cfg.ReturnInterval.Std(),
		writeTimeout: s.cfg.ReadTimeout.Std(),
	})
	for _, sl := range g.slots {
		sl.changed.Ring()
	}
	for i := len(g.slots); i < s.cfg.Links; i++ {
		g.slots = append(g.slots, newSlot(g, i))
	}
	for _, sl := range g.slots[s.cfg.Links:] {
		sl.end()
	}
	g.slots = g.slots[:s.cfg.Links]
	for _, sl := range g.slots {
		sl.start()
	}
}

// adopt goes over to the configuration as it is now.
func (a *account) adopt() {
	old := slices.Clone(a.goals)
	var goals []*goal
	for _, r := range a.svc.routes {
		i := slices.IndexFunc(old, func(g *goal) bool { return g.main().key() == r.targets[0].key() })
		if i < 0 && len(old) == 1 && len(a.svc.routes) == 1 {
			i = 0
		}
		g := &goal{acct: a}
		if i >= 0 {
			g = old[i]
			old = slices.Delete(old, i, i+1)
		}
		g.adopt(r)
		goals = append(goals, g)
	}
	a.goals = goals
	for m := range a.miners {
		if slices.Contains(old, m.goal) {
			a.aim(m, a.lacking())
		}
	}
	for _, g := range old {
		for _, sl := range g.slots {
			sl.end()
		}
	}
	a.balanced, a.off = time.Time{}, true // not before the next tick: all accounts go over first
}

const (
	// balanceInterval is how often it is seen to that goals have their part of the machines.
	balanceInterval = time.Minute
	// maxPartOff is by how much of all the part of a goal may be off before machines are moved, and partOff by how much
	// afterwards: machines are to stay where they are.
	maxPartOff = 0.05
	partOff    = 0.002
)

// aim has a miner count for g, and moves it if it mines already.
func (a *account) aim(m *miner, g *goal) {
	a.unaim(m)
	m.goal = g
	g.miners++
	g.load += m.load
	if l := a.best(g); l != nil && m.link != nil && (m.link.replaced || l.slot.goal == g && m.link.slot.goal != g) {
		m.move(l)
		m.settle()
	}
}

func (a *account) unaim(m *miner) {
	if m.goal != nil {
		m.goal.miners--
		m.goal.load -= m.load
		m.goal = nil
	}
}

// lacking returns the goal that lacks the most.
func (a *account) lacking() *goal {
	all := a.load()
	return slices.MaxFunc(a.goals, func(g, h *goal) int { return cmp.Compare(g.lacks(all), h.lacks(all)) })
}

// load is that of all machines.
func (a *account) load() (all float64) {
	for _, g := range a.goals {
		all += g.load
	}
	return all
}

// lacks returns how much of the load of all g should have beyond what it has.
func (g *goal) lacks(all float64) float64 { return g.weight*all - g.load }

// weigh measures the load of each machine: its hashrate, or, before that is known, the mean of others, or 1.
func (a *account) weigh() {
	now := a.svc.now
	var sum float64
	known := 0
	for m := range a.miners {
		m.load = -1
		if now.Sub(m.counts.since) >= meterSpan {
			m.load = m.counts.hashes.perSecond(now)
			sum += m.load
			known++
		}
	}
	a.mean = 1
	if sum > 0 {
		a.mean = sum / float64(known)
	}
	for _, g := range a.goals {
		g.load = 0
	}
	for m := range a.miners {
		if m.load < 0 || sum == 0 {
			m.load = a.mean
		}
		m.goal.load += m.load
	}
}

// balance moves machines to goals that have too little, if one has too little or too much by far, and had so a minute ago.
func (a *account) balance() {
	s := a.svc
	if len(a.goals) < 2 || s.now.Sub(a.balanced) < balanceInterval {
		return
	}
	a.balanced = s.now
	a.weigh()
	all := a.load()
	wasOff := a.off
	a.off = slices.ContainsFunc(a.goals, func(g *goal) bool { return max(g.lacks(all), -g.lacks(all)) > maxPartOff*all })
	if !a.off || !wasOff { // a machine may be away for a moment
		return
	}
	moved := 0
	for range len(a.goals) { // each turn has one goal more in order
		to := a.lacking()
		from := slices.MinFunc(a.goals, func(g, h *goal) int { return cmp.Compare(g.lacks(all), h.lacks(all)) })
		moved += a.shift(from, to, all)
	}
	if moved > 0 {
		s.metrics.moved.Add(float64(moved))
		s.log.Info().Int("machines", moved).Msg("machines moved to another pool, for the pools' weights")
	}
}

// shift moves machines from one goal to another until one of them is in order, and returns how many. A machine is moved
// if both are nearer to what they should have without it.
func (a *account) shift(from, to *goal, all float64) (moved int) {
	var machines []*miner
	for m := range a.miners {
		if m.goal == from && !m.closing {
			machines = append(machines, m)
		}
	}
	slices.SortFunc(machines, func(m, n *miner) int {
		return cmp.Or(cmp.Compare(m.load, n.load), cmp.Compare(m.number, n.number))
	})
	for len(machines) > 0 {
		rest := min(to.lacks(all), -from.lacks(all))
		if rest <= partOff*all {
			break
		}
		i, _ := slices.BinarySearchFunc(machines, rest, func(m *miner, rest float64) int { return cmp.Compare(m.load, rest) })
		if i == len(machines) || i > 0 && rest-machines[i-1].load <= machines[i].load-rest {
			i--
		}
		m := machines[i]
		if m.load <= 0 || m.load >= 2*rest {
			break
		}
		machines = slices.Delete(machines, i, i+1)
		a.aim(m, to)
		moved++
	}
	return moved
}
