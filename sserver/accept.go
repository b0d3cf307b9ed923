package sserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/poll"
)

// accept starts a session for each connection until the port is closed.
func (s *Service) accept(ctx context.Context, p *port) error {
	for next := 0; ; next++ {
		conn, ip, err := p.Accept()
		if err == nil {
			s.welcome(p, conn, ip, s.loops[next%len(s.loops)])
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		// Out of descriptors, most likely: that passes.
		s.metrics.refused.WithLabelValues("accept").Inc()
		s.log.Error().Err(err).Msg("connection not accepted")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// welcome makes a session of conn, if ip may have one, and gives it to l. Of a
// proxy's it has to be heard first who connects.
func (s *Service) welcome(p *port, conn poll.Link, ip netip.Addr, l *loop) {
	now := time.Now()
	session := &session{
		state: state{IP: ip},
		srv:   s,
		port:  p,
		loop:  l,
		link:  conn,
	}
	refusal := ""
	switch {
	case s.open.Add(1) > int64(s.cfg.MaxConnections):
		refusal = "limit"
	case contains(p.proxies, ip):
		session.protocol, session.readBy = proxied{stratumV1{session}}, now.Add(proxyGrace)
	default:
		refusal = s.admit(session, now)
	}
	if refusal == "" {
		l.Post(func() { l.add(session) }) // the loop ends after the last accept
		return
	}
	s.metrics.refused.WithLabelValues(refusal).Inc()
	s.open.Add(-1)
	conn.Close()
}

// admit makes session that of a miner at its address, or says why there must be
// none.
func (s *Service) admit(session *session, now time.Time) (refusal string) {
	if refusal := s.guard.Admit(session.IP, now); refusal != "" {
		return refusal
	}
	id, ok := s.ids.get(now)
	if !ok {
		s.guard.Leave(session.IP, now)
		return "session ids"
	}
	p := session.port
	session.ID = id
	session.Miner.Difficulty = p.vardiff.Start(p.difficulty, p.vardiff.Min, now)
	session.protocol, session.readBy = stratumV1{session}, now.Add(s.cfg.LoginTimeout.Std())
	session.admitted = true
	session.Since = now
	s.metrics.sessions[connected].Inc()
	return ""
}

// disconnect undoes admit, with all that came of it.
func (s *Service) disconnect(session *session, now time.Time) {
	reason := disconnectReason(session.why)
	if reason != "" {
		s.metrics.disconnected.WithLabelValues(reason).Inc()
		s.log.Debug().Err(session.why).Str("session", session.sessionID()).Stringer("ip", session.IP).Msg("disconnected")
	}
	if !session.admitted {
		if !errors.Is(session.why, errNotAdmitted) {
			s.metrics.refused.WithLabelValues("proxy header").Inc()
		}
		return
	}
	s.metrics.sessions[session.Phase].Dec()
	before := session.end()
	switch {
	case session.Farm != nil:
		s.agentMiners.Add(-int64(len(session.Farm.Miners)))
		s.ids.put(session.ID, now)
	case session.Phase != authorized:
		s.ids.put(session.ID, now)
	default:
		s.ids.putPast(session.ID, before, session.IP, now)
	}
	s.guard.Leave(session.IP, now)
}

// onLoops has all loops do something.
func (s *Service) onLoops(do func(*loop)) {
	for _, l := range s.loops {
		l.Post(func() { do(l) })
	}
}

// post has the session's loop do something with it, unless it is over by then.
func (s *session) post(do func()) {
	s.loop.Post(func() { s.loop.visit(s, func(*session) { do() }) })
}

// allSessions returns those there are now, as far as the loops tell before ctx
// ends. What is done with them is done by session.post or Service.visit.
func (s *Service) allSessions(ctx context.Context) []*session {
	var all []*session
	for _, l := range s.loops {
		_ = l.Call(ctx, func() { all = append(all, l.sessions...) }) // those of the others are enough
	}
	return all
}

// visitStep is how many sessions are visited in a turn of their loop.
const visitStep = 256

// visit has the loops do something with each of some sessions that is not over
// by then. It does not keep the loops from their work for long.
func (s *Service) visit(ctx context.Context, sessions []*session, do func(*session)) error {
	for _, l := range s.loops {
		var own []*session
		for _, session := range sessions {
			if session.loop == l {
				own = append(own, session)
			}
		}
		for step := range slices.Chunk(own, visitStep) {
			if err := l.Call(ctx, func() {
				for _, session := range step {
					l.visit(session, do)
				}
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loop) visit(s *session, do func(*session)) {
	if !s.over {
		defer l.settle(s)
		do(s)
	}
}

// release lets the loops send the answers that waited for the disk. It is
// called by the spool of shares.
func (s *Service) release(durable uint64, failure error) {
	s.onLoops(func(l *loop) { l.release(durable, failure) })
}

// tick gives the loops their time until ctx ends.
func (s *Service) tick(ctx context.Context) error {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.onLoops((*loop).tick)
		}
	}
}

// idleTimeout is how long an authorized miner may be silent.
func (s *Service) idleTimeout(patient bool) time.Duration {
	if patient {
		return s.cfg.LongTimeout.Std()
	}
	return s.cfg.TCPReadTimeout.Std()
}

// hangUp ends all sessions, and the loops. Nothing is accepted any more.
func (s *Service) hangUp(loops *errgroup.Group) error {
	s.onLoops((*loop).leave)
	force := time.AfterFunc(closeGrace, func() { s.onLoops((*loop).cutAll) })
	defer force.Stop()
	err := loops.Wait()
	s.goroutines.Wait()
	return err
}
