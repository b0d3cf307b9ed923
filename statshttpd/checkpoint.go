package statshttpd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/durable"
	"btcpool/internal/share"
)

// A checkpoint is a file with all that was counted up to some messages of the share topic, and which messages these are: a
// start goes on behind them. It is replaced as a whole, and whatever is wrong with it, the last hour of shares is read.
const (
	checkpointFor     = 50 * time.Minute // older ones are of no use: shares that came late since would be too old to count
	longestCheckpoint = 30 * time.Minute // between two: well before the latest is of no use
	maxCheckpoint     = 1 << 30          // bytes
	snapshotBytes     = 320              // of a worker, about
	dedupBytes        = 1 << 20
)

// unusable is why a checkpoint is not used, and the label of that in the metrics.
type unusable string

// The reasons that are no failure to read.
const (
	damaged unusable = "damaged"
	foreign unusable = "foreign" // of another version or topic, or counted with other options
	age     unusable = "age"     // too old, or from the future
	moved   unusable = "moved"   // the topic does not hold what was read last
)

func (u unusable) Error() string { return "the checkpoint is of no use: " + string(u) }

func (s *Service) origin() origin {
	return origin{Topic: s.cfg.Kafka.Topics.Share, AcceptStale: s.cfg.AcceptStale, SingleUser: s.cfg.SingleUserPUID}
}

// readCheckpoint reads the file at path; of no file it returns nil.
func readCheckpoint(path string, of origin, now time.Time) (*snapshot, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxCheckpoint {
		return nil, damaged
	}
	var frame []byte
	if err == nil {
		frame, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	body, size, err := durable.CutFrame(frame, 1, maxCheckpoint)
	if err != nil || size != len(frame) {
		return nil, damaged
	}
	if body[0] != snapshotVersion {
		return nil, foreign
	}
	kept, err := parseSnapshot(body)
	if err != nil {
		return nil, damaged
	}
	at := time.Unix(kept.At, 0)
	switch {
	case kept.origin != of:
		return nil, foreign
	case now.Sub(at) > checkpointFor || at.Sub(now) > maxAhead:
		return nil, age
	}
	return kept, nil
}

// resume takes in the checkpoint, if there is one of use, and returns where to go on reading shares.
func (s *Service) resume(ctx context.Context) (bus.Start, error) {
	kept, err := s.checkpointOfUse(ctx)
	if ctx.Err() != nil {
		return bus.Start{}, ctx.Err()
	}
	if err == nil && kept != nil {
		var dedup *share.Dedup
		if dedup, err = share.ParseDedup(kept.Dedup); err == nil {
			s.dedup, s.read = *dedup, kept.Read
			s.countedSince.Store(kept.CountedSince)
			s.board.restore(kept)
			s.log.Info().Time("at", time.Unix(kept.At, 0).UTC()).Int("workers", len(kept.Workers)).Msg("checkpoint read: counting what came since")
			return bus.After(maps.Clone(s.read), 0), nil
		}
		err = damaged
	}
	if err != nil {
		reason, known := errors.AsType[unusable](err)
		if !known {
			reason = "unreadable"
		}
		s.metrics.checkpointsUnused.WithLabelValues(string(reason)).Inc()
		s.log.Warn().Err(err).Str("file", s.cfg.CheckpointFile).Msg("checkpoint not used: counting the last hour of shares")
	}
	starts, err := s.bus.Offsets(ctx, s.cfg.Kafka.Topics.Share, bus.Since(s.now().Add(-time.Duration(hour)*time.Second), lastShares))
	if err != nil {
		return bus.Start{}, err
	}
	for p, at := range starts {
		s.read[p] = bus.Mark{Offset: at - 1}
	}
	return bus.After(maps.Clone(s.read), 0), nil
}

func (s *Service) checkpointOfUse(ctx context.Context) (*snapshot, error) {
	if s.cfg.CheckpointFile == "" {
		return nil, nil
	}
	durable.Sweep(s.cfg.CheckpointFile)
	kept, err := readCheckpoint(s.cfg.CheckpointFile, s.origin(), s.now())
	if err != nil || kept == nil {
		return nil, err
	}
	held, err := s.bus.Holds(ctx, s.cfg.Kafka.Topics.Share, kept.Read)
	if err == nil && !held {
		err = moved
	}
	return kept, err
}

// takeCheckpoint returns the content of the file, of now. It is to be called between two shares.
func (s *Service) takeCheckpoint() ([]byte, error) {
	dedup, left := s.dedup.AppendTo(nil, dedupBytes)
	if left > 0 {
		return nil, fmt.Errorf("the shares of %d servers would not be recognized", left)
	}
	frame := s.board.appendSnapshot(make([]byte, durable.FrameHead, max(s.checkpointRoom, durable.FrameHead)), &snapshot{
		origin: s.origin(), At: s.now().Unix(), CountedSince: s.countedSince.Load(), Read: s.read, Dedup: dedup,
	})
	if len(frame) > maxCheckpoint {
		return nil, fmt.Errorf("%d bytes are more than %d", len(frame), maxCheckpoint)
	}
	s.checkpointRoom = len(frame) + len(frame)/16
	durable.SealFrame(frame)
	return frame, nil
}

// checkpoints writes the file again and again, beside the counting, which takes the content when it is due.
type checkpoints struct {
	due   <-chan time.Time // nil: never
	files chan []byte      // to write; of one, so that there are two in memory at most
}

// countShares counts shares from there on until ctx ends, and keeps the checkpoint.
func (s *Service) countShares(ctx context.Context) error {
	from, err := s.resume(ctx)
	if err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	var c checkpoints
	if s.cfg.CheckpointFile != "" {
		tick := time.NewTicker(s.cfg.CheckpointInterval.Std())
		defer tick.Stop()
		c.due, c.files = tick.C, make(chan []byte, 1)
		written := make(chan struct{})
		go func() {
			defer close(written)
			for frame := range c.files {
				s.writeCheckpoint(frame)
			}
		}()
		defer func() {
			if s.replayed.Load() {
				s.checkpoint(&c)
			}
			close(c.files)
			<-written
		}()
	}
	handle := func(m bus.Message) error {
		err := s.handleShare(m)
		s.read[m.Partition] = m.Mark()
		select {
		case <-c.due:
			if s.replayed.Load() && len(c.files) == 0 {
				s.checkpoint(&c)
			}
		default:
		}
		return err
	}
	return s.bus.Read(ctx, s.cfg.Kafka.Topics.Share, from, handle, bus.CaughtUp(func() {
		if s.countedSince.Load() == 0 {
			s.countedSince.Store(s.now().Unix() - int64(hour))
		}
		s.replayed.Store(true)
		known := s.board.count(s.now()).Known
		s.log.Info().Int("workers", known).Msg("share history counted")
		if c.files != nil {
			s.checkpointRoom = known * snapshotBytes
			s.checkpoint(&c)
		}
	}))
}

func (s *Service) checkpoint(c *checkpoints) {
	frame, err := s.takeCheckpoint()
	if err != nil {
		s.checkpointed(err)
		return
	}
	c.files <- frame
}

func (s *Service) writeCheckpoint(frame []byte) {
	s.metrics.checkpointBytes.Set(float64(len(frame)))
	s.checkpointed(durable.Replace(s.cfg.CheckpointFile, frame, 0o640))
}

func (s *Service) checkpointed(err error) {
	result := "ok"
	if s.checkpointing.Set(err); err != nil {
		result = "failed"
	}
	s.metrics.checkpoints.WithLabelValues(result).Inc()
}
