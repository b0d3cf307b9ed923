package sserver

import (
	"slices"
	"strings"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/stratum"
)

const (
	// agentPrefix begins the user agent of BTCAgent and its like.
	agentPrefix = "btccom-agent/"
	// fromAgent is what events say of miners behind an agent.
	fromAgent = "from_btcagent"
	// maxAgentFrame is more than any frame to the pool needs, in bytes: names
	// are not cut before they are sent.
	maxAgentFrame = 1024
)

// farm is what an agent speaks for.
type farm struct {
	Miners map[agentwire.Session]*farmMiner
}

// farmMiner is a miner behind an agent: a worker of its own.
type farmMiner struct {
	miner
	worker worker
	Tally  tally
	Agent  string // its software, as it says
}

func isAgent(userAgent string) bool { return strings.HasPrefix(userAgent, agentPrefix) }

// tell notes the difficulties that the miners have from job number on and
// returns those that are new to them.
func (f *farm) tell(number, oldest uint32) (news map[agentwire.Session]bitcoin.Difficulty) {
	for id, m := range f.Miners {
		d := m.Difficulty.Difficulty
		if d < 0 { // no frame can say it: only the agent's own, for a beginning
			d = min(m.announced(), 0)
		}
		if d == m.announced() {
			continue
		}
		m.tell(d, number, oldest)
		if news == nil {
			news = make(map[agentwire.Session]bitcoin.Difficulty)
		}
		news[id] = d
	}
	return news
}

// handleFrame appends the answer to one frame of an agent, if it has any. An
// error ends the session.
func (c v1) handleFrame(f agentwire.Frame, now time.Time, sc *scratch) error {
	if c.Farm == nil || c.Phase != authorized {
		return c.bad()
	}
	switch f.Command {
	case agentwire.CmdSubmit, agentwire.CmdSubmitTime, agentwire.CmdSubmitVersion, agentwire.CmdSubmitTimeVersion:
		sub, err := agentwire.ParseSubmit(f)
		if err != nil {
			return c.bad()
		}
		c.submitFrame(sub, now, sc)
	case agentwire.CmdRegister:
		reg, err := agentwire.ParseRegister(f)
		if err != nil {
			return c.bad()
		}
		c.register(reg, now)
	case agentwire.CmdUnregister:
		un, err := agentwire.ParseUnregister(f)
		if err != nil {
			return c.bad()
		}
		c.unregister(un.Session, now)
	default:
		c.srv.metrics.framesIgnored.WithLabelValues("command").Inc()
	}
	return nil
}

// submitFrame judges a share. One of a miner that nobody registered gets no
// answer: agents do not count it.
func (c v1) submitFrame(sub agentwire.Submit, now time.Time, sc *scratch) {
	m := c.Farm.Miners[sub.Session]
	if m == nil {
		c.srv.metrics.framesIgnored.WithLabelValues("unregistered").Inc()
		return
	}
	status := c.judge(&submission{
		miner:       &m.miner,
		worker:      &m.worker,
		job:         sub.JobID,
		extraNonce2: sub.Session.ExtraNonce2(sub.ExtraNonce2),
		time:        sub.Time,
		jobTime:     sub.Time == 0,
		nonce:       sub.Nonce,
		versionBits: sub.VersionBits,
		rolled:      sub.Rolled,
	}, now, sc)
	m.Tally.add(status, now)
	if c.Responses {
		sc.out = agentwire.SubmitResponse{Index: c.Submits, Status: status.Told()}.AppendTo(sc.out)
	}
	c.Submits++
}

// register takes a miner in. It begins with the agent's own difficulty, which
// the agent has told it. One that has its session already is gone.
func (c v1) register(r agentwire.Register, now time.Time) {
	if c.Farm.Miners[r.Session] != nil {
		c.unregister(r.Session, now)
	}
	if c.srv.agentMiners.Add(1) > int64(c.srv.cfg.MaxAgentMiners) {
		c.srv.agentMiners.Add(-1)
		c.srv.metrics.framesIgnored.WithLabelValues("limit").Inc()
		return
	}
	own := c.Workers[0]
	own.Name, own.ID = r.Worker, share.WorkerID(r.Worker)
	m := &farmMiner{worker: own, Agent: r.Agent}

	start := c.Miner.Difficulty
	m.Difficulty = c.port.vardiff.Start(start.Difficulty, max(start.Floor, min(start.Difficulty, 0)), now)
	m.tell(start.Difficulty, 0, 0)
	c.Farm.Miners[r.Session] = m
	c.event(share.MinerConnect, m.worker, m.Agent, fromAgent, now)
}

func (c v1) unregister(id agentwire.Session, now time.Time) {
	m := c.Farm.Miners[id]
	if m == nil {
		c.srv.metrics.framesIgnored.WithLabelValues("unregistered").Inc()
		return
	}
	delete(c.Farm.Miners, id)
	c.srv.agentMiners.Add(-1)
	c.event(share.MinerDead, m.worker, m.Agent, fromAgent, now)
}

// capabilities answers agent.get_capabilities, which comes at any time.
func (c v1) capabilities(req stratum.Request, sc *scratch) share.Status {
	wishes, err := stratum.ParseCapabilities(req.Params)
	if err != nil {
		return share.StatusIllegalParams
	}
	c.Responses = c.Responses || slices.Contains(wishes, stratum.SubmitResponses)
	sc.out = stratum.AppendCapabilities(sc.out, req.ID)
	return answered
}
