package sserver

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"btcpool/internal/service"
	"btcpool/internal/stratum"
)

// Drain says how miners leave a server that stops.
type Drain struct {
	Grace       service.Duration `toml:"grace"`        // over which they are sent away, evenly; they go on mining until it is their turn
	ReconnectTo string           `toml:"reconnect_to"` // host:port where they are to go; "": where they came from
}

const (
	drainStep = 100 * time.Millisecond
	// drainLinger is what a miner gets for its last shares after it was sent away.
	drainLinger = 2 * time.Second
)

func (d Drain) validate(stop time.Duration) error {
	if d.Grace < 0 {
		return fmt.Errorf("drain.grace = %q: must not be negative", d.Grace)
	}
	if limit := stop - drainLinger - closeGrace - eventGrace; d.Grace > 0 && d.Grace.Std() > limit {
		return fmt.Errorf("drain.grace = %q: must be at most %s, or stop_timeout = %q longer", d.Grace, max(limit, 0), stop)
	}
	if d.ReconnectTo == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(d.ReconnectTo)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || host == "" || n == 0 {
		return fmt.Errorf("drain.reconnect_to = %q: must be host:port", d.ReconnectTo)
	}
	return nil
}

// message returns what miners are sent away with.
func (d Drain) message() []byte {
	host, text, _ := net.SplitHostPort(d.ReconnectTo) // valid or empty
	port, _ := strconv.ParseUint(text, 10, 16)
	return stratum.AppendReconnect(nil, host, uint16(port), 0)
}

// drain sends all miners away within the grace period. Nothing is accepted any
// more.
func (s *Service) drain(ctx context.Context) {
	if s.cfg.Drain.Grace == 0 {
		return
	}
	var waiting []*session
	for _, part := range s.roster.parts {
		waiting = append(waiting, part.all(nil)...)
	}
	s.log.Info().Int("sessions", len(waiting)).Stringer("grace", s.cfg.Drain.Grace).Msg("sending miners away")
	var (
		message = s.cfg.Drain.message()
		steps   = max(int(s.cfg.Drain.Grace.Std()/drainStep), 1)
		total   = len(waiting)
		groups  [][]*session // sent away, one group a step
		ticker  = time.NewTicker(drainStep)
	)
	defer ticker.Stop()
	for step := 1; s.open.Load() > 0 && step <= steps+int(drainLinger/drainStep); step++ {
		group := waiting[:len(waiting)-max(total-total*step/steps, 0)]
		waiting = waiting[len(group):]
		for _, session := range group {
			_ = session.send(message) // fails only if it has ended
		}
		groups = append(groups, group)
		if past := len(groups) - int(drainLinger/drainStep); past > 0 {
			for _, session := range groups[past-1] {
				session.hangUp()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
