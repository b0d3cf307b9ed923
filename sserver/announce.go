package sserver

import (
	"slices"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// sentJob is a job as the miner knows it. The miner sees the low 8 bits of its number. A job that is sent again, for a
// new difficulty or to a miner that resumes, has a later time: miners that begin with the same extranonce2 for each job
// would find the same shares, and some take a job with the same header for the one they have.
type sentJob struct {
	ID     job.ID
	Number uint32
	Later  uint32 // seconds by which its time is later than the job's
	Chain  uint8
	// Coinbase is the place of the one that the miner was told among those of the job.
	Coinbase uint8
}

const (
	maxSentJobs = 255 // the numbers that the miner sees must differ
	// keptJobs are still known when a clean job is sent: their shares are stale, not unknown.
	keptJobs = 4
)

// update appends what the miner has to be told: the current round's job when it does not have it yet or when its
// difficulty has changed. Jobs sent before keep their difficulty. The caller sends the result at once, so that jobs
// arrive in the order of their numbers.
func (s *session) update(dst []byte) []byte {
	r := s.chain().jobs.round.Load()
	if r == nil || !s.Ready {
		return dst
	}
	d := s.Miner.Difficulty.Difficulty
	first := s.Tip == 0
	newDifficulty := first || d != s.Miner.announced()
	if !newDifficulty && r.number == s.Round {
		return dst
	}
	place := s.coinbaseOf(r.work)
	if s.Grand && len(r.work.coinbases[place].GrandCoinbase1) == 0 {
		return dst // there is no room for what it would fill in
	}
	a := announcement{
		work:          r.work,
		coinbase:      &r.work.coinbases[place],
		first:         first,
		number:        s.Next,
		later:         s.later(r.work),
		clean:         s.Tip != r.work.tip,
		difficulty:    d,
		newDifficulty: newDifficulty,
	}
	s.forgetJobs(a.clean)
	s.Jobs = append(s.Jobs, sentJob{ID: r.work.ID, Number: s.Next, Later: a.later, Chain: s.Chain, Coinbase: place})
	if newDifficulty {
		s.Miner.tell(d, s.Next, s.Jobs[0].Number)
	}
	if s.Farm != nil {
		a.farm = s.Farm.tell(s.Next, s.Jobs[0].Number, s.leastDifficulty())
	}
	s.Next++
	s.Round, s.Tip = r.number, r.work.tip
	return s.protocol.announce(dst, a)
}

// later returns by how much the time of the next job, which is w, differs from that of w.
func (s *session) later(w *work) uint32 {
	for i := len(s.Jobs) - 1; i >= 0; i-- {
		if j := s.Jobs[i]; j.ID == w.ID {
			return j.Later + 1
		}
	}
	return 0
}

// forgetJobs makes room for the next job, and forgets those at the end of their life, or that a clean one makes
// worthless; another chain's stay what they are.
func (s *session) forgetJobs(clean bool) {
	drop := max(len(s.Jobs)-maxSentJobs+1, 0)
	for drop < len(s.Jobs) {
		worthless := clean && drop < len(s.Jobs)-keptJobs && s.Jobs[drop].Chain == s.Chain
		if !worthless && s.work(s.Jobs[drop]) != nil {
			break
		}
		drop++
	}
	s.Jobs = slices.Delete(s.Jobs, 0, drop)
}

// work returns the job as its chain has it; nil: its life is over.
func (s *session) work(j sentJob) *work { return s.srv.chains[j.Chain].jobs.find(j.ID) }

// sentJob returns the job that the miner knows by the low bits of its number, and what a share of m for it must meet.
func (s *session) sentJob(number uint8, m *miner) (j sentJob, d bitcoin.Difficulty, ok bool) {
	for i := len(s.Jobs) - 1; i >= 0; i-- {
		if j := s.Jobs[i]; uint8(j.Number) == number {
			return j, m.difficultyOf(j.Number), true
		}
	}
	return sentJob{}, 0, false
}

// refresh lets difficulties follow the silence of miners and tells what is new.
func (s *session) refresh() {
	if !s.Ready {
		return
	}
	s.follow(&s.Miner)
	if s.Farm != nil {
		for _, m := range s.Farm.Miners {
			s.follow(&m.miner)
		}
	}
	if r := s.chain().jobs.round.Load(); s.held > 0 && r != nil && r.number == s.Round {
		return // only a difficulty may be new: it comes behind the answers that wait for the disk
	}
	sc := &s.loop.sc
	sc.out = s.update(sc.out[:0])
	s.send(sc.out)
}

// follow lets the difficulty of m follow the time that has passed.
func (s *session) follow(m *miner) {
	if !m.Fixed && s.port.vardiff.Check(&m.Difficulty, s.loop.now) {
		s.srv.metrics.diffChanges.Inc()
	}
}
