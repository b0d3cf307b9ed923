package agentproxy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"btcpool/internal/job"
)

// account is whom miners mine for, and the links that carry them.
type account struct {
	svc  *Service
	name string // "": that of the pool in use

	goals  []*goal             // in the order of the configuration
	links  map[*link]struct{}  // all that have not ended
	broken []*link             // that others may go on with, oldest first
	miners map[*miner]struct{} // all that are logged in, with a link or without

	left    time.Time       // since when there are no miners
	away    time.Time       // since when no link is up; zero: one is
	last    *job.StratumJob // of the last job, for stand-ins
	standIn *work
	errs    map[poolKey]error // why the last link ended or could not be had

	balanced time.Time // when it was seen last to the goals' parts
	off      bool      // a part was off then by too much
	mean     float64   // the load of a machine of which nothing is known
}

// accountGrace is how long the links of an account without miners are kept: those that come back find them.
const accountGrace = time.Minute

func newAccount(s *Service, name string) *account {
	a := s.bareAccount()
	a.name, a.away, a.left, a.mean = name, s.now, s.now, 1
	a.adopt()
	a.off = false
	return a
}

func (s *Service) bareAccount() *account {
	return &account{
		svc:    s,
		links:  make(map[*link]struct{}),
		miners: make(map[*miner]struct{}),
		errs:   make(map[poolKey]error),
	}
}

// end closes all links for good.
func (a *account) end() {
	for _, g := range a.goals {
		for _, sl := range g.slots {
			sl.stop()
		}
	}
	for l := range a.links {
		l.close(nil)
	}
	for len(a.broken) > 0 {
		a.giveUp(a.broken[0])
	}
	delete(a.svc.accounts, a.name)
}

// best returns the link that is up and has the fewest miners, of those to the most preferred pool; nil if none is up. One
// of another goal than g is better than none.
func (a *account) best(g *goal) *link {
	strange := func(l *link) int {
		if l.slot.goal != g {
			return 1
		}
		return 0
	}
	var best *link
	for l := range a.links {
		if !l.up() || l.replaced {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(strange(l), strange(best)), cmp.Compare(l.rank(), best.rank()),
			cmp.Compare(len(l.miners), len(best.miners))) < 0 {
			best = l
		}
	}
	return best
}

// take has a miner served that has logged in: by the goal that it had before, if there still is that.
func (a *account) take(m *miner, before *goal) {
	a.miners[m] = struct{}{}
	m.load = a.mean
	if !slices.Contains(a.goals, before) {
		before = a.lacking()
	}
	a.aim(m, before)
	if l := a.best(m.goal); l != nil {
		l.take(m)
	} else {
		m.wait()
	}
}

// release forgets a miner.
func (a *account) release(m *miner) {
	for l := range a.links {
		l.release(m)
	}
	delete(a.miners, m)
	a.unaim(m)
	if len(a.miners) == 0 {
		a.left = a.svc.now
	}
}

// linkUp gives a link that can be mined on its miners: those who wait, those of its goal who are elsewhere, and a fair part
// of those on other links of the goal.
func (a *account) linkUp(l *link) {
	a.away = time.Time{}
	a.standIn = nil
	delete(a.errs, l.target.key())
	g, links := l.slot.goal, 0
	for other := range a.links {
		if other.slot.goal == g {
			links++
		}
	}
	fair := (g.miners + links - 1) / max(links, 1)
	for m := range a.miners {
		to := l
		switch {
		case l.over: // it has not taken them all
			return
		case m.link == nil, m.link.replaced:
			to = a.best(m.goal)
		case m.goal != g || m.link == l:
			continue
		case m.link.slot.goal != g, m.link.rank() > l.rank():
		case len(l.miners) < fair && len(m.link.miners) > fair:
		default:
			continue
		}
		m.move(to)
		m.settle()
	}
}

// linkDown finds other links for the miners of one that has ended.
func (a *account) linkDown(l *link, why error) {
	delete(a.links, l)
	if why != nil {
		a.errs[l.target.key()] = why
	}
	if a.best(nil) == nil && a.away.IsZero() {
		a.away = a.svc.now
	}
	for _, m := range l.miners {
		m.link = nil
		if other := a.best(m.goal); other != nil {
			m.move(other)
			m.settle()
		} else {
			m.wait()
		}
	}
	clear(l.miners)
}

// tick sees to what is due.
func (a *account) tick() {
	s := a.svc
	for l := range a.links {
		l.tick()
	}
	a.sweepBroken()
	a.balance()
	switch {
	case len(a.miners) == 0 && s.cfg.MultiUser && s.now.Sub(a.left) > accountGrace:
		s.log.Info().Str("account", a.name).Msg("nobody mines for the account any more")
		a.end()
	case a.away.IsZero() || len(a.miners) == 0:
	case s.cfg.KeepMiners:
		if len(a.broken) == 0 { // until then what they have may still be of use
			a.standInFor()
		}
	case s.now.Sub(a.away) > s.cfg.Patience.Std():
		for m := range a.miners {
			if m.link == nil && s.now.Sub(m.waiting) > s.cfg.Patience.Std() {
				m.finish(errNoPool)
				m.settle()
			}
		}
	}
}

// fault says why miners of the account have nothing to do; nil: they have.
func (a *account) fault() error {
	if a.away.IsZero() || len(a.miners) == 0 && a.svc.cfg.MultiUser {
		return nil
	}
	who := ""
	if a.name != "" {
		who = fmt.Sprintf(" for account %s", a.name)
	}
	var errs []error
	said := make(map[poolKey]bool)
	for _, r := range a.svc.routes {
		for _, t := range r.targets {
			if err := a.errs[t.key()]; err != nil && !said[t.key()] {
				errs = append(errs, fmt.Errorf("no pool%s: %s: %w", who, t.Addr, err))
				said[t.key()] = true
			}
		}
	}
	if len(errs) == 0 {
		return errors.New("no pool has been reached yet" + who)
	}
	return errors.Join(errs...)
}

// standInDifficulty has no miner find a share for a job that is none: a share that nobody takes must not be answered as
// if it were good.
const standInDifficulty = 1 << 62

// standInFor gives all miners without a link something to do: the last job with a time of its own, which nobody can be
// paid for.
func (a *account) standInFor() {
	s := a.svc
	if a.last == nil || a.standIn != nil && s.now.Sub(a.standIn.since) < s.cfg.StandInInterval.Std() {
		return
	}
	j := *a.last
	j.Time = uint32(s.now.Unix())
	s.metrics.jobs.WithLabelValues("stand-in").Inc()
	a.standIn = newWork(nil, &j, s.now)
	for m := range a.miners {
		if m.link == nil {
			m.difficulty = standInDifficulty
			m.announce(a.standIn, true)
			m.settle()
		}
	}
}
