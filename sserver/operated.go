package sserver

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"btcpool/internal/guard"
	"btcpool/internal/share"
	"btcpool/internal/userchain"
	"btcpool/sserver/operator"
)

// operated is the server as the operator sees it, an operator.Server.
type operated struct{ *Service }

func (s operated) Status() operator.Status {
	v := operator.Status{
		Started:           s.started,
		ServerID:          s.serverID.Load(),
		NotReady:          s.Ready(),
		Connections:       s.open.Load(),
		AgentMiners:       s.agentMiners.Load(),
		Sessions:          make(map[string]int64),
		Shares:            make(map[share.Status]int64),
		MaxConnections:    s.cfg.MaxConnections,
		DefaultDifficulty: s.cfg.startDifficulty(),
		ShareInterval:     s.cfg.ShareInterval.Std(),
		Users:             s.cfg.Users.Kind,
	}
	for p := range phases {
		v.Sessions[p.String()] = s.metrics.sessions[p].Load()
	}
	for _, c := range s.chains {
		of := c.status()
		for status, n := range of.Shares {
			v.Shares[status] += n
		}
		if c.index == uint8(s.first) {
			v.Job = of.Job
		}
		if s.cfg.several() {
			v.Chains = append(v.Chains, of)
		}
	}
	for _, addr := range s.Addrs() {
		v.Listen = append(v.Listen, addr.String())
	}
	return v
}

func (c *chain) status() operator.Chain {
	v := operator.Chain{Name: c.name, NotReady: c.err(), Sessions: c.miners.Load(), Shares: make(map[share.Status]int64)}
	for status, count := range c.metrics.shares {
		if n := count.Load(); n > 0 && status != share.StatusAcceptStale {
			v.Shares[status] = n
		}
	}
	if r := c.jobs.round.Load(); r != nil {
		v.Job = &operator.Job{ID: uint64(r.work.ID), Height: r.work.Height, MadeAt: r.work.ID.Time().UTC()}
	}
	return v
}

var errOneChain = errors.New("there is one chain")

func (s operated) SwitchAuto(id string, shares userchain.Shares) (operator.Switched, error) {
	if s.board == nil {
		return operator.Switched{}, errOneChain
	}
	return s.board.switchAuto(id, shares)
}

func (s operated) Visit(ctx context.Context, do func(operator.Session)) error {
	return s.visit(ctx, s.allSessions(ctx), func(session *session) {
		if session.admitted {
			do(operatedSession{session})
		}
	})
}

func (s operated) SendAway(ctx context.Context, grace time.Duration, to operator.Place) error {
	s.sendAway(ctx, grace, to)
	return s.visit(ctx, s.allSessions(ctx), func(session *session) {
		session.reconnect(to)
		session.finish(nil)
	})
}

func (s operated) Guard() *guard.Guard { return s.guard }
func (s operated) CountBan()           { s.metrics.bans.WithLabelValues("operator").Inc() }

// operatedSession is a session as the operator sees it, an operator.Session. Its loop calls.
type operatedSession struct{ *session }

func (s operatedSession) ID() uint32          { return s.session.ID }
func (s operatedSession) Address() netip.Addr { return s.IP }
func (s operatedSession) Software() string    { return s.Agent }

func (s operatedSession) Workers() iter.Seq2[string, string] {
	return func(yield func(user, name string) bool) {
		for i := range s.session.Workers {
			if w := &s.session.Workers[i]; !yield(w.UserName, w.Name) {
				return
			}
		}
		if s.Farm == nil {
			return
		}
		for _, m := range s.Farm.Miners {
			if !yield(m.worker.UserName, m.worker.Name) {
				return
			}
		}
	}
}

func (s operatedSession) View() operator.View {
	v := operator.View{
		ID:          s.session.ID,
		State:       s.Phase.String(),
		Chain:       s.chain().name,
		SubPool:     cmp.Or(s.SubPool, s.chain().cfg.SubPool.Name),
		Address:     s.IP,
		Listener:    s.port.Addr().String(),
		Software:    s.Agent,
		Miner:       s.Miner.view(s.Tally),
		Floor:       s.Miner.Difficulty.Floor,
		VersionMask: s.VersionMask,
		ConnectedAt: s.Since,
		Jobs:        len(s.Jobs),
		UnsentBytes: s.outbox.Len(),
	}
	for _, w := range s.session.Workers {
		v.Workers = append(v.Workers, w.view())
	}
	if s.Farm != nil {
		v.Miners = new(len(s.Farm.Miners))
	}
	return v
}

func (w worker) view() operator.Worker {
	return operator.Worker{User: w.UserName, UserID: w.UserID, Name: w.Name}
}

func (m *miner) view(shares tally) operator.Miner {
	v := operator.Miner{
		Difficulty: m.Difficulty.Difficulty,
		Fixed:      m.Fixed,
		Accepted:   shares.Accepted,
		Rejected:   shares.Rejected,
	}
	if shares.Last != 0 {
		v.LastShareAt = time.Unix(shares.Last, 0)
	}
	return v
}

func (s operatedSession) Miners(after, limit int) (page []operator.Miner, total int, ok bool) {
	if s.Farm == nil {
		return nil, 0, false
	}
	numbers := slices.Collect(maps.Keys(s.Farm.Miners))
	numbers = slices.DeleteFunc(numbers, func(n uint16) bool { return int(n) <= after })
	slices.Sort(numbers)
	for _, n := range numbers[:min(limit, len(numbers))] {
		m := s.Farm.Miners[n]
		v := m.view(m.Tally)
		v.Number, v.Worker, v.Software = n, m.worker.view(), m.Agent
		page = append(page, v)
	}
	return page, len(s.Farm.Miners), true
}

func (s operatedSession) Kick(to *operator.Place) {
	if to != nil {
		s.reconnect(*to)
	}
	s.discard = maxDiscard
	s.finish(errKicked)
}

func (s operatedSession) Ban() { s.finish(errBanned) }

func (s operatedSession) Message(text string) bool {
	if s.Phase != authorized {
		return false
	}
	s.message(text)
	return true
}

// SetDifficulty is operator.Session.SetDifficulty. Those who are no agents learn it at once, an agent's miners with
// their next job; the jobs before keep theirs.
func (s operatedSession) SetDifficulty(o operator.Order) (ok bool, miners int) {
	if s.Phase != authorized { // the login would undo it
		return false, 0
	}
	set := func(m *miner) {
		m.Difficulty = s.port.vardiff.Start(o.Difficulty, m.Difficulty.Floor, s.loop.now)
		m.Fixed = o.Fixed
	}
	if s.Farm == nil {
		if o.Number == nil {
			set(&s.Miner)
			s.refresh()
		}
		return true, 0
	}
	for number, m := range s.Farm.Miners {
		if o.Meant(m.worker.UserName, m.worker.Name) && (o.Number == nil || *o.Number == number) {
			set(&m.miner)
			miners++
		}
	}
	return true, miners
}
