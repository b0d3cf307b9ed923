package sserver

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/poll"
	"btcpool/internal/upgrade"
)

// Sessions go ahead: another process gets their connections and states, and makes them, while this one serves them still.
// While nobody is served, it only has to hear which of them are as they were, and those that are not, or have come since.

// aheadRounds is how often it is looked which sessions are others by now: the first, which has all, takes longest, and
// while the last is under way few mine.
const aheadRounds = 2

// ahead are sessions that went ahead in one message; nil: one that has ended since.
type ahead struct {
	number   uint32 // of the message
	sessions []*session

	// For the process that they are of:
	move *move
	sums []uint64 // of what their states were
}

// What became of a session that went ahead.
const (
	ended uint8 = iota
	asItWas
	changed // its state follows
	fates
)

// sums tells states apart.
var sums = maphash.MakeSeed()

// sendAhead has the new process know all sessions, but those whose connections are not sockets.
func (s *Service) sendAhead(ctx context.Context, m *move) error {
	m.base = time.Now()
	_ = m.to.SetDeadline(m.base.Add(upgrade.ReadyTimeout)) // nobody waits for it
	if err := m.sendParcel(messageBase, parcel{}); err != nil {
		return err
	}
	for range aheadRounds {
		for _, l := range s.loops {
			if err := l.sendAhead(ctx, m); err != nil {
				return err
			}
		}
		if err := m.sendParcel(messageMade, parcel{}); err != nil {
			return err
		}
		if err := m.to.Await(messageMade); err != nil {
			return err
		}
	}
	return nil
}

// sendAhead tells of a loop's sessions while it serves them, some at a time.
func (l *loop) sendAhead(ctx context.Context, m *move) error {
	var went []*ahead
	var others []*session
	if err := l.ask(ctx, func() error {
		went = l.ahead
		others = slices.DeleteFunc(slices.Clone(l.sessions), func(s *session) bool { return s.ahead })
		return nil
	}); err != nil {
		return err
	}
	send := func(kind byte, pack func() (parcel, error)) error {
		var p parcel
		err := l.ask(ctx, func() (err error) {
			p, err = pack()
			return err
		})
		if err == nil {
			err = m.sendParcel(kind, p)
		}
		p.closeFDs()
		return err
	}
	for _, a := range went {
		if err := send(messageSince, func() (p parcel, err error) {
			p, _, err = a.pack()
			return p, err
		}); err != nil {
			return err
		}
	}
	for step := range slices.Chunk(others, movedStep) {
		if err := send(messageAhead, func() (parcel, error) { return l.packAhead(m, step) }); err != nil {
			return err
		}
	}
	return nil
}

// ask is Call for what can fail.
func (l *loop) ask(ctx context.Context, f func() error) error {
	err := errors.New("a loop has ended")
	if called := l.Call(ctx, func() { err = f() }); called != nil {
		return called
	}
	return err
}

// packAhead returns a message with those of some sessions that can go ahead. Its descriptors are its own: the loop may
// close its before it is sent.
func (l *loop) packAhead(m *move, some []*session) (p parcel, err error) {
	a := &ahead{number: m.messages.Add(1), move: m}
	l.ahead = append(l.ahead, a)
	err = p.pack(m.version, m.base, func(c *upgrade.Codec) {
		upgrade.Uint(c, &a.number)
		for _, s := range some {
			if s.closing || s.over {
				continue
			}
			fd, err := s.link.Copy()
			if err != nil {
				c.Fail("%w", err)
			}
			if fd < 0 {
				continue
			}
			p.fds = append(p.fds, fd)
			before := len(c.Bytes())
			s.moved().code(c)
			s.ahead, s.since = true, false
			a.sessions = append(a.sessions, s)
			a.sums = append(a.sums, maphash.Bytes(sums, c.Bytes()[before:]))
		}
	})
	return p, err
}

// pack returns a message that says what has become of the sessions, and of how many.
func (a *ahead) pack() (p parcel, of [fates]int64, err error) {
	err = p.pack(a.move.version, a.move.base, func(c *upgrade.Codec) {
		upgrade.Uint(c, &a.number)
		for i, s := range a.sessions {
			fate := asItWas
			switch {
			case s == nil || s.over:
				fate, a.sessions[i] = ended, nil
			case s.since:
				if sum := a.sum(s); sum != a.sums[i] {
					fate, a.sums[i] = changed, sum
				}
				s.since = false
			}
			if upgrade.Uint(c, &fate); fate == changed {
				s.moved().code(c)
			}
			of[fate]++
		}
	})
	return p, of, err
}

// sum is that of what a session's state is now.
func (a *ahead) sum(s *session) uint64 {
	w := upgrade.NewWriter(a.move.version, a.move.base, make([]byte, 0, 1<<10))
	s.moved().code(w)
	return maphash.Bytes(sums, w.Bytes())
}

// forgetAhead makes sessions ones that nobody else knows.
func (l *loop) forgetAhead() {
	for _, a := range l.ahead {
		for _, s := range a.sessions {
			if s != nil {
				s.ahead = false
			}
		}
	}
	l.ahead = nil
}

// takeAhead makes sessions of those in a message. Whether they go on is said later.
func (t *taking) takeAhead(l *loop, m *arrival) error {
	a := &ahead{number: m.number}
	l.ahead = append(l.ahead, a)
	for len(m.FDs) > 0 {
		s := &session{srv: t.Service, loop: l}
		if err := t.read(m.body, s); err != nil {
			return err
		}
		link, err := poll.Passed(m.FDs[0])
		if err != nil {
			return err
		}
		m.FDs = m.FDs[1:]
		s.link, s.ahead = link, true
		a.sessions = append(a.sessions, s)
		if err := link.Attach(l.Loop, s); err != nil {
			return err
		}
	}
	return nil
}

// takeSince hears what has become of the sessions that have gone ahead in a message of that number. They go on if it is
// the last that is said of them.
func (t *taking) takeSince(l *loop, m *arrival) error {
	at := slices.IndexFunc(l.ahead, func(a *ahead) bool { return a.number == m.number })
	if at < 0 {
		return fmt.Errorf("%w: message %d has not gone ahead", upgrade.ErrMalformed, m.number)
	}
	all := l.ahead[at].sessions
	for i, s := range all {
		var fate uint8
		if upgrade.Uint(m.body, &fate); fate >= fates || s == nil && fate != ended {
			m.body.Fail("fate %d", fate)
		}
		if m.body.Err() != nil {
			return m.body.Err()
		}
		if s == nil {
			continue
		}
		if fate == ended {
			s.link.Close()
			all[i] = nil
			continue
		}
		if fate == changed {
			*s = session{srv: t.Service, loop: l, link: s.link, ahead: true}
			if err := t.read(m.body, s); err != nil {
				return err
			}
		}
		if !m.last {
			continue
		}
		if err := t.check(s); err != nil {
			return err
		}
		all[i] = nil
		t.restore(s)
	}
	if m.last {
		l.ahead = slices.Delete(l.ahead, at, at+1)
	}
	return nil
}

// closeAhead closes those of which nobody said that they go on.
func (l *loop) closeAhead() {
	for _, a := range l.ahead {
		for _, s := range a.sessions {
			if s != nil {
				s.link.Close()
			}
		}
	}
	l.ahead = nil
}

func (p *parcel) closeFDs() {
	for _, fd := range p.fds {
		_ = unix.Close(fd)
	}
}
