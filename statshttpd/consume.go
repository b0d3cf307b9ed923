package statshttpd

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/share"
)

// network is what the latest job tells of the chain.
type network struct {
	Height     int32 // of the block being mined
	Difficulty float64
	JobTime    time.Time
}

// lastShares is how many of the last shares are read where the topic does not tell how old they are, which shows when
// they are read: an hour of 100,000 workers.
const lastShares = 36_000_000

// consume reads the topics until ctx ends. What cannot be read is counted and skipped: no message stops it.
func (s *Service) consume(ctx context.Context) error {
	topics := s.cfg.Kafka.Topics
	if err := s.bus.EnsureTopics(ctx, topics.Share, topics.CommonEvents, topics.Job); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.countShares(ctx) })
	g.Go(func() error {
		live := false // only used on the goroutine that handles messages
		handle := func(m bus.Message) error { return s.handleEvent(m, live) }
		return s.bus.Read(ctx, topics.CommonEvents, bus.Last(s.cfg.MaxWorkers), handle, bus.CaughtUp(func() { live = true }))
	})
	g.Go(func() error { return s.bus.Read(ctx, topics.Job, bus.Last(1), s.handleJob) })
	return g.Wait()
}

func (s *Service) handleShare(m bus.Message) error {
	var one share.Share
	drop := func(reason string) error {
		s.metrics.dropped.WithLabelValues(reason).Inc()
		return nil
	}
	if one.Parse(m.Value) != nil {
		return drop("malformed")
	}
	if one.Validate() != nil {
		return drop("invalid")
	}
	if s.dedup.Seen(m.Partition, one.ID) {
		return drop("duplicate")
	}
	if single := s.cfg.SingleUserPUID; single != 0 {
		if one.UserID != single || one.ExtUserID == 0 {
			return drop("other_user")
		}
		one.UserID = one.ExtUserID
	}
	kept, err := s.board.addShare(s.now(), &one)
	switch {
	case errors.Is(err, errShareOld):
		return drop("old")
	case err != nil:
		return drop("future")
	}
	result := "rejected"
	switch {
	case one.Status.IsAccepted() && (s.cfg.AcceptStale || !one.Status.IsStale()):
		result = "accepted"
	case one.Status.IsStale():
		result = "stale"
	}
	s.metrics.shares.WithLabelValues(result).Inc()
	if !kept {
		return drop("workers_full")
	}
	return nil
}

func (s *Service) handleEvent(m bus.Message, live bool) error {
	result := "ok"
	if event, err := share.ParseEvent(m.Value); err != nil {
		result = "malformed"
	} else if s.external(&event) {
		s.board.addEvent(s.now(), &event, live)
	}
	s.metrics.events.WithLabelValues(result).Inc()
	return nil
}

func (s *Service) handleJob(m bus.Message) error {
	j, err := job.ParseStratumJob(m.Value)
	var target bitcoin.Target
	if err == nil {
		target, err = bitcoin.TargetFromBits(j.Bits)
	}
	if err != nil {
		s.metrics.jobs.WithLabelValues("malformed").Inc()
		return nil
	}
	s.metrics.jobs.WithLabelValues("ok").Inc()
	s.network.Store(&network{Height: j.Height, Difficulty: target.Difficulty(), JobTime: j.ID.Time()})
	return nil
}

// external makes an event one of the external user that it names, where one user stands for all. It returns false for one
// of another user.
func (s *Service) external(e *share.Event) bool {
	single := s.cfg.SingleUserPUID
	if single == 0 || e.Action == share.ServerDead || e.Action == share.ServerServing {
		return true
	}
	if e.UserID != single || e.ExtUserID == 0 {
		return false
	}
	e.UserID, e.UserName = e.ExtUserID, ""
	if user, worker, ok := strings.Cut(e.WorkerName, "."); ok {
		e.UserName, e.WorkerName = user, worker
	}
	return true
}
