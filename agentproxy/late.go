package agentproxy

import (
	"slices"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/share"
)

// What becomes of shares for jobs of a link that their miner is not on any more: one that is up takes them, where the
// miner stays registered for a while. One that broke may be gone on with by another link, if the pool gives that the
// same extranonce1; until then they are held.

const (
	// lateFor is for how long a link that miners have left takes their shares.
	lateFor = 10 * time.Second
	// heldFor is for how long shares of a link that broke are held: later, the chain has most likely grown.
	heldFor = 45 * time.Second
	// maxHeld is how many of them are held, some 200 bytes each: those of a large farm within 16 seconds.
	maxHeld = 1 << 14
	// maxTries is how many links may break on a share.
	maxTries = 3
)

// guest is a miner that has left a link, where shares of it may still come.
type guest struct {
	miner      *miner
	difficulty float64 // the pool's
	until      time.Time
}

// host has the pool know a miner whose share is to follow.
func (l *link) host(m *miner) {
	if m.link == l {
		return
	}
	g, known := l.guests[m.number]
	if !known {
		g = guest{miner: m, difficulty: l.difficulty}
		l.introduce(m)
	}
	g.until = l.acct.svc.now.Add(lateFor)
	l.guests[m.number] = g
}

// keep has a miner that leaves stay registered for a while.
func (l *link) keep(m *miner) {
	delete(l.miners, m.number)
	m.link = nil
	l.guests[m.number] = guest{m, m.difficulty, l.acct.svc.now.Add(lateFor)}
}

// sweepGuests lets those go whose shares have come or will not.
func (l *link) sweepGuests() {
	for number, g := range l.guests {
		if l.acct.svc.now.After(g.until) {
			delete(l.guests, number)
			l.unregister(number)
		}
	}
}

// current returns the link that goes on with l, or l.
func (l *link) current() *link {
	for l.heir != nil {
		l = l.heir
	}
	return l
}

// knowsAgain reports whether the pool knows a share that it has had on a link before: agents' pools that have sessions
// must. Of others nobody knows, so they get no share twice.
func (l *link) knowsAgain() bool { return l.agent }

// breaks has a link that has broken, with shares whose verdicts are awaited, wait for one that goes on with it.
func (a *account) breaks(l *link, awaited []question) {
	if len(a.broken) >= a.svc.cfg.Links*len(a.goals) {
		a.giveUp(a.broken[0])
	}
	a.broken = append(a.broken, l)
	l.brokeAt = a.svc.now
	for _, q := range awaited {
		switch {
		case q.tries > 0 && !l.knowsAgain(), q.tries == maxTries, !l.hold(q):
			l.inVain(q)
		}
	}
}

// hold keeps a share for whoever goes on with l, if somebody may and there are not too many. A block is kept in any case.
func (l *link) hold(q question) bool {
	s := l.acct.svc
	if !slices.Contains(l.acct.broken, l) || s.held >= maxHeld && !q.block {
		return false
	}
	s.held++
	s.metrics.held.Inc()
	l.late = append(l.late, q)
	return true
}

// letGo returns what was held for l.
func (a *account) letGo(l *link) []question {
	a.broken = slices.DeleteFunc(a.broken, func(b *link) bool { return b == l })
	late := l.late
	l.late = nil
	a.svc.held -= len(late)
	return late
}

// giveUp says of shares held for l that they were in vain.
func (a *account) giveUp(l *link) {
	for _, q := range a.letGo(l) {
		l.inVain(q)
	}
}

func (l *link) inVain(q question) {
	if q.tries > 0 {
		l.unanswered(q, "link lost")
		return
	}
	l.acct.svc.metrics.lost.WithLabelValues("link lost").Inc()
	q.miner.judged(q, share.StatusStale)
}

// sweepBroken gives up links that nobody goes on with.
func (a *account) sweepBroken() {
	for len(a.broken) > 0 && a.svc.now.Sub(a.broken[0].brokeAt) > heldFor {
		a.giveUp(a.broken[0])
	}
}

// predecessor returns a broken link that a new one may go on with.
func (a *account) predecessor(of *link) *link {
	for _, b := range a.broken {
		if b.follower == nil && b.target.key() == of.target.key() && b.agent == of.agent {
			b.follower = of
			return b
		}
	}
	return nil
}

// goOn delivers what was held for the link whose session l has taken on.
func (l *link) goOn() {
	before := l.before
	if l.before = nil; before == nil {
		return
	}
	before.heir = l
	type key struct {
		work   *work
		number uint16
		solution
	}
	sent := make(map[key]struct{})
	for _, q := range l.acct.letGo(before) {
		k := key{q.work, q.miner.number, q.solution}
		if _, known := sent[k]; known {
			q.miner.judged(q, share.StatusDuplicate)
			continue
		}
		sent[k] = struct{}{}
		l.deliverLate(q)
	}
	l.flush()
}

// deliverLate sends a share that was held. Whether its miner has left meanwhile, and its number may be another's, is to
// be seen first.
func (l *link) deliverLate(q question) {
	s := l.acct.svc
	if q.miner.pos < 0 {
		l.inVain(q)
		return
	}
	if !l.over {
		l.host(q.miner)
	}
	if l.over { // it did not last
		if !l.hold(q) {
			l.inVain(q)
		}
		return
	}
	s.metrics.late.Inc()
	if q.id != nil && !l.target.verdicts {
		q.miner.answer(q.id, share.StatusAccept)
		q.id = nil
	}
	q.at = s.now
	if !l.submit(q) {
		q.miner.judged(q, share.StatusAccept)
	}
}

// introduce tells the pool of a miner, behind what was said before.
func (l *link) introduce(m *miner) {
	if !l.agent {
		l.authorizeWorker(m.worker)
		return
	}
	l.pack()
	l.batch = agentwire.Register{Session: agentwire.Session(m.number), Agent: m.software, Worker: m.worker}.AppendTo(l.batch)
	l.flushSoon()
}

// unregister tells an agent's pool that a miner has gone.
func (l *link) unregister(number uint16) {
	if !l.agent {
		return
	}
	l.pack()
	l.batch = agentwire.Unregister{Session: agentwire.Session(number)}.AppendTo(l.batch)
	l.flushSoon()
}
