package agentproxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/job"
	v1 "btcpool/internal/stratum/v1"
)

// account is whom miners mine for, and the links that carry them.
type account struct {
	svc    *Service
	name   string // "": that of the pool in use
	cancel context.CancelFunc

	links  map[*link]struct{}  // all that have not ended
	miners map[*miner]struct{} // all that are logged in, with a link or without

	left    time.Time       // since when there are no miners
	away    time.Time       // since when no link is up; zero: one is
	last    *job.StratumJob // of the last job, for stand-ins
	standIn *work
	lastErr error // why the last link ended or could not be had
}

// accountGrace is how long the links of an account without miners are kept: those that come back find them.
const accountGrace = time.Minute

func newAccount(s *Service, name string) *account {
	ctx, cancel := context.WithCancel(context.Background())
	a := &account{
		svc:    s,
		name:   name,
		cancel: cancel,
		links:  make(map[*link]struct{}),
		miners: make(map[*miner]struct{}),
		away:   s.now,
		left:   s.now,
	}
	for i := range s.cfg.Links {
		sl := &slot{acct: a, log: s.log.With().Str("account", name).Int("link", i).Logger()}
		s.goroutines.Go(func() { sl.run(ctx) })
	}
	return a
}

// end closes all links for good.
func (a *account) end() {
	a.cancel()
	for l := range a.links {
		l.close(nil)
	}
	delete(a.svc.accounts, a.name)
}

// best returns the link that is up and has the fewest miners, of those the first pool's; nil if none is up.
func (a *account) best() *link {
	var best *link
	for l := range a.links {
		if !l.up() || l.replaced {
			continue
		}
		if best == nil || l.pool < best.pool || l.pool == best.pool && len(l.miners) < len(best.miners) {
			best = l
		}
	}
	return best
}

// take has a miner served that has logged in.
func (a *account) take(m *miner) {
	a.miners[m] = struct{}{}
	if l := a.best(); l != nil {
		l.take(m)
	} else {
		m.wait()
	}
}

// release forgets a miner.
func (a *account) release(m *miner) {
	if m.link != nil {
		m.link.release(m)
	}
	delete(a.miners, m)
	if len(a.miners) == 0 {
		a.left = a.svc.now
	}
}

// linkUp gives a link that can be mined on its miners: those who wait, and a fair part of those on others.
func (a *account) linkUp(l *link) {
	a.away = time.Time{}
	a.standIn = nil
	fair := (len(a.miners) + len(a.links) - 1) / max(len(a.links), 1)
	for m := range a.miners {
		switch {
		case m.link == nil, m.link.replaced, m.link.pool > l.pool:
			m.move(l)
		case m.link != l && len(l.miners) < fair && len(m.link.miners) > fair:
			m.move(l)
		}
	}
}

// linkDown finds other links for the miners of one that has ended.
func (a *account) linkDown(l *link, why error) {
	delete(a.links, l)
	if why != nil {
		a.lastErr = why
	}
	other := a.best()
	if other == nil && a.away.IsZero() {
		a.away = a.svc.now
	}
	for _, m := range l.miners {
		m.link = nil
		if other = a.best(); other != nil {
			m.move(other)
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
	switch {
	case len(a.miners) == 0 && s.cfg.MultiUser && s.now.Sub(a.left) > accountGrace:
		s.log.Info().Str("account", a.name).Msg("nobody mines for the account any more")
		a.end()
	case a.away.IsZero() || len(a.miners) == 0:
	case s.cfg.KeepMiners:
		a.standInFor()
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
	if a.lastErr == nil {
		return errors.New("no pool has been reached yet" + who)
	}
	return fmt.Errorf("no pool%s: %w", who, a.lastErr)
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
	a.standIn = &work{job: v1.NewWholeJob(&j, agentwire.MinerExtraNonce2Size), time: j.Time, since: s.now}
	for m := range a.miners {
		if m.link == nil {
			m.difficulty = standInDifficulty
			m.announce(a.standIn, true)
			m.settle()
		}
	}
}
