package agentproxy

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/retry"
)

// slot keeps one link up: to the first pool that can be reached, in the order of the configuration.
type slot struct {
	acct *account
	log  zerolog.Logger

	complaint  string // what was said last about pools that cannot be reached
	complained time.Time
}

// complaintPause is how often the same is said again.
const complaintPause = time.Minute

// retryPace is how long a slot waits after no pool could be reached.
var retryPace = retry.Pace{First: 500 * time.Millisecond, Longest: 5 * time.Second}

func (sl *slot) run(ctx context.Context) {
	pauses := retryPace.Pauses()
	for ctx.Err() == nil {
		l := sl.first(ctx, len(sl.acct.svc.cfg.Pools))
		if l == nil {
			retry.Sleep(ctx, pauses.NextBackOff())
			continue
		}
		pauses.Reset()
		sl.keep(ctx, l)
	}
}

// first returns a link that is up, to the first of the pools before the one numbered below, or nil.
func (sl *slot) first(ctx context.Context, below int) *link {
	for i := range below {
		if l := sl.link(ctx, i); l != nil {
			return l
		}
	}
	return nil
}

// keep returns when l, or whatever has taken its place, has ended. From a pool that is not the first it returns to one
// before it as soon as that can be mined at.
func (sl *slot) keep(ctx context.Context, l *link) {
	for {
		var again <-chan time.Time
		if l.pool > 0 {
			again = time.After(sl.acct.svc.cfg.ReturnInterval.Std())
		}
		select {
		case <-l.ended:
			return
		case <-again:
		}
		if better := sl.first(ctx, l.pool); better != nil {
			sl.log.Info().Str("from", l.addr()).Str("to", better.addr()).Msg("back at the preferred pool")
			old := l
			sl.acct.svc.loop.Post(func() { old.replace() })
			l = better
		}
	}
}

// link returns a link to pool number i that is up, or nil after it has said why there is none.
func (sl *slot) link(ctx context.Context, i int) *link {
	s := sl.acct.svc
	p := s.cfg.Pools[i]
	up, err := s.dialer.dial(ctx, p)
	if err != nil {
		sl.failed(ctx, p, err)
		return nil
	}
	l := newLink(sl, i, up)
	if !s.loop.Post(l.begin) {
		_ = up.Close()
		return nil
	}
	select {
	case <-l.ready:
		return l
	case <-l.ended:
		sl.failed(ctx, p, l.why)
		return nil
	}
}

func (sl *slot) failed(ctx context.Context, p Pool, err error) {
	if ctx.Err() != nil {
		return
	}
	sl.acct.svc.metrics.dials.WithLabelValues("failed").Inc()
	if complaint := p.Addr + err.Error(); complaint != sl.complaint || time.Since(sl.complained) >= complaintPause {
		sl.complaint, sl.complained = complaint, time.Now()
		sl.log.Warn().Err(err).Str("pool", p.Addr).Msg("no link to the pool")
	}
	sl.acct.svc.loop.Post(func() { sl.acct.lastErr = err })
}
