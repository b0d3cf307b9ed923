package sserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/guard"
	"btcpool/internal/poll"
	"btcpool/internal/share"
	v1 "btcpool/internal/stratum/v1"
)

// phase is how far a session has come.
type phase int

const (
	connected phase = iota
	subscribed
	authorized
	phases
)

func (p phase) String() string { return [...]string{"connected", "subscribed", "authorized"}[p] }

// state is all there is to know of a session: a plain value, without locks or references to anything outside of it.
type state struct {
	Phase phase
	ID    uint32 // the extranonce1 too
	IP    netip.Addr
	Agent string // the software that the miner says it is
	Since time.Time

	// Workers are those that have logged in, Names their places among them by full name. The first is credited with
	// shares that name no other.
	Workers []worker
	Names   map[string]int
	// VersionMask holds the version bits agreed upon.
	VersionMask uint32
	// OwnFloor says that the miner itself set the floor of its difficulty.
	OwnFloor bool
	// Wish is the difficulty that the miner suggested last, if it has (Wished).
	Wished bool
	Wish   bitcoin.Difficulty
	// Patient software may be silent for long.
	Patient bool
	V1      v1.State
	Tally   tally
	Pace    guard.Pace
	// Trusted means that the guard counts the session among the good ones of its address.
	Trusted bool
	Refused int // logins that were not granted
	// Grand says that the client serves a pool of its own: it has job.GrandExtranonce2Size bytes.
	Grand bool
	// Resumed says that the session goes on with another.
	Resumed bool
	// BadInputs were gibberish, since BadSince.
	BadInputs int
	BadSince  time.Time

	Miner miner // the one that is connected
	Farm  *farm // the miners that it speaks for; nil: it is no agent
	// Ready means that the answer to the login is out, so that jobs may follow.
	Ready bool
	// Chain is the index of the chain that the miner works on.
	Chain uint8
	// SubPool is the one for whose coinbase the miner works, as its user's node says; "": the server's.
	SubPool string
	// Round and Tip are those of the latest job that the miner was sent; 0: none yet. Jobs are those it may still send
	// shares for, Next is the number of the next one.
	Round uint64
	Tip   uint64
	Jobs  []sentJob
	Next  uint32
	// Question is one that takes time: until it is answered, nothing is handled. nil: there is none.
	Question *question
}

// session is one connection. All of it belongs to its loop.
type session struct {
	state

	srv      *Service
	port     *port // where the miner connected
	loop     *loop
	link     poll.Link
	protocol protocol
	pos      int     // index in loop.sessions; negative: the session has gone
	hashrate float64 // by the difficulties of its miners, at the last tour
	users    uint64  // version of its chain's users that was compared with the session's last
	follows  bool    // the switchboard knows the session
	ahead    bool    // it is among those of loop.ahead
	since    bool    // something was done with it since its state went ahead

	pending     []byte // input that is not handled yet, as a rule the beginning of a message
	outbox      poll.Outbox
	said        time.Time // when something was sent last
	readBy      time.Time // deadline of the next message, and then of closing the link
	pausedUntil time.Time // zero: the session is not paused
	strange     int       // bytes that came before the login

	// held answers in loop.held, of heldBytes in all, wait for the disk; the last for record heldSeq of a chain's spool.
	held      int
	heldBytes int
	heldSeq   uint64
	heldChain uint8

	admitted  bool // the session is counted by guard and metrics
	closing   bool // nothing more is read; the session is over when what was read is answered
	cut       bool // nothing more is sent
	over      bool // the session is counted no more; its link may still have something to send
	lingering bool // input is dropped, up to discard bytes, so that the last answer is not lost
	discard   int
	why       error // why closing was set; nil: the miner has ended it
}

const (
	// maxHeld is how many bytes of answers may wait for the disk before the session is not read from any more.
	maxHeld = 16 << 10
	// maxDiscard bytes at most are dropped while the last answer is on its way, for lingerGrace at most.
	maxDiscard  = 64 << 10
	lingerGrace = time.Second
	// maxStrange is what a login takes, in bytes. A session that says more before it is authorized is read from only
	// once in strangerPause, whoever it is: thousands of such would keep the others waiting.
	maxStrange    = 8 << 10
	strangerPause = time.Second
)

// setPhase moves the session on.
func (s *session) setPhase(p phase) {
	s.srv.metrics.sessions[s.Phase].Add(-1)
	s.Phase = p
	s.srv.metrics.sessions[p].Add(1)
}

// reads reports whether the session takes more input.
func (s *session) reads() bool {
	if s.over {
		return s.lingering
	}
	return !s.closing && s.Question == nil && s.pausedUntil.IsZero() && s.heldBytes <= maxHeld
}

// read handles what the link has.
func (s *session) read() {
	if !s.reads() {
		return
	}
	in := s.loop.in[:]
	n, err := s.link.Read(in)
	s.port.bytesIn.Add(float64(n))
	switch {
	case s.over:
		if s.discard -= n; err != nil {
			s.discard = 0
		}
	case errors.Is(err, poll.ErrSlow):
		s.fail(err)
	case err != nil:
		s.finish(nil)
	case n > 0:
		s.receive(in[:n])
		s.curb(n)
	}
}

// curb counts what a session said that has not logged in.
func (s *session) curb(n int) {
	if s.Phase == authorized {
		return
	}
	if s.strange += n; s.strange > maxStrange {
		s.pause(strangerPause)
	}
}

// receive handles what has arrived.
func (s *session) receive(in []byte) {
	if s.outdated() {
		s.finish(errUserGone)
		return
	}
	s.loop.sc.reset()
	if len(s.pending) > 0 {
		s.pending = append(s.pending, in...)
		in = s.pending
	}
	s.proceed(in, 0)
}

// outdated reports whether a worker's user is not what it was at the login.
func (s *session) outdated() bool {
	now := s.list().Version()
	if now == s.users {
		return false
	}
	s.users = now
	return slices.ContainsFunc(s.Workers, func(w worker) bool {
		id, ok := s.userID(w.UserName)
		return !ok || id != w.UserID
	})
}

// proceed handles the messages that in holds, behind some that were handled already, and answers them all at once, when
// the shares among them are durable.
func (s *session) proceed(in []byte, messages int) {
	l := s.loop
	var err error
	for err == nil && s.Question == nil {
		if err = l.sc.misuse; err != nil {
			break
		}
		var n int
		said := len(l.sc.out)
		l.sc.out, n, err = s.protocol.handle(l.sc.out, in)
		if err != nil && len(l.sc.out) > said {
			s.discard = maxDiscard // the miner is to learn why
		}
		if n == 0 {
			break
		}
		in = in[n:]
		messages++
	}
	s.keep(in)
	if messages > 0 || len(l.sc.out) > 0 {
		if l.sc.seq > 0 || s.held > 0 {
			l.hold(s)
		} else {
			s.answer()
		}
	}
	if err != nil {
		s.finish(err)
		return
	}
	if messages > 0 && s.Phase == authorized {
		s.readBy = l.now.Add(s.srv.idleTimeout(s.Patient))
	}
	s.pace(messages)
}

// idleTimeout is how long an authorized miner may be silent.
func (s *Service) idleTimeout(patient bool) time.Duration {
	if patient {
		return s.cfg.LongTimeout.Std()
	}
	return s.cfg.TCPReadTimeout.Std()
}

// keep holds on to what is left of the input, in as little memory as that takes.
func (s *session) keep(rest []byte) {
	switch {
	case len(rest) == 0:
		s.pending = nil
	case cap(s.pending) > 4*len(rest):
		s.pending = append([]byte(nil), rest...)
	default:
		s.pending = append(s.pending[:0], rest...)
	}
}

// answer sends the answers that are in the loop's scratch, and what else the session has to hear.
func (s *session) answer() {
	sc := &s.loop.sc
	s.Ready = s.Phase == authorized
	sc.out = s.update(sc.out)
	s.send(sc.out)
}

// pace makes a session wait that sends more than its share: it is not read from meanwhile.
func (s *session) pace(messages int) {
	rate := s.srv.cfg.Limits.LinesPerSec
	if messages == 0 || rate == 0 || !s.srv.guard.Watches(s.IP) {
		return
	}
	rate += max(len(s.Workers)-1, 0)
	if s.Farm != nil {
		rate += len(s.Farm.Miners)
	}
	if pause := s.Pace.Spent(messages, rate, s.loop.now); pause > 0 {
		s.pause(pause)
	}
}

// pause has the session not read from for a while.
func (s *session) pause(d time.Duration) {
	s.srv.metrics.pauses.Inc()
	if s.pausedUntil.IsZero() {
		s.loop.paused = append(s.loop.paused, s)
	}
	s.pausedUntil = s.loop.now.Add(d)
}

// finish ends the session after the requests that were read already.
func (s *session) finish(why error) {
	if !s.closing {
		s.closing, s.why = true, why
	}
}

// fail ends the session now. Nothing more is sent.
func (s *session) fail(why error) {
	s.finish(why)
	s.cut = true
}

// linger reports whether the link of a session that is over is to stay open for
// a moment: closing it with unread input would reset the connection and could
// take the last answer with it.
func (s *session) linger() bool {
	if s.cut || s.discard <= 0 {
		return false
	}
	if !s.lingering {
		s.lingering = s.link.CloseWrite()
		s.readBy = s.loop.now.Add(lingerGrace)
	}
	return s.lingering
}

// event tells that a worker came or went, whose software is agent.
func (s *session) event(action share.Action, w worker, agent, desc string) {
	one := &s.chain().cfg.SingleUser
	user := w.UserName
	if one.Mode {
		user = one.Name
	}
	credited, external := one.ids(w.UserID)
	s.chain().events.add(share.Event{
		Time:       s.loop.now,
		Action:     action,
		UserID:     credited,
		UserName:   user,
		ExtUserID:  external,
		WorkerID:   w.ID,
		WorkerName: one.workerName(w.UserName, w.Name),
		Agent:      agent,
		IP:         s.IP,
		SessionID:  s.ID,
		Desc:       desc,
	})
}

func (s *session) sessionID() string { return fmt.Sprintf("%08x", s.ID) }
