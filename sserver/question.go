package sserver

import (
	"context"
	"net/netip"

	v1 "btcpool/internal/stratum/v1"
)

// question is what a session waits for: who a user is, or the end of another session.
type question struct {
	// Worker logs in, with Wishes, when its user's id is known.
	Worker worker
	Wishes v1.Wishes
	// Ends is the session that is to end; 0: none, there is a login.
	Ends uint32
}

// ask has a question answered. Nothing is handled until then.
func (s *session) ask(q *question) {
	s.Question = q
	find := s.find
	if q.Ends != 0 {
		find = s.endAsked
	}
	ip := s.IP
	s.srv.goroutines.Go(func() {
		answer := find(*q, ip)
		s.loop.Post(func() { s.goOn(q, answer) })
	})
}

// goOn is called by the loop when a question is answered.
func (s *session) goOn(q *question, answer func()) {
	if s.over || s.Question != q {
		return
	}
	defer s.loop.settle(s)
	s.Question = nil
	s.loop.sc.reset()
	answer()
	s.proceed(s.pending, 1)
}

// find asks for the id of a user that logs in.
func (s *session) find(q question, _ netip.Addr) (answer func()) {
	id, err := s.port.users.ID(context.Background(), q.Worker.UserName) // has a deadline of its own
	return func() {
		q.Worker.UserID = id
		sc := &s.loop.sc
		sc.out = s.protocol.loggedIn(sc.out, s.found(q.Worker, q.Wishes, err))
	}
}

// endAsked ends the session that hangs.
func (s *session) endAsked(q question, ip netip.Addr) (answer func()) {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	s.srv.endSession(ctx, func(other *session) bool { return other.ID == q.Ends && other.IP == ip && other.Farm != nil })
	return func() {}
}
