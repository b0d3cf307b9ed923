package sserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"btcpool/internal/poll"
	"btcpool/internal/retry"
)

// accept starts a session for each connection until the port is closed.
func (s *Service) accept(ctx context.Context, p *port) error {
	for next := 0; ; next++ {
		l := s.loops[next%len(s.loops)]
		err := s.gate.Accept(p.Listener, func(conn poll.Link, ip netip.Addr) { s.welcome(p, conn, ip, l) })
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		// Out of descriptors, most likely: that passes.
		s.metrics.refused.WithLabelValues("accept").Inc()
		s.acceptLog.Do(func() {
			s.log.Error().Err(err).Msg("connections are not accepted: if files are too many, raise LimitNOFILE, or ulimit -n")
		})
		retry.Sleep(ctx, 100*time.Millisecond)
	}
}

// welcome makes a session of conn, if ip may have one, and gives it to l. Of a proxy's it has to be heard first who
// connects.
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
	case s.open.Add(1) > int64(s.maxConnections):
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

// admit makes session that of a miner at its address, or says why there must be none.
func (s *Service) admit(session *session, now time.Time) (refusal string) {
	if refusal := s.guard.Admit(session.IP, now); refusal != "" {
		return refusal
	}
	id, ok := s.ids.get(now)
	if !ok {
		s.guard.Leave(session.IP, false, now)
		return "session ids"
	}
	p := session.port
	session.Chain = uint8(s.first)
	session.ID = id
	session.Miner.Difficulty = p.vardiff.Start(p.difficulty, p.vardiff.Min, now)
	session.protocol, session.readBy = stratumV1{session}, now.Add(s.cfg.LoginTimeout.Std())
	session.admitted = true
	session.Since = now
	s.metrics.sessions[connected].Add(1)
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
	s.metrics.sessions[session.Phase].Add(-1)
	if session.Phase == authorized {
		session.chain().miners.Add(-1)
	}
	if s.board != nil {
		s.board.leave(session)
	}
	before := session.end()
	if session.Farm != nil {
		s.agentMiners.Add(-int64(len(session.Farm.Miners)))
	}
	switch {
	case session.Phase != authorized && !session.Resumed:
		s.ids.put(session.ID, now)
	default:
		s.ids.putPast(session.ID, before, session.IP, now)
	}
	s.guard.Leave(session.IP, session.Trusted, now)
}
