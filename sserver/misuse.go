package sserver

import (
	"btcpool/internal/share"
)

// What a session, a worker or an agent's miner does wrong is acted on where it is done. Others at the same address, on
// the same connection or behind the same agent pay for it only when there is nobody good among them.

// regard lets what the guard thinks of the session follow a share: good is who has logged in, unless all that came was
// invalid.
func (s *session) regard(status share.Status) {
	switch {
	case status.IsAccepted():
		s.trust()
	case s.Tally.Accepted == 0 && status.IsMinersFault():
		s.distrust()
	}
}

func (s *session) trust() {
	if !s.Trusted {
		s.Trusted = true
		s.srv.guard.Trust(s.IP)
	}
}

func (s *session) distrust() {
	if s.Trusted {
		s.Trusted = false
		s.srv.guard.Distrust(s.IP)
	}
}

// condemn acts on whom sub is from, whose shares are worthless.
func (s *session) condemn(sub *submission) {
	switch {
	case !s.srv.guard.Watches(s.IP):
	case sub.miner != &s.Miner:
		s.bar(sub.worker, "agent miner")
	case s.hasOthers(sub.worker):
		s.bar(sub.worker, "worker")
	default:
		s.distrust()
		if s.srv.guard.Ban(s.IP, "invalid shares", s.loop.now) {
			s.banned("invalid shares")
		} else {
			s.misused()
		}
	}
}

// bar has the shares of w refused for a while.
func (s *session) bar(w *worker, kind string) {
	w.Conduct.Bar(s.loop.now.Add(s.srv.cfg.Limits.BanTime.Std()))
	s.srv.metrics.culprits.WithLabelValues(kind).Inc()
	s.srv.log.Info().Str("session", s.sessionID()).Str("worker", w.fullName()).Stringer("ip", s.IP).
		Msg("shares are refused for a while: too many were invalid")
}

// hasOthers reports whether somebody other than w on the connection is good.
func (s *session) hasOthers(w *worker) bool {
	if s.Farm != nil && len(s.Farm.Miners) > 0 {
		return true
	}
	for i := range s.Workers {
		if other := &s.Workers[i]; other != w && other.Conduct.Good(s.loop.now) {
			return true
		}
	}
	return false
}

// refuse counts a login that is not granted, those against its session and its address that are for what the miner
// said.
func (s *session) refuse(reason string, status share.Status) share.Status {
	s.srv.metrics.loginsRefused.WithLabelValues(reason).Inc()
	if status == share.StatusInternalError {
		return status
	}
	s.Refused++
	if s.srv.guard.LoginRefused(s.IP, s.loop.now) {
		s.banned("logins")
		return share.StatusIPBanned
	}
	if !s.Trusted && s.srv.guard.TooManyRefused(s.IP, s.Refused) {
		s.misused()
	}
	return status
}

// banned ends the session, whose address was banned.
func (s *session) banned(reason string) {
	s.srv.metrics.bans.WithLabelValues(reason).Inc()
	s.endFor(errBanned)
}

// misused ends the session, whose address others need.
func (s *session) misused() {
	s.srv.metrics.culprits.WithLabelValues("session").Inc()
	s.endFor(errMisuse)
}

func (s *session) endFor(misuse error) {
	s.loop.sc.misuse = misuse
	s.discard = maxDiscard // the miner is to learn why
}
