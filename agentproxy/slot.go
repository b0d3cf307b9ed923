package agentproxy

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/retry"
)

// slot keeps one link of a goal up: to the first pool that can be reached, in the order of preference.
type slot struct {
	goal    *goal
	log     zerolog.Logger
	changed retry.Bell // rung when the goal has another plan

	// The loop's.
	cancel context.CancelFunc // nil: nothing is done yet
	ended  bool
	first  *link // that it has when it starts, of the process before; nil: none

	complaints map[poolKey]complaint // of pools that cannot be reached
}

// complaint is what was said last.
type complaint struct {
	text string
	at   time.Time
}

// complaintPause is how often the same is said again.
const complaintPause = time.Minute

// retryPace is how long a slot waits after no pool could be reached.
var retryPace = retry.Pace{First: 500 * time.Millisecond, Longest: 5 * time.Second}

func newSlot(g *goal, i int) *slot {
	return &slot{
		goal:    g,
		log:     g.acct.svc.log.With().Str("account", g.account()).Int("link", i).Logger(),
		changed: retry.NewBell(),
	}
}

// start has links made, if it has not yet.
func (sl *slot) start() {
	if sl.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	sl.cancel = cancel
	l := sl.first
	sl.first = nil
	sl.goal.acct.svc.goroutines.Go(func() { sl.run(ctx, l) })
}

// run begins with l, unless that is nil.
func (sl *slot) run(ctx context.Context, l *link) {
	if l != nil {
		sl.keep(ctx, l)
	}
	pauses := retryPace.Pauses()
	for ctx.Err() == nil {
		p := sl.goal.plan.Load()
		l := sl.reach(ctx, p, len(p.targets))
		if l == nil {
			select {
			case <-ctx.Done():
			case <-sl.changed:
				pauses.Reset()
			case <-time.After(pauses.NextBackOff()):
			}
			continue
		}
		pauses.Reset()
		sl.keep(ctx, l)
	}
}

// stop has no more links made.
func (sl *slot) stop() {
	sl.ended = true
	if sl.cancel != nil {
		sl.cancel()
	}
}

// end stops the slot. A link that is up ends when its miners have gone elsewhere.
func (sl *slot) end() {
	sl.stop()
	for l := range sl.goal.acct.links {
		switch {
		case l.slot != sl:
		case l.up():
			l.replace()
		default:
			l.close(nil)
		}
	}
}

// reach returns a link that is up, to the first of the plan's pools before the one numbered below, or nil.
func (sl *slot) reach(ctx context.Context, p *plan, below int) *link {
	for _, t := range p.targets[:below] {
		if ctx.Err() != nil {
			return nil
		}
		if l := sl.link(ctx, p, t); l != nil {
			return l
		}
	}
	return nil
}

// keep returns when l, or whatever has taken its place, has ended. From a pool that is not the first it goes to one
// before it as soon as that can be mined at.
func (sl *slot) keep(ctx context.Context, l *link) {
	for {
		p := sl.goal.plan.Load()
		rank := p.rank(l.target)
		var again <-chan time.Time
		switch rank {
		case 0:
		case len(p.targets):
			again = time.After(retryPace.Longest)
		default:
			again = time.After(p.again)
		}
		select {
		case <-l.ended:
			return
		case <-ctx.Done():
			return
		case <-again:
		case <-sl.changed:
			p = sl.goal.plan.Load()
			rank = p.rank(l.target)
		}
		if better := sl.reach(ctx, p, rank); better != nil {
			sl.log.Info().Str("from", l.addr()).Str("to", better.addr()).Msg("going over to a preferred pool")
			old := l
			sl.goal.acct.svc.loop.Post(func() { old.replace() })
			l = better
		}
	}
}

// link returns a link that is up, or nil after it has said why there is none.
func (sl *slot) link(ctx context.Context, p *plan, t target) *link {
	s := sl.goal.acct.svc
	if err := s.shunned.err(t, time.Now()); err != nil {
		sl.complain(t, err)
		return nil
	}
	up, err := p.dialer.dial(ctx, t.Pool)
	if err != nil {
		sl.failed(ctx, t, err)
		return nil
	}
	l, err := newLink(sl, t, up, p.writeTimeout)
	if err != nil {
		sl.failed(ctx, t, err)
		return nil
	}
	if !s.loop.Post(l.begin) {
		l.conn.Close()
		return nil
	}
	select {
	case <-l.ready:
		return l
	case <-l.ended:
		sl.failed(ctx, t, l.why)
		return nil
	}
}

func (sl *slot) failed(ctx context.Context, t target, err error) {
	if ctx.Err() != nil || err == nil {
		return
	}
	s := sl.goal.acct.svc
	s.metrics.dials.WithLabelValues("failed").Inc()
	sl.complain(t, err)
	s.loop.Post(func() { sl.goal.acct.errs[t.key()] = err })
}

// complain says why there is no link, unless it has said so within the last minute.
func (sl *slot) complain(t target, err error) {
	if said := sl.complaints[t.key()]; said.text != err.Error() || time.Since(said.at) >= complaintPause {
		if sl.complaints == nil {
			sl.complaints = make(map[poolKey]complaint)
		}
		sl.complaints[t.key()] = complaint{err.Error(), time.Now()}
		sl.log.Warn().Err(err).Str("pool", t.Addr).Msg("no link to the pool")
	}
}
