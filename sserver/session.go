package sserver

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/vardiff"
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

// state is all there is to know of a session: a plain value, without locks or
// references to anything that lives outside of it.
type state struct {
	Phase phase
	ID    uint32 // also the extranonce1
	IP    netip.Addr
	Agent string // the miner's software, as it says

	UserName   string
	UserID     int32
	WorkerName string
	WorkerID   int64

	VersionMask uint32     // version bits agreed upon
	Rejects     rejectRate // of this session

	// The session's mutex guards what follows: the session's own goroutine and
	// the one that tells all miners of a new job both change it.

	Difficulty vardiff.State
	Announced  bitcoin.Difficulty // of the jobs sent last
	Ready      bool               // the answer to the login is out, jobs may follow
	Round      uint64             // number of the latest round the miner was told of
	Tip        uint64             // and the tip of its job; 0 before the first
	Jobs       []sentJob          // oldest first
	NextJob    uint8              // how the next job will be known to the miner
}

// sentJob is a job as the miner knows it.
type sentJob struct {
	ID         job.ID
	Difficulty bitcoin.Difficulty // what its shares must meet, whatever comes later
	Number     uint8
}

const (
	maxSentJobs = 255 // numbers must differ
	// keptJobs are still known when a clean job is sent: their shares are
	// stale, not unknown.
	keptJobs = 4
)

// announcement is what a miner is told of a job.
type announcement struct {
	work          *work
	number        uint8 // sentJob.Number
	clean         bool  // the jobs before are worthless
	difficulty    bitcoin.Difficulty
	newDifficulty bool
}

// session is one miner's connection, whatever protocol it speaks.
type session struct {
	state

	srv      *Service
	out      *outbound
	announce func(dst []byte, a announcement) []byte // appends a as the session's protocol says it
	pos      int                                     // in its part of the roster, whose mutex guards it

	mu       sync.Mutex // before outbound.mu
	deadline time.Time  // for reading, as it was set last
	hungUp   bool       // there is nothing more to read
}

// setPhase moves the session on.
func (s *session) setPhase(p phase) {
	s.srv.metrics.sessions[s.Phase].Dec()
	s.Phase = p
	s.srv.metrics.sessions[p].Inc()
}

// readUntil sets the deadline for reading. Small changes are not worth a call.
func (s *session) readUntil(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hungUp && deadline.Sub(s.deadline).Abs() > time.Second {
		s.deadline = deadline
		_ = s.out.conn.SetReadDeadline(deadline) // fails only with the next read
	}
}

// hangUp ends the session after the requests that were read already.
func (s *session) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hungUp = true
	_ = s.out.conn.SetReadDeadline(time.Unix(1, 0)) // fails only if it has ended
}

// suggest starts the search for the miner's difficulty anew at d. The miner
// learns it with the next update.
func (s *session) suggest(d bitcoin.Difficulty, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Difficulty = s.srv.vardiff.Start(d, s.Difficulty.Floor, now)
}

// limit keeps the miner's difficulty from falling below floor.
func (s *session) limit(floor bitcoin.Difficulty, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Difficulty = s.srv.vardiff.Start(s.Difficulty.Difficulty, floor, now)
}

// update appends what the miner has to be told: the current round's job when it
// does not have it yet or when its difficulty has changed. Jobs sent before
// keep their difficulty. The caller holds s.mu and sends the result before it
// lets go, so that jobs arrive in the order of their numbers.
func (s *session) update(dst []byte) []byte {
	r := s.srv.jobs.round.Load()
	if r == nil || !s.Ready {
		return dst
	}
	d := s.Difficulty.Difficulty
	first := s.Tip == 0
	if !first && r.number == s.Round && d == s.Announced {
		return dst
	}
	a := announcement{
		work:          r.work,
		number:        s.NextJob,
		clean:         s.Tip != r.work.tip,
		difficulty:    d,
		newDifficulty: first || d != s.Announced,
	}
	s.forgetJobs(a.clean)
	s.Jobs = append(s.Jobs, sentJob{ID: r.work.ID, Difficulty: d, Number: s.NextJob})
	s.NextJob++
	s.Announced, s.Round, s.Tip = d, r.number, r.work.tip
	return s.announce(dst, a)
}

func (s *session) forgetJobs(clean bool) {
	drop := max(len(s.Jobs)-maxSentJobs+1, 0)
	if clean {
		drop = max(len(s.Jobs)-keptJobs, drop)
	}
	for drop < len(s.Jobs) && s.srv.jobs.find(s.Jobs[drop].ID) == nil {
		drop++
	}
	s.Jobs = slices.Delete(s.Jobs, 0, drop)
}

// refresh lets the miner's difficulty follow its silence and tells the miner
// what is new. It is called from outside of the session's goroutine.
func (s *session) refresh(sc *scratch, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Ready {
		return
	}
	if s.srv.vardiff.Check(&s.Difficulty, now) {
		s.srv.metrics.diffChanges.Inc()
	}
	if sc.out = s.update(sc.out[:0]); len(sc.out) > 0 {
		_ = s.send(sc.out) // the session's goroutine sees the connection end
	}
}

func (s *session) send(b []byte) error {
	s.srv.metrics.bytesOut.Add(float64(len(b)))
	return s.out.send(b)
}

// event tells that the session's worker came or went.
func (s *session) event(action share.Action, desc string, now time.Time) {
	s.srv.events.add(share.Event{
		Time:       now,
		Action:     action,
		UserID:     s.UserID,
		UserName:   s.UserName,
		WorkerID:   s.WorkerID,
		WorkerName: s.WorkerName,
		Agent:      s.Agent,
		IP:         s.IP,
		SessionID:  s.ID,
		Desc:       desc,
	})
}

func (s *session) fullName() string { return s.UserName + "." + s.WorkerName }

func (s *session) sessionID() string { return fmt.Sprintf("%08x", s.ID) }

// rejectRate recognizes a miner of whose rejected shares there are too many to
// be worth logging: maxRejects within rejectWindow.
type rejectRate struct {
	At   []int64 // unix seconds of the last maxRejects, a ring
	Next int
}

const (
	maxRejects   = 20
	rejectWindow = 60 // seconds
)

// add counts a reject and reports whether it is one too many.
func (r *rejectRate) add(now time.Time) bool {
	if r.At == nil {
		r.At = make([]int64, maxRejects)
	}
	r.At[r.Next] = now.Unix()
	r.Next = (r.Next + 1) % maxRejects
	return now.Unix()-r.At[r.Next] < rejectWindow
}
