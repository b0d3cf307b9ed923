package sserver

import (
	"time"

	"btcpool/sserver/operator"
)

// What may wait for one link, in bytes: dozens of jobs, and for an agent new difficulties of all its miners besides.
const (
	maxUnsent      = 64 << 10
	maxUnsentAgent = 512 << 10
)

// send does not wait and does not keep b. A miner that reads too slowly is cut off.
func (s *session) send(b []byte) {
	if len(b) == 0 || s.over || s.cut {
		return
	}
	s.said = s.loop.now
	s.port.bytesOut.Add(float64(len(b)))
	limit := maxUnsent
	if s.Farm != nil {
		limit = maxUnsentAgent
	}
	if err := s.outbox.Send(s.link, b, limit, s.loop.writeBy()); err != nil {
		s.fail(err)
	}
}

// reconnect sends the miner to another place.
func (s *session) reconnect(to operator.Place) {
	sc := &s.loop.sc
	sc.out = s.protocol.reconnect(sc.out[:0], to)
	s.send(sc.out)
}

// agentSilence is after what time an agent gets a sign of life: BTCAgent throws off its miners when it has heard
// nothing for 15 s after the login, or for 60 s later.
const agentSilence = 10 * time.Second

// reassures reports whether the session is an agent's and has heard nothing for long.
func (s *session) reassures() bool {
	return s.Farm != nil && s.Ready && !s.closing && s.loop.now.Sub(s.said) >= agentSilence
}

// reassure gives a sign of life.
func (s *session) reassure() {
	sc := &s.loop.sc
	sc.out = s.protocol.sign(sc.out[:0])
	s.send(sc.out)
}

// message has the miner show a text.
func (s *session) message(text string) {
	sc := &s.loop.sc
	sc.out = s.protocol.message(sc.out[:0], text)
	s.send(sc.out)
}

// flush sends what is waiting, as far as the link takes it.
func (s *session) flush() {
	if s.cut {
		return
	}
	if err := s.outbox.Flush(s.link, s.loop.writeBy()); err != nil {
		s.fail(err)
	}
}
