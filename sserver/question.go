package sserver

import (
	"context"
	"net/netip"

	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/userchain"
)

// question is what a session waits for: who a user is, or the end of another session.
type question struct {
	// Worker logs in, with Wishes, when its user's id is known.
	Worker worker
	Wishes v1.Wishes
	// Chain is the one that the session is on, ByNode says that it is to be where the user's node says.
	Chain  uint8
	ByNode bool
	// Ends is the session that is to end; 0: none, there is a login.
	Ends uint32
}

// ask has a question answered. Nothing is handled until then.
func (s *session) ask(q *question) {
	s.Question = q
	find := s.find
	switch {
	case q.Ends != 0:
		find = s.endAsked
	case q.ByNode:
		find = s.findByNode
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
	id, err := s.port.users[q.Chain].ID(context.Background(), q.Worker.UserName) // has a deadline of its own
	return func() {
		if s.Chain != q.Chain && err == nil { // moved meanwhile
			var ok bool
			if id, ok = s.userID(q.Worker.UserName); !ok {
				err = errMoved
			}
		}
		q.Worker.UserID = id
		sc := &s.loop.sc
		sc.out = s.protocol.loggedIn(sc.out, s.found(q.Worker, q.Wishes, err))
	}
}

// findByNode asks where the user of a session's first worker is to be, and for its id there.
func (s *session) findByNode(q question, _ netip.Addr) (answer func()) {
	board := s.srv.board
	at, err := board.begin(context.Background(), q.Worker.UserName, userchain.Request{SessionID: s.ID, Worker: q.Worker.Login})
	return func() {
		q.Worker.UserID = at.id
		if err == nil {
			s.setChain(at.chain)
			s.takeSubPool(at.subPool)
		}
		status := s.found(q.Worker, q.Wishes, err)
		if status.IsAccepted() {
			board.join(s)
		}
		sc := &s.loop.sc
		sc.out = s.protocol.loggedIn(sc.out, status)
	}
}

// endAsked ends the session that hangs.
func (s *session) endAsked(q question, ip netip.Addr) (answer func()) {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	s.srv.endSession(ctx, func(other *session) bool { return other.ID == q.Ends && other.IP == ip && other.Farm != nil })
	return func() {}
}
