package sserver

import "btcpool/internal/share"

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
