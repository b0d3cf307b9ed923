package sserver

import (
	"context"
	"slices"
)

// onLoops has all loops do something.
func (s *Service) onLoops(do func(*loop)) {
	for _, l := range s.loops {
		l.Post(func() { do(l) })
	}
}

// post has the session's loop do something with it, unless it is over by then.
func (s *session) post(do func()) {
	s.loop.Post(func() { s.loop.visit(s, func(*session) { do() }) })
}

// allSessions returns those there are now, as far as the loops tell before ctx ends. What is done with them is done by
// session.post or Service.visit.
func (s *Service) allSessions(ctx context.Context) []*session {
	var all []*session
	for _, l := range s.loops {
		_ = l.Call(ctx, func() { all = append(all, l.sessions...) }) // those of the others are enough
	}
	return all
}

// visitStep is how many sessions are visited in a turn of their loop.
const visitStep = 256

// visit has the loops do something with each of some sessions that is not over by then. It does not keep the loops from
// their work for long.
func (s *Service) visit(ctx context.Context, sessions []*session, do func(*session)) error {
	for _, l := range s.loops {
		var own []*session
		for _, session := range sessions {
			if session.loop == l {
				own = append(own, session)
			}
		}
		for step := range slices.Chunk(own, visitStep) {
			if err := l.Call(ctx, func() {
				for _, session := range step {
					l.visit(session, do)
				}
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loop) visit(s *session, do func(*session)) {
	if !s.over {
		defer l.settle(s)
		do(s)
	}
}
