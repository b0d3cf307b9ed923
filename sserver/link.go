package sserver

import (
	"time"
)

// link is the connection of a session as its loop uses it: nothing of it waits.
type link interface {
	// attach makes l serve s whenever the link has what s wants.
	attach(l *loop, s *session) error
	// want says what s waits for: something to read, or being able to write.
	want(read, write bool)
	// read returns 0 and no error when there is nothing to read.
	read(b []byte) (int, error)
	// write takes as much of b as it can at once, and does not keep it.
	write(b []byte) (int, error)
	// sent reports whether closing the link loses nothing that was written.
	sent() bool
	// closeWrite tells the other side that nothing more will come, if it can.
	closeWrite() bool
	close()
}

// What may wait for one link, in bytes: dozens of jobs, and for an agent new
// difficulties of all its miners besides.
const (
	maxUnsent      = 64 << 10
	maxUnsentAgent = 512 << 10
)

// backlog is what a link did not take at once.
type backlog struct {
	data []byte
	due  int       // the first bytes of data must be taken
	by   time.Time // until then
}

// send does not wait and does not keep b. A miner that reads too slowly is cut
// off.
func (s *session) send(b []byte) {
	if len(b) == 0 || s.over || s.cut {
		return
	}
	s.port.bytesOut.Add(float64(len(b)))
	if s.backlog == nil {
		n, err := s.link.write(b)
		if err != nil {
			s.fail(nil)
			return
		}
		if b = b[n:]; len(b) == 0 {
			return
		}
		s.backlog = &backlog{due: len(b), by: s.loop.now.Add(s.srv.cfg.WriteTimeout.Std())}
	}
	limit := maxUnsent
	if s.Farm != nil {
		limit = maxUnsentAgent
	}
	if len(s.backlog.data)+len(b) > limit {
		s.fail(errSlow)
		return
	}
	s.backlog.data = append(s.backlog.data, b...)
}

// reconnect sends the miner to another place.
func (s *session) reconnect(to place) {
	sc := &s.loop.sc
	sc.out = s.protocol.reconnect(sc.out[:0], to)
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
	waiting := s.backlog
	if waiting == nil || s.cut {
		return
	}
	n, err := s.link.write(waiting.data)
	if err != nil {
		s.fail(nil)
		return
	}
	if waiting.data = waiting.data[n:]; len(waiting.data) == 0 {
		s.backlog = nil
		return
	}
	if waiting.due -= n; waiting.due <= 0 {
		waiting.due, waiting.by = len(waiting.data), s.loop.now.Add(s.srv.cfg.WriteTimeout.Std())
	}
}
