package switcher

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"btcpool/internal/chainwatch"
	"btcpool/internal/stratum"
)

// How a miner goes from one server to another. It stays where it is until the next one has let it in and has given it a
// job; then it hears, in this order, of another extranonce, of other version bits, of the difficulty, and of that job,
// which makes those before worthless. The server that it was at takes its shares for a while.

// follow has the miner go where its user's node says.
func (s *session) follow(answer chainwatch.Answer, asked time.Time) {
	if s.Phase != mining && s.Phase != joining {
		return // it is about to be found
	}
	if !answer.Known && s.srv.registrations != nil {
		return // the node is gone: whoever it is for is to be registered when it comes again
	}
	to := s.srv.target(s.Name.user, answer)
	if to == nil || to == s.to {
		return
	}
	s.to, s.Chain, s.tries, s.avoid = to, to.Name, 0, nil
	switch {
	case s.Phase == joining:
		s.join()
	case s.now != nil && s.now.chain == to: // back again
		s.sendAway, s.moving, s.retryAt = time.Time{}, time.Time{}, time.Time{}
		if s.next != nil {
			s.next.leave()
			s.next = nil
		}
	case s.Farm:
		spread := s.srv.cfg.AgentSwitchSpread.Std()
		s.sendAway = s.loop.now.Add(rand.N(spread + 1)) //nolint:gosec // who is first; nobody gains by guessing
		s.wake()
	default:
		s.moving = asked
		s.join()
	}
}

// cutOver has the miner go to the server that has let it in.
func (s *session) cutOver() {
	u, old := s.next, s.now
	s.next, s.now = nil, u
	s.lost, s.retryAt, s.tries, s.avoid = time.Time{}, time.Time{}, 0, nil
	if old != nil {
		s.leavePast(old)
	}
	if old == nil || old.chain != u.chain {
		s.countChain(u.chain)
	}
	if u.fit(); !u.fits() { // the miner may have another than when the server was asked
		s.misfit()
		return
	}
	first := s.Phase == joining
	if first {
		s.loop.out = stratum.AppendTrue(s.loop.out, s.LoginID)
		s.LoginID = nil
		s.setPhase(mining)
		s.srv.metrics.logins.WithLabelValues("ok").Inc()
		s.readBy = s.loop.now.Add(s.idleTimeout())
	}
	s.tellExtraNonce(u)
	s.tellMask(u)
	if u.difficulty == nil && !first {
		u.difficulty = []byte("[1]") // what a server means that says nothing
	}
	if u.difficulty != nil {
		s.Difficulty = u.difficulty
		s.loop.out = append(append(append(s.loop.out, `{"id":null,"method":"mining.set_difficulty","params":`...), u.difficulty...), "}\n"...)
	}
	s.loop.out = append(s.loop.out, u.early...)
	u.early = nil
	if !s.moving.IsZero() {
		s.srv.metrics.switchSeconds.Observe(time.Since(s.moving).Seconds())
		s.moving = time.Time{}
	}
	switch {
	case first:
		s.goOn()
	case old != nil && old.chain != u.chain || old == nil && s.lastChain != u.chain:
		s.srv.metrics.switches.WithLabelValues(u.chain.Name).Inc()
		s.srv.log.Debug().Str("session", s.sessionID()).Str("user", s.Name.user).Str("chain", u.chain.Name).Str("server", u.server.Addr).Msg("miner switched")
	default:
		s.srv.metrics.failovers.WithLabelValues(u.chain.Name).Inc()
	}
	s.lastChain = u.chain
}

// leavePast has a server that the miner leaves take its shares for a while.
func (s *session) leavePast(u *upstream) {
	u.until = s.loop.now.Add(s.srv.cfg.Grace.Std())
	u.early = nil
	s.past = append(s.past, u)
	if len(s.past) > maxPast {
		s.part(s.past[0])
	}
	s.wake()
}

// retire lets go of servers whose time is over.
func (s *session) retire() {
	for len(s.past) > 0 && !s.loop.now.Before(s.past[0].until) {
		u := s.past[0]
		if len(u.questions) > 0 && s.loop.now.Sub(u.until) < s.srv.cfg.AnswerTimeout.Std() {
			return
		}
		s.part(u)
	}
}

// part lets go of a server that the miner was at, with what it has not answered.
func (s *session) part(u *upstream) {
	s.forsake(u)
	s.forget(u)
	u.leave()
}

// forget takes a server from those that the miner was at.
func (s *session) forget(u *upstream) {
	if s.past = slices.DeleteFunc(s.past, func(p *upstream) bool { return p == u }); len(s.past) == 0 {
		s.past = nil
	}
}

// forsake answers what a server will not.
func (s *session) forsake(u *upstream) {
	for _, q := range u.questions {
		if q.kind == askedSubmit {
			s.srv.metrics.shares.WithLabelValues(u.chain.Name, "lost").Inc()
		}
		s.refuse(q.id, refuseLost)
	}
	u.questions = nil
}

// fail ends a connection to a server that is of no use. A miner that was there goes to another one.
func (u *upstream) fail(why error) {
	s := u.session
	if s == nil || u.over {
		return
	}
	s.forsake(u)
	switch {
	case s.now == u:
		s.srv.metrics.upstreamsLost.WithLabelValues(u.chain.Name).Inc()
		s.now = nil
		s.lost, s.avoid = s.loop.now, u.server
		s.wake()
		if s.next == nil && !s.closing && s.sendAway.IsZero() {
			if s.Farm {
				s.finish(errUpstream)
			} else {
				s.join()
			}
		}
	case s.next == u:
		s.next = nil
		s.failed(u, why)
	default:
		s.forget(u)
	}
	u.drop()
}

// retries are the pauses between tries to get into a server.
var retries = [...]time.Duration{0, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// refusedPause is how long a server is let alone that does not know the user.
const refusedPause = 30 * time.Second

// failed has a miner try again that was not let in.
func (s *session) failed(u *upstream, why error) {
	if s.closing {
		return
	}
	s.avoid = u.server
	result, pause := "failed", retries[min(s.tries, len(retries)-1)]
	if errors.Is(why, errNotAllowed) {
		result, pause = "refused", refusedPause
	}
	if s.now != nil && !s.moving.IsZero() {
		s.srv.metrics.switchesFailed.WithLabelValues(u.chain.Name, result).Inc()
		s.srv.switchLog.Warn().Err(why).Str("user", s.Name.user).Str("chain", u.chain.Name).Str("server", u.server.Addr).Msg("a miner is not switched yet")
	}
	s.tries++
	s.retryAt = s.loop.now.Add(pause/2 + rand.N(pause+1)) //nolint:gosec // apart from each other
	s.wake()
}

// abandon ends a session that no server has taken for too long.
func (s *session) abandon() {
	if s.Phase == joining {
		s.srv.metrics.logins.WithLabelValues("refused").Inc()
		s.endRefused(s.LoginID, refuseNoServer)
		s.why = errNoServer
		return
	}
	s.finish(errNoServer)
}

// fit finds out how the miner's extranonce goes with the server's.
func (u *upstream) fit() {
	s := u.session
	u.ext.Coinbase1, u.ext.ExtraNonce2, u.asIs = nil, nil, false
	own := len(s.ExtraNonce1) / 2
	pad := u.extraNonce2Size - own - s.ExtraNonce2Size
	switch {
	case bytes.Equal(u.extraNonce1, s.ExtraNonce1) && u.extraNonce2Size == s.ExtraNonce2Size:
		u.asIs = true
	case s.Farm:
	case pad >= 0:
		zeros := bytes.Repeat([]byte("00"), pad)
		u.ext.Coinbase1 = append(bytes.Clone(u.extraNonce1), zeros...)
		u.ext.ExtraNonce2 = append(zeros, s.ExtraNonce1...)
	}
}

// inside reports whether the miner's extranonce is a part of the server's.
func (u *upstream) inside() bool { return u.ext.ExtraNonce2 != nil }

// fits reports whether the miner can mine for the server on this connection.
func (u *upstream) fits() bool {
	return u.asIs || u.inside() || u.session.TakesExtraNonce && !u.session.Farm
}

// unfit is called when the miner cannot.
func (u *upstream) unfit() {
	s := u.session
	s.srv.metrics.unfit.WithLabelValues(u.chain.Name).Inc()
	if s.Phase == joining {
		s.endLogin(refuseNoServer)
		s.why = errExtraNonce
		return
	}
	s.misfit()
}

// misfit ends a session whose miner cannot go over to the extranonce of its server: it is asked to connect again, if it
// may be.
func (s *session) misfit() {
	if s.srv.cfg.Reconnect && !s.Farm {
		s.loop.out = stratum.AppendReconnect(s.loop.out, "", 0, 0)
		s.refused()
		s.finish(errReconnect)
		return
	}
	s.finish(errExtraNonce)
}

// tellExtraNonce tells the miner of the server's extranonce, where its own is not a part of it.
func (s *session) tellExtraNonce(u *upstream) {
	if u.asIs || u.inside() {
		return
	}
	if !u.fits() {
		s.misfit()
		return
	}
	s.ExtraNonce1, s.ExtraNonce2Size = u.extraNonce1, u.extraNonce2Size
	u.asIs = true
	s.srv.metrics.extraNonces.Inc()
	s.loop.out = stratum.AppendSetExtranonce(s.loop.out, s.ExtraNonce1, s.ExtraNonce2Size)
}

// tellMask tells the miner which version bits it may roll, if that is new.
func (s *session) tellMask(u *upstream) {
	if mask := s.Wanted & u.mask; s.Rolls && mask != s.Told {
		s.Told = mask
		s.loop.out = stratum.AppendSetVersionMask(s.loop.out, mask)
	}
}

// trust counts the session among the good ones of its address.
func (s *session) trust() {
	if !s.Trusted {
		s.Trusted = true
		s.srv.guard.Trust(s.IP)
	}
}
