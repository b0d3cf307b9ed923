package sserver

import (
	"context"
	"slices"
	"time"

	"btcpool/internal/share"
)

// past is what a session that is resumed takes on.
type past struct {
	Miner miner
	Jobs  []sentJob
	Next  uint32
	Farm  map[uint16]*farmMiner // those behind an agent; nil: it was none
}

// resume gives the session the extranonce1 of one that ended a moment ago, at the same address, and makes the shares
// count that were found for it since. It does nothing when there is no such session. Nobody is credited for it: that
// takes a login.
func (s *session) resume(id uint32) {
	now := s.loop.now
	before, ok := s.srv.ids.claim(id, s.IP, s.Farm != nil, now)
	if !ok {
		return
	}
	s.srv.ids.put(s.ID, now) // nobody has seen it
	s.ID, s.Resumed = id, true
	floor := s.Miner.Difficulty.Floor
	if !s.OwnFloor {
		floor = before.Miner.Difficulty.Floor
	}
	s.Miner, s.Jobs, s.Next = before.Miner, before.Jobs, before.Next
	s.Miner.Difficulty = s.port.vardiff.Start(before.Miner.Difficulty.Difficulty, floor, now)
	if s.Farm != nil {
		s.Farm.Past, s.Farm.From = before.Farm, before.Next
		s.Miner.Fixed = false // the login may ask for another
	}
	s.srv.metrics.resumed.Inc()
}

// endTimeout is for how long a session waits for the end of another one.
const endTimeout = 5 * time.Second

// endOther ends a farm proxy's session that hangs: the proxy, which comes from the same address, has given it up, and its
// end is not seen here. What the proxy asks for next is handled when it is over.
func (s *session) endOther(id uint32, key uint64) (ok bool) {
	if key != s.srv.ids.key(id) {
		s.srv.metrics.badLines.Inc()
		return false
	}
	if id == s.ID {
		return true
	}
	s.ask(&question{Ends: id})
	return true
}

// endSession ends the session that is meant, if there is one.
func (s *Service) endSession(ctx context.Context, meant func(*session) bool) {
	for _, l := range s.loops {
		_ = l.Call(ctx, func() { // the other loops may have it
			if i := slices.IndexFunc(l.sessions, meant); i >= 0 {
				l.visit(l.sessions[i], func(other *session) { other.fail(errReplaced) })
			}
		})
	}
}

// end tells that all workers of the session are gone. Nothing changes it any more; it returns what another session may
// take on.
func (s *session) end() past {
	s.Ready = false
	if s.Farm != nil {
		for _, m := range s.Farm.Miners {
			s.event(share.MinerDead, m.worker, m.Agent, share.FromAgent)
		}
	}
	for _, w := range s.Workers {
		s.event(share.MinerDead, w, s.Agent, "del_conn")
	}
	return past{s.Miner, s.Jobs, s.Next, s.Farm.end()}
}
