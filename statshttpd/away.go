package statshttpd

import (
	"context"
	"time"

	"btcpool/internal/retry"
)

// listen asks Kafka again and again whether it is there, until ctx ends: a topic with nothing new and a broker that is
// away look the same to whoever reads.
func (s *Service) listen(ctx context.Context) {
	const every = 3 * time.Second
	for {
		err := withTimeout(ctx, s.bus.Ping)
		if ctx.Err() != nil {
			return
		}
		s.kafka.Set(err)
		if err == nil {
			s.heard.Store(s.now().Unix())
		}
		if !retry.Sleep(ctx, every) {
			return
		}
	}
}

// away names what does not answer, so that figures are old.
func (s *Service) away() []string {
	names := []string{}
	if s.kafka.Err() != nil {
		names = append(names, "kafka")
	}
	if s.db.Load() == nil || s.looking.Err() != nil {
		names = append(names, "database")
	}
	return names
}

// sharesAsOf is until when shares are counted: now, or when Kafka answered last; nil when it never has.
func (s *Service) sharesAsOf() *time.Time {
	heard := s.heard.Load()
	switch now := s.moment(); {
	case heard == 0:
		return nil
	case s.kafka.Err() == nil:
		return &now
	default:
		at := time.Unix(heard, 0).UTC()
		return &at
	}
}
