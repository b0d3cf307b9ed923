package sharelogger

import (
	"context"
	"errors"
	"fmt"

	"btcpool/internal/bus"
)

var errForeign = errors.New("other software was the last to write to data_dir")

// start is where to begin in the topic: where the files end, or where other software stopped that wrote them, or what is
// configured. It does not guess whose shares are in the files: they would be there twice, or be missing.
func (s *chainLog) start(ctx context.Context) (bus.Start, error) {
	last, ours := s.writer.Resume()
	var theirs map[int]int64
	if s.group != nil {
		var err error
		if theirs, err = s.group.theirs(ctx); err != nil {
			return bus.Start{}, err
		}
	}
	switch foreign := s.writer.Foreign(); {
	case len(theirs) > 0:
		for p, offset := range theirs {
			if mark, ok := last[p]; !ok || offset-1 > mark.Offset {
				last[p] = bus.Mark{Offset: offset - 1}
			}
		}
		s.log.Info().Str("group", s.cfg.GroupID).Interface("after", last).Msg("share log goes on where other software stopped")
		s.writer.Begin(last)
		return bus.After(last, 0), nil
	case foreign && s.group != nil && (ours || s.cfg.Start == ""):
		return bus.Start{}, fmt.Errorf("%w, but has left no offset in consumer group %q: is that kafka_group_id its own?", errForeign, s.cfg.GroupID)
	case foreign && ours:
		return bus.Start{}, fmt.Errorf("%w: set kafka_group_id to its consumer group, to go on where it stopped", errForeign)
	case foreign && s.cfg.Start == "":
		return bus.Start{}, fmt.Errorf("%w: set kafka_group_id to its consumer group, to go on where it stopped, or start to %s or %s",
			errForeign, startEarliest, startLatest)
	case ours:
		s.log.Info().Interface("after", last).Msg("share log resumes")
		return bus.After(last, 0), nil
	case s.cfg.Start == startLatest:
		offsets, err := s.bus.Offsets(ctx, s.cfg.Kafka.Topics.Share, bus.Latest())
		if err != nil {
			return bus.Start{}, err
		}
		for p, offset := range offsets {
			last[p] = bus.Mark{Offset: offset - 1}
		}
		s.writer.Begin(last)
		return bus.After(last, 0), nil
	}
	return bus.Earliest(), nil
}
