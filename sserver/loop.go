package sserver

import (
	"cmp"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"btcpool/internal/poll"
)

const (
	// readBytes is what one session may have handled in a turn of its loop.
	readBytes = 4 << 10
	// tourStep is how many sessions hear of a new job before others are looked at.
	tourStep = 128
	// maxSync is how long a sync may take until shares are read one by one again.
	maxSync = 20 * time.Millisecond
	// tickInterval is how exact pauses are.
	tickInterval = 100 * time.Millisecond
	// sweepTicks is how many ticks a sweep of all sessions takes: how exact their deadlines are.
	sweepTicks = 10
)

// loop serves a part of all sessions: it reads, judges, answers and tells of jobs, all in one goroutine, so that
// nothing of a session needs a lock. It waits for nobody, but for the disk when a block was solved.
//
// Whatever works on a session ends with settle.
type loop struct {
	*poll.Loop
	srv      *Service
	sessions []*session
	now      time.Time // when the turn began
	sc       scratch
	in       [readBytes]byte

	held     []heldAnswer // oldest first
	heldText []byte       // the answers themselves, one after the other
	durable  []uint64     // by chain: records up to this one are on disk
	failure  error        // what the disk said last when it failed
	paused   []*session   // some may have ended since

	toTell   int         // sessions before this place are to hear what is new
	nextTour time.Time   // when difficulties are looked at next
	tours    []chainTour // by chain
	toCheck  int         // sessions from this place on have not been swept yet
	leaving  bool        // all sessions are to end
	ahead    []*ahead    // sessions that went ahead, to another process or from it
	move     *move       // what is to pass to another process, when all answers have left; nil: nothing
}

// chainTour is what a loop knows of a chain's miners by its tours.
type chainTour struct {
	round    *round // the latest when the tour went on; nil: none yet
	told     uint64 // number of the latest that all have heard of
	counting spread // difficulties in the tour in progress
	counted  spread // difficulties in the last tour
}

func newLoop(srv *Service) (*loop, error) {
	l, err := poll.NewLoop()
	if err != nil {
		return nil, err
	}
	return &loop{srv: srv, Loop: l, tours: make([]chainTour, len(srv.chains)), durable: make([]uint64, len(srv.chains))}, nil
}

// run serves sessions until there are none after leave. The error is the system's.
func (l *loop) run() error {
	defer l.Close()
	l.newRound()
	// An earlier run was told to leave, and may have kept answers to sessions that were cut.
	l.leaving = false
	clear(l.held)
	l.held, l.heldText = l.held[:0], l.heldText[:0]
	for !l.leaving || len(l.sessions) > 0 {
		l.gather()
		if err := l.Wait(l.toTell == 0); err != nil {
			return err
		}
		l.now = time.Now()
		l.Turn()
		l.tour()
		if l.move != nil && len(l.held) == 0 {
			l.handOver()
		}
	}
	return nil
}

// gather sleeps until shares are synced next. Those that are read earlier would only wait, each with a wake-up of its own,
// which costs more than to read and judge it. What is posted has its turn at once: a new job, answers whose shares are
// on disk, and the question for what has arrived, before the next sync.
func (l *loop) gather() {
	wait := time.Until(l.srv.nextSync())
	if l.toTell > 0 || wait <= 0 && len(l.held) == 0 {
		return
	}
	l.Gather(max(wait, 0) + maxSync)
}

// writeBy returns until when links must take what they did not take now.
func (l *loop) writeBy() time.Time { return l.now.Add(l.srv.cfg.WriteTimeout.Std()) }

// add takes on a session.
func (l *loop) add(s *session) {
	s.pos = len(l.sessions)
	l.sessions = append(l.sessions, s)
	defer l.settle(s)
	if s.ahead { // its link is the loop's already
		s.ahead = false
	} else if err := s.link.Attach(l.Loop, s); err != nil {
		l.srv.log.Error().Err(err).Msg("connection not served")
		s.fail(nil)
	}
	if l.leaving {
		s.finish(nil)
	}
}

// remove forgets a session that is over.
func (l *loop) remove(s *session) {
	s.link.Close()
	last := l.sessions[len(l.sessions)-1]
	l.sessions[s.pos], last.pos = last, s.pos
	l.sessions[len(l.sessions)-1] = nil
	l.sessions = l.sessions[:len(l.sessions)-1]
	s.pos = -1
	l.srv.open.Add(-1)
}

// Serve goes on with a session that had to wait for its link.
func (s *session) Serve(r poll.Readiness) {
	if s.loop.move != nil {
		return
	}
	defer s.loop.settle(s)
	if r&poll.Broken != 0 {
		s.fail(nil)
		return
	}
	if r&poll.CanWrite != 0 {
		s.flush()
	}
	if r&poll.CanRead != 0 {
		s.read()
	}
}

// settle does what follows from what was done with a session: it ends it, or sees to it that its link is heard. It is
// deferred: a fault of the program costs this session only.
func (l *loop) settle(s *session) {
	if fault := recover(); fault != nil {
		l.srv.metrics.panics.Inc()
		l.srv.log.Error().Str("session", s.sessionID()).Interface("fault", fault).Bytes("stack", debug.Stack()).Msg("session failed")
		s.fail(nil)
	}
	s.since = true
	if s.pos < 0 {
		return
	}
	if s.closing && !s.over && (s.cut || s.held == 0 && s.Question == nil) {
		s.over = true
		s.readBy = l.writeBy()
		l.srv.disconnect(s, l.now)
	}
	if s.over && (s.cut || s.outbox.Len() == 0 && s.link.Sent()) {
		if !s.linger() {
			l.remove(s)
			return
		}
	}
	s.link.Want(s.reads(), s.outbox.Len() > 0)
}

// newRound makes all sessions hear of the latest round.
func (l *loop) newRound() {
	for i := range l.tours {
		l.tours[i].counting = spread{}
	}
	if l.toTell = len(l.sessions); l.toTell == 0 {
		l.count()
	}
}

// tour refreshes the next of the sessions that have to be. It goes from the last to the first: a session that is moved
// to the place of one that ended is not left out.
func (l *loop) tour() {
	if l.toTell == 0 {
		return
	}
	for i, c := range l.srv.chains {
		l.tours[i].round = c.jobs.round.Load()
	}
	for range tourStep {
		l.toTell = min(l.toTell, len(l.sessions))
		if l.toTell == 0 {
			break
		}
		l.toTell--
		l.refresh(l.sessions[l.toTell])
	}
	if l.toTell > 0 {
		return
	}
	l.count()
	for i, c := range l.srv.chains {
		if t := &l.tours[i]; t.round != nil && t.round.number > t.told {
			t.told = t.round.number
			c.metrics.broadcastSeconds.Observe(time.Since(t.round.start).Seconds())
		}
	}
	l.order()
}

// count shows the difficulties that the tour has met.
func (l *loop) count() {
	for i, c := range l.srv.chains {
		c.metrics.spread(&l.tours[i].counted, &l.tours[i].counting)
	}
}

func (l *loop) refresh(s *session) {
	defer l.settle(s)
	s.refresh()
	s.hashrate = 0
	if !s.Ready || s.Tip == 0 {
		return
	}
	if s.Grand {
		s.hashrate = math.MaxFloat64 // who knows how many mine there
	}
	counting := &l.tours[s.Chain].counting
	if s.Farm == nil {
		counting.add(&s.Miner)
		s.hashrate = max(s.hashrate, s.Miner.announced().Float())
		return
	}
	for _, m := range s.Farm.Miners {
		counting.add(&m.miner)
		s.hashrate += m.announced().Float()
	}
}

// order has grand pools' clients, and then the sessions with the most hashrate, be the first that hear of the next job.
// They come and go, and their difficulties with them: between two tours that is of no account.
func (l *loop) order() {
	slices.SortStableFunc(l.sessions, func(a, b *session) int { return cmp.Compare(a.hashrate, b.hashrate) })
	for i, s := range l.sessions {
		s.pos = i
	}
}

// tick sees to what is due. It is called once each tickInterval.
func (l *loop) tick() {
	l.unpause()
	if !l.now.Before(l.nextTour) {
		l.nextTour = l.now.Add(l.srv.cfg.ShareInterval.Std())
		l.newRound()
	}
	l.sweep()
}

// unpause lets sessions go on.
func (l *loop) unpause() {
	rest := l.paused[:0]
	for _, s := range l.paused {
		if l.now.Before(s.pausedUntil) {
			rest = append(rest, s)
			continue
		}
		s.pausedUntil = time.Time{}
		l.settle(s)
	}
	clear(l.paused[len(rest):])
	l.paused = rest
}

// sweep looks at the deadlines of some sessions, from the last to the first.
func (l *loop) sweep() {
	if l.toCheck = min(l.toCheck, len(l.sessions)); l.toCheck == 0 {
		l.toCheck = len(l.sessions)
	}
	for range (len(l.sessions) + sweepTicks - 1) / sweepTicks {
		if l.toCheck = min(l.toCheck, len(l.sessions)); l.toCheck == 0 {
			return
		}
		l.toCheck--
		l.check(l.sessions[l.toCheck])
	}
}

func (l *loop) check(s *session) {
	late := l.now.After(s.readBy)
	switch {
	case s.outbox.Late(l.now):
		s.fail(poll.ErrSlow)
	case s.over && late:
		s.fail(nil)
	case !s.closing && s.Question == nil && late:
		s.finish(os.ErrDeadlineExceeded)
	case s.reassures():
		s.reassure()
	default:
		return
	}
	l.settle(s)
}

// leave ends all sessions when what was read is answered, and the loop with the last of them.
func (l *loop) leave() {
	l.leaving = true
	l.endAll((*session).finish)
}

// cutAll ends all sessions at once.
func (l *loop) cutAll() { l.endAll((*session).fail) }

func (l *loop) endAll(how func(*session, error)) {
	for i := len(l.sessions) - 1; i >= 0; i-- {
		s := l.sessions[i]
		how(s, nil)
		l.settle(s)
	}
}
