package sserver

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
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

	Workers     []worker // that were authorized; the first is credited when a share names none of them
	VersionMask uint32   // version bits agreed upon
	OwnFloor    bool     // the miner has said what its difficulty must not fall below
	LongIDs     bool     // of jobs
	Responses   bool     // an agent wants to know what became of its shares
	Submits     uint16   // of an agent's miners, modulo 2^16
	Conduct     conduct

	// The session's mutex guards what follows: the session's own goroutine and
	// the one that tells all miners of a new job both change it.

	Miner miner  // the one that is connected, Rejects not guarded
	Farm  *farm  // those it speaks for; nil when it is no agent
	Ready bool   // the answer to the login is out, jobs may follow
	Round uint64 // number of the latest round the miner was told of
	Tip   uint64 // and the tip of its job; 0 before the first
	Jobs  []sentJob
	Next  uint32 // number of the next job
}

// sentJob is a job as the miner knows it. The miner sees the low 8 bits of its
// number.
type sentJob struct {
	ID     job.ID
	Number uint32
}

const (
	maxSentJobs = 255 // what the miner sees must differ
	// keptJobs are still known when a clean job is sent: their shares are
	// stale, not unknown.
	keptJobs = 4
)

// announcement is what a miner is told of a job.
type announcement struct {
	work          *work
	id            uint64 // by which the miner knows it
	clean         bool   // the jobs before are worthless
	difficulty    bitcoin.Difficulty
	newDifficulty bool
	farm          map[agentwire.Session]bitcoin.Difficulty // new ones of an agent's miners
}

// session is one connection, whatever protocol it speaks.
type session struct {
	state

	srv      *Service
	port     *port // where it connected
	out      *outbound
	announce func(dst []byte, a announcement) []byte // appends a as the session's protocol says it
	part     *rosterPart                             // where the roster has it
	pos      int                                     // and at which place; the part's mutex guards it

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
	if m := &s.Miner; !m.Fixed {
		m.Difficulty = s.port.vardiff.Start(d, m.Difficulty.Floor, now)
	}
}

// limit keeps the miner's difficulty from falling below floor.
func (s *session) limit(floor bitcoin.Difficulty, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := &s.Miner; !m.Fixed {
		m.Difficulty = s.port.vardiff.Start(m.Difficulty.Difficulty, floor, now)
	}
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
	d := s.Miner.Difficulty.Difficulty
	first := s.Tip == 0
	newDifficulty := first || d != s.Miner.announced()
	if !newDifficulty && r.number == s.Round {
		return dst
	}
	a := announcement{
		work:          r.work,
		id:            s.jobID(r.work),
		clean:         s.Tip != r.work.tip,
		difficulty:    d,
		newDifficulty: newDifficulty,
	}
	s.forgetJobs(a.clean)
	s.Jobs = append(s.Jobs, sentJob{ID: r.work.ID, Number: s.Next})
	if newDifficulty {
		s.Miner.tell(d, s.Next, s.Jobs[0].Number)
	}
	if s.Farm != nil {
		a.farm = s.Farm.tell(s.Next, s.Jobs[0].Number)
	}
	s.Next++
	s.Round, s.Tip = r.number, r.work.tip
	return s.announce(dst, a)
}

// jobID returns what the next job, which is w, is to the miner: the low bits of
// its number. NiceHash wants no id to come again, so that there are higher bits.
func (s *session) jobID(w *work) uint64 {
	id := uint64(uint8(s.Next))
	if s.LongIDs {
		id |= uint64(w.Time) << 8
	}
	return id
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

// sentJob returns the id of a job that the miner knows by the low bits of its
// number, and what a share of m for it must meet.
func (s *session) sentJob(number uint8, m *miner) (id job.ID, d bitcoin.Difficulty, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.Jobs) - 1; i >= 0; i-- {
		if j := s.Jobs[i]; uint8(j.Number) == number {
			return j.ID, m.difficultyOf(j.Number), true
		}
	}
	return 0, 0, false
}

// refresh lets difficulties follow the silence of miners and tells what is new.
// It is called from outside of the session's goroutine.
func (s *session) refresh(sc *scratch, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Ready {
		return
	}
	s.follow(&s.Miner, now)
	if s.Farm != nil {
		for _, m := range s.Farm.Miners {
			s.follow(&m.miner, now)
		}
	}
	if sc.out = s.update(sc.out[:0]); len(sc.out) > 0 {
		_ = s.send(sc.out) // the session's goroutine sees the connection end
	}
}

// follow lets the difficulty of m follow the time that has passed.
func (s *session) follow(m *miner, now time.Time) {
	if !m.Fixed && s.port.vardiff.Check(&m.Difficulty, now) {
		s.srv.metrics.diffChanges.Inc()
	}
}

func (s *session) send(b []byte) error {
	s.srv.metrics.bytesOut.Add(float64(len(b)))
	return s.out.send(b)
}

// event tells that a worker came or went, whose software is agent.
func (s *session) event(action share.Action, w worker, agent, desc string, now time.Time) {
	s.srv.events.add(share.Event{
		Time:       now,
		Action:     action,
		UserID:     w.UserID,
		UserName:   w.UserName,
		WorkerID:   w.ID,
		WorkerName: w.Name,
		Agent:      agent,
		IP:         s.IP,
		SessionID:  s.ID,
		Desc:       desc,
	})
}

// credited returns the worker that a share is for when it names one.
func (s *session) credited(name []byte) *worker {
	if len(s.Workers) > 1 {
		for i := range s.Workers {
			if w := &s.Workers[i]; w.is(name, s.srv.cfg.Users.CaseInsensitive) {
				return w
			}
		}
	}
	return &s.Workers[0]
}

// past is what a session that is resumed takes on.
type past struct {
	Miner miner
	Jobs  []sentJob
	Next  uint32
}

// resume gives the session the extranonce1 of one that ended a moment ago, at
// the same address, and makes the shares count that were found for it since.
// It does nothing when there is no such session. Nobody is credited for it: that
// takes a login.
func (s *session) resume(id uint32, now time.Time) {
	before, ok := s.srv.ids.claim(id, s.IP, now)
	if !ok {
		return
	}
	s.srv.ids.put(s.ID, now) // nobody has seen it
	s.ID = id
	s.mu.Lock()
	defer s.mu.Unlock()
	floor := s.Miner.Difficulty.Floor
	if !s.OwnFloor {
		floor = before.Miner.Difficulty.Floor
	}
	s.Miner, s.Jobs, s.Next = before.Miner, before.Jobs, before.Next
	s.Miner.Difficulty = s.port.vardiff.Start(before.Miner.Difficulty.Difficulty, floor, now)
	s.srv.metrics.resumed.Inc()
}

// end tells that all workers of the session are gone. Nothing changes it any
// more; it returns what another session may take on.
func (s *session) end(now time.Time) past {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Ready = false
	if s.Farm != nil {
		for _, m := range s.Farm.Miners {
			s.event(share.MinerDead, m.worker, m.Agent, fromAgent, now)
		}
	}
	for _, w := range s.Workers {
		s.event(share.MinerDead, w, s.Agent, "del_conn", now)
	}
	return past{s.Miner, s.Jobs, s.Next}
}

func (s *session) sessionID() string { return fmt.Sprintf("%08x", s.ID) }
