package sserver

import (
	"context"
	"time"

	"btcpool/internal/config"
	"btcpool/sserver/operator"
)

// Drain says how miners leave a server that stops.
type Drain struct {
	// Grace is the time over which they are sent away, evenly; they go on mining until it is their turn. 0: all
	// connections are closed at once.
	Grace config.Duration `toml:"grace"`
	// ReconnectTo is host:port where they are to go; "": where they came from.
	ReconnectTo string `toml:"reconnect_to"`
}

const (
	drainStep = 100 * time.Millisecond
	// drainLinger is what a miner gets for its last shares after it was sent away.
	drainLinger = 2 * time.Second
)

func (d Drain) validate(stop time.Duration) error {
	var faults config.Faults
	faults.AtLeast("grace", d.Grace, 0)
	if limit := stop - drainLinger - closeGrace - eventGrace; d.Grace > 0 && d.Grace.Std() > limit {
		faults.Addf("grace = %q: must be at most %s, or stop_timeout = %q longer", d.Grace, max(limit, 0), stop)
	}
	_, err := operator.ParsePlace(d.ReconnectTo)
	faults.Value("reconnect_to", d.ReconnectTo, err)
	return faults.Err()
}

// drain sends all miners away within the grace period of the configuration. Nothing is accepted any more.
func (s *Service) drain(ctx context.Context) {
	if s.cfg.Drain.Grace > 0 {
		to, _ := operator.ParsePlace(s.cfg.Drain.ReconnectTo) // valid
		s.sendAway(ctx, s.cfg.Drain.Grace.Std(), to)
	}
}

// sendAway sends all sessions there are to a place, evenly over a time, and ends each a moment later, until ctx ends.
func (s *Service) sendAway(ctx context.Context, grace time.Duration, to operator.Place) {
	waiting := s.allSessions(ctx)
	s.log.Info().Int("sessions", len(waiting)).Stringer("grace", grace).Msg("sending miners away")
	var (
		steps  = max(int(grace/drainStep), 1)
		total  = len(waiting)
		groups [][]*session // sent away, one group a step, that have not been ended
		ticker = time.NewTicker(drainStep)
	)
	defer ticker.Stop()
	for step := 1; s.open.Load() > 0 && step <= steps+int(drainLinger/drainStep); step++ {
		group := waiting[:len(waiting)-max(total-total*step/steps, 0)]
		waiting = waiting[len(group):]
		for _, session := range group {
			session.post(func() { session.reconnect(to) })
		}
		if groups = append(groups, group); len(groups) > int(drainLinger/drainStep) {
			for _, session := range groups[0] {
				session.post(func() { session.finish(nil) })
			}
			groups = groups[1:]
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
