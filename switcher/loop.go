package switcher

import (
	"runtime/debug"
	"time"

	"btcpool/internal/chainwatch"
	"btcpool/internal/poll"
)

const (
	// readBytes is what one connection may have handled in a turn of its loop.
	readBytes = 16 << 10
	// tickInterval is how exact pauses are.
	tickInterval = 100 * time.Millisecond
	// sweepTicks is how many ticks a sweep of all sessions takes: how exact their deadlines are.
	sweepTicks = 10
)

// loop serves a part of all sessions, each with all of its connections, in one goroutine, so that nothing of a session
// needs a lock. It waits for nobody.
//
// Whatever works on a session begins with begin and ends with settle.
type loop struct {
	*poll.Loop
	srv      *Service
	sessions []*session
	users    map[string]map[*session]struct{} // those that have logged in, by user
	due      map[*session]struct{}            // those that want something done at a time
	left     map[*upstream]struct{}           // connections to servers of which nothing more is wanted
	now      time.Time                        // when the turn began
	toCheck  int                              // sessions from this place on have not been swept yet
	leaving  bool                             // all sessions are to end

	in  [readBytes]byte
	out []byte // what the session that is worked on has to hear
	up  []byte // scratch for what servers have to
}

func newLoop(srv *Service) (*loop, error) {
	l, err := poll.NewLoop()
	if err != nil {
		return nil, err
	}
	return &loop{
		srv: srv, Loop: l,
		users: make(map[string]map[*session]struct{}), due: make(map[*session]struct{}), left: make(map[*upstream]struct{}),
	}, nil
}

// run serves sessions until there are none after leave. The error is the system's.
func (l *loop) run() error {
	defer l.Close()
	for !l.leaving || len(l.sessions) > 0 || len(l.left) > 0 {
		if err := l.Wait(true); err != nil {
			return err
		}
		l.now = time.Now()
		l.Turn()
	}
	return nil
}

// writeBy returns until when links must take what they did not take now.
func (l *loop) writeBy() time.Time { return l.now.Add(l.srv.cfg.WriteTimeout.Std()) }

// add takes on a session.
func (l *loop) add(s *session) {
	s.pos = len(l.sessions)
	l.sessions = append(l.sessions, s)
	defer l.settle(s)
	l.begin()
	if err := s.link.Attach(l.Loop, s); err != nil {
		l.srv.log.Error().Err(err).Msg("connection not served")
		s.fail(errFault)
	}
	if l.leaving {
		s.fail(errStopping)
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
	delete(l.due, s)
	l.srv.open.Add(-1)
}

// begin empties what was said to the session that was worked on last.
func (l *loop) begin() { l.out = l.out[:0] }

// settle does what follows from what was done with a session. It is deferred: a fault of the program costs this session
// only.
func (l *loop) settle(s *session) {
	if fault := recover(); fault != nil {
		l.srv.metrics.panics.Inc()
		l.srv.log.Error().Str("session", s.sessionID()).Interface("fault", fault).Bytes("stack", debug.Stack()).Msg("session failed")
		s.fail(errFault)
	}
	if s.pos < 0 {
		return
	}
	s.leaveBroken()
	if len(l.out) > 0 && !s.cut {
		if err := s.outbox.Send(s.link, l.out, maxUnsent, l.writeBy()); err != nil {
			s.fail(err)
		}
		l.out = l.out[:0]
	}
	if s.closing && !s.over {
		s.over = true
		s.readBy = l.writeBy()
		l.srv.disconnect(s, l.now)
	}
	if s.over && (s.cut || s.outbox.Len() == 0 && s.link.Sent()) && !s.linger() {
		l.remove(s)
		return
	}
	s.link.Want(s.reads(), s.outbox.Len() > 0)
	s.settleServers()
}

// keepUser has changes of a session's user found.
func (l *loop) keepUser(s *session) {
	of := l.users[s.Name.user]
	if of == nil {
		of = make(map[*session]struct{})
		l.users[s.Name.user] = of
	}
	of[s] = struct{}{}
}

func (l *loop) forgetUser(s *session) {
	of := l.users[s.Name.user]
	if delete(of, s); len(of) == 0 {
		delete(l.users, s.Name.user)
	}
}

// changed has the sessions of a user follow what its node says now.
func (l *loop) changed(user string, now chainwatch.Answer, at time.Time) {
	for s := range l.users[user] {
		l.visit(s, func() { s.follow(now, at) })
	}
}

// visit has f work on a session.
func (l *loop) visit(s *session, f func()) {
	defer l.settle(s)
	l.begin()
	if s.pos >= 0 && !s.over {
		f()
	}
}

// tick sees to what is due. It is called once each tickInterval.
func (l *loop) tick() {
	for s := range l.due {
		l.visit(s, s.act)
		if !s.waits() {
			delete(l.due, s)
		}
	}
	for u := range l.left {
		if l.now.After(u.until) {
			u.drop()
		}
	}
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
	defer l.settle(s)
	l.begin()
	s.check()
}

// leave ends all sessions, and the loop with the last of them.
func (l *loop) leave() {
	l.leaving = true
	for i := len(l.sessions) - 1; i >= 0; i-- {
		l.end(l.sessions[i])
	}
}

func (l *loop) end(s *session) {
	defer l.settle(s)
	l.begin()
	if link, ok := s.link.(interface{ Reset() }); ok { // many miners notice late that they were left
		link.Reset()
	}
	s.fail(errStopping)
}
