package sserver

import (
	"maps"
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/guard"
	"btcpool/internal/share"
)

// agentPrefix begins the user agent of BTCAgent and its like.
const agentPrefix = "btccom-agent/"

func isAgent(userAgent string) bool { return strings.HasPrefix(userAgent, agentPrefix) }

// farm is what an agent speaks for.
type farm struct {
	Miners map[uint16]*farmMiner // by the numbers that the agent gives them
	// Past are those of the session that is gone on with, until they are registered again, and From is the number of the
	// first job since.
	Past map[uint16]*farmMiner
	From uint32
}

// end returns the miners that another session may take on. Of no farm there are none.
func (f *farm) end() map[uint16]*farmMiner {
	if f == nil {
		return nil
	}
	all := maps.Clone(f.Miners)
	for number, m := range f.Past {
		if all[number] == nil {
			all[number] = m
		}
	}
	return all
}

// farmMiner is a miner behind an agent: a worker of its own.
type farmMiner struct {
	miner
	worker worker
	Tally  tally
	Agent  string // its software, as it says
}

// tell notes the difficulties that the miners have from job number on, and returns those that are new to them. They are
// not below the least that the agent can be told.
func (f *farm) tell(number, oldest uint32, least bitcoin.Difficulty) (news map[uint16]bitcoin.Difficulty) {
	for id, m := range f.Miners {
		d := max(m.Difficulty.Difficulty, least)
		if d == m.announced() {
			continue
		}
		m.tell(d, number, oldest)
		if news == nil {
			news = make(map[uint16]bitcoin.Difficulty)
		}
		news[id] = d
	}
	return news
}

// register takes a miner in. It begins with the agent's own difficulty, which the agent has told it. One that has its
// number already is gone; one that had it in the session that is gone on with is the same, if it has the same name.
func (s *session) register(number uint16, name, software string) {
	if s.Farm.Miners[number] != nil {
		s.unregister(number)
	}
	if s.srv.agentMiners.Add(1) > int64(s.srv.cfg.MaxAgentMiners) {
		s.srv.agentMiners.Add(-1)
		s.srv.metrics.framesIgnored.WithLabelValues("limit").Inc()
		return
	}
	own := s.Workers[0]
	own.Conduct = guard.Conduct{}
	own.Name, own.ID = name, s.srv.workerID(own.UserName, name)
	m := &farmMiner{worker: own, Agent: software}
	start := s.Miner.Difficulty
	difficulty := start.Difficulty
	if before := s.Farm.Past[number]; before != nil && before.worker.ID == own.ID && before.worker.UserID == own.UserID {
		m = before // what it was told of earlier jobs holds
		m.Agent = software
		difficulty = m.Difficulty.Difficulty
	}
	delete(s.Farm.Past, number)
	m.Difficulty = s.port.vardiff.Start(difficulty, max(start.Floor, s.leastDifficulty()), s.loop.now)
	m.tell(start.Difficulty, s.Farm.From, s.Farm.From-min(s.Farm.From, maxSentJobs))
	s.Farm.Miners[number] = m
	s.event(share.MinerConnect, m.worker, m.Agent, share.FromAgent)
}

// leastDifficulty is what an agent can be told: its frames have exponents from 0 on, and it reads whole numbers, unless
// it says that it can do better.
func (s *session) leastDifficulty() bitcoin.Difficulty {
	if s.V1.SmallDifficulties {
		return bitcoin.MinDifficulty
	}
	return 0
}

func (s *session) unregister(number uint16) {
	m := s.Farm.Miners[number]
	if m == nil {
		s.srv.metrics.framesIgnored.WithLabelValues("unregistered").Inc()
		return
	}
	delete(s.Farm.Miners, number)
	s.srv.agentMiners.Add(-1)
	s.event(share.MinerDead, m.worker, m.Agent, share.FromAgent)
}
