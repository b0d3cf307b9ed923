package sserver

import (
	"math"
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// elsewhere in the place of a tip: the miner has jobs of another chain, or with another coinbase, which are worthless
// now.
const elsewhere = math.MaxUint64

// credit is a user's id on a chain.
type credit struct {
	Chain  uint8
	UserID int32
}

// switchChain is what events say of workers who are moved.
const switchChain = "switch_chain"

// move has the session's miner work on another chain at once. Jobs that it was sent before stay those of their chain,
// and their shares are credited there. Nobody is moved who would lose a worker by it, whose user has no id there.
func (s *session) move(to uint8, heard time.Time) {
	if s.closing || s.Phase != authorized {
		return
	}
	board := s.srv.board
	ids := make([]int32, len(s.Workers))
	for i := range s.Workers {
		id, ok := board.knownID(to, s.Workers[i].UserName)
		if !ok {
			board.stuck(s.Workers[0].UserName, true)
			return
		}
		ids[i] = id
	}
	if len(ids) > 1 {
		board.stuck(s.Workers[0].UserName, false)
	}
	from := s.Chain
	otherCoinbase := s.takeSubPool(board.subPool(s.Workers[0].UserName, s.SubPool))
	if to == from {
		for i := range s.Workers {
			s.Workers[i].UserID = ids[i]
		}
		if otherCoinbase {
			s.newWork(heard)
		}
		return
	}
	s.tellMove(share.MinerDead)
	for i := range s.Workers {
		s.Workers[i].moveTo(from, ids[i])
	}
	if s.Farm != nil {
		for _, m := range s.Farm.Miners {
			m.worker.moveTo(from, ids[0])
		}
	}
	s.chain().miners.Add(-1)
	s.setChain(to)
	s.chain().miners.Add(1)
	s.tellMove(share.MinerConnect)
	s.newWork(heard)
}

// newWork has the miner begin anew at once: what it works on is worthless to its user.
func (s *session) newWork(heard time.Time) {
	s.Round, s.Tip = 0, elsewhere
	s.refresh()
	s.srv.board.seconds.Observe(time.Since(heard).Seconds())
}

// setChain has what belongs to the session's chain be that of another.
func (s *session) setChain(to uint8) {
	before := s.chain()
	s.Chain = to
	now := s.chain()
	s.users = s.list().Version()
	if floor := s.niceFloor(before); floor != s.niceFloor(now) && s.Miner.Difficulty.Floor == floor {
		s.limit(s.niceFloor(now))
	}
}

// niceFloor is what the difficulty does not fall below on a chain, as far as the miner has not said so itself.
func (s *session) niceFloor(c *chain) bitcoin.Difficulty {
	nice := c.cfg.NiceHash
	if !s.OwnFloor && (nice.Forced || isNiceHash(s.Agent)) {
		return min(max(s.port.vardiff.Min, bitcoin.DifficultyAtLeast(nice.MinDifficulty)), s.port.vardiff.Max)
	}
	return s.port.vardiff.Min
}

// tellMove tells the chain that all workers have come or gone.
func (s *session) tellMove(action share.Action) {
	if s.Farm != nil {
		for _, m := range s.Farm.Miners {
			s.event(action, m.worker, m.Agent, switchChain)
		}
	}
	for _, w := range s.Workers {
		s.event(action, w, s.Agent, switchChain)
	}
}

// moveTo gives the worker another id, and keeps what it has on the chain that it leaves.
func (w *worker) moveTo(from uint8, id int32) {
	w.Past = append(slices.DeleteFunc(w.Past, func(p credit) bool { return p.Chain == from }), credit{from, w.UserID})
	w.UserID = id
}

// idOn is the worker's id on a chain that the session has left, or where another began that it goes on with.
func (s *session) idOn(c *chain, w *worker) (int32, bool) {
	for _, p := range w.Past {
		if p.Chain == c.index {
			return p.UserID, true
		}
	}
	if s.srv.board == nil {
		return 0, false
	}
	return s.srv.board.knownID(c.index, w.UserName)
}
