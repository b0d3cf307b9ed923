package sharelogger

import (
	"context"
	"errors"
	"fmt"

	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// repair takes from the topic again what is damaged in the file of Config.Repair. The folder is locked meanwhile, so
// that nobody else writes to it.
func (s *chainLog) repair(ctx context.Context) error {
	day := s.cfg.Repair
	done, err := s.writer.Repair(day, func(g *sharefile.Gap) error { return s.refill(ctx, g) })
	for _, g := range done.Gaps {
		s.log.Info().Int64("offset", g.At).Int64("bytes", g.Bytes).Int("shares", g.Added).Msg("shares taken from the topic again")
	}
	if err != nil {
		err = fmt.Errorf("share file of %d is not repaired: %w", day, err)
	}
	if done.Aside != "" {
		s.log.Info().Int("day", int(day)).Str("before", done.Aside).Msg("share file was replaced")
	} else if err == nil {
		s.log.Info().Int("day", int(day)).Msg("share file lacks nothing that the topic has")
	}
	return err
}

// errEnough ends the reading of a topic.
var errEnough = errors.New("enough was read")

// refill adds the shares of a gap.
func (s *chainLog) refill(ctx context.Context, g *sharefile.Gap) error {
	left := make(map[int]bool) // partitions that are not read up to the gap's end
	for p, to := range g.To {
		if from := g.From[p]; from < to {
			left[p] = true
		}
	}
	if len(left) == 0 {
		return nil
	}
	last := make(map[int]bus.Mark)
	for p, from := range g.From {
		last[p] = bus.Mark{Offset: from - 1}
	}
	began := make(map[int]bool)
	reading, stop := context.WithCancel(ctx)
	defer stop()
	err := s.bus.Read(reading, s.cfg.Kafka.Topics.Share, bus.After(last, 0), func(m bus.Message) error {
		if !left[m.Partition] {
			return nil
		}
		from, ok := g.From[m.Partition]
		if !began[m.Partition] && m.Offset > from {
			if ok || g.Whole() {
				return fmt.Errorf("the topic has no messages from %d to %d of partition %d any more", from, m.Offset-1, m.Partition)
			}
			s.log.Warn().Int("partition", m.Partition).Int64("offset", m.Offset).Time("from", m.Time).
				Msg("the topic has no messages before: shares may be missing")
		}
		began[m.Partition] = true
		if m.Offset < g.To[m.Partition] {
			var sh share.Share
			if body, _, err := s.parse(m, &sh); err == nil {
				if err := g.Add(m.Partition, m.Offset, &sh, body); err != nil {
					return err
				}
			}
		}
		if m.Offset+1 >= g.To[m.Partition] {
			if delete(left, m.Partition); len(left) == 0 {
				return errEnough
			}
		}
		return nil
	}, bus.CaughtUp(stop))
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: it ends before what was read of it once", sharefile.ErrOtherTopic)
}
