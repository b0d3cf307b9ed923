package sserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/retry"
)

// lastJobs is how many of the last jobs are read where the topic does not tell how old they are. Several, because the
// last one can be of a jobmaker that lags behind.
const lastJobs = 5

// readJobs takes jobs from Kafka until ctx ends.
func (s *Service) readJobs(ctx context.Context) error {
	topics := s.cfg.Kafka.Topics
	names := []string{topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents, topics.AuxSolved, topics.RSKSolved}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	if err := s.bus.EnsureTopics(ctx, names...); err != nil {
		return err
	}
	since := time.Now().Add(-s.cfg.MaxJobDelay.Std())
	return s.bus.Read(ctx, topics.Job, bus.Since(since, lastJobs), func(msg bus.Message) error {
		s.takeJob(msg.Value, time.Now())
		return nil
	})
}

// takeJob starts a round if the job of a message deserves one.
func (s *Service) takeJob(text []byte, now time.Time) {
	j, err := job.ParseStratumJob(text)
	if err != nil {
		s.metrics.jobs.WithLabelValues("bad").Inc()
		s.log.Error().Err(err).Msg("job is not usable")
		return
	}
	// Miners differ in what they do with a bit of the version that they may roll: set it, or turn it over. So it is
	// clear (BIP 320 leaves these bits to them).
	j.Version &^= int32(s.versionMask)
	sent, err := s.jobs.add(j, s.mergedMining(j), now)
	result := "stored"
	switch {
	case errors.Is(err, errJobKnown):
		result = "known"
	case errors.Is(err, errJobLate):
		result = "late"
	case errors.Is(err, errJobBehind):
		result = "behind"
	case err != nil:
		result = "bad"
	case sent:
		result = "sent"
	}
	s.metrics.jobs.WithLabelValues(result).Inc()
	switch {
	case err == nil:
		s.dropping.Store(nil)
	case result != "known" && s.dropping.Load() == nil:
		s.dropping.Store(&dropping{now, err})
	}
	if err != nil && result != "known" {
		s.log.Warn().Err(err).Uint64("job", uint64(j.ID)).Int32("height", j.Height).Msg("job dropped")
	}
	if sent {
		s.onLoops((*loop).newRound)
		s.metrics.jobHeight.Set(float64(j.Height))
		s.log.Debug().Uint64("job", uint64(j.ID)).Int32("height", j.Height).Stringer("prev_hash", j.PrevHash).Msg("job sent")
	}
}

// dropping says why jobs have not been taken since a moment.
type dropping struct {
	since time.Time
	err   error
}

// jobFault returns what is wrong with the jobs that miners have, or nil.
func (s *Service) jobFault(now time.Time) error {
	r, d := s.jobs.round.Load(), s.dropping.Load()
	maxDelay := s.cfg.MaxJobDelay.Std()
	switch {
	case r == nil && d != nil:
		return fmt.Errorf("%w: those that come are dropped: %w", errNoJob, d.err)
	case r == nil:
		return errNoJob
	case d != nil && now.Sub(d.since) > maxDelay:
		return fmt.Errorf("jobs have been dropped for %s: %w", now.Sub(d.since).Round(time.Second), d.err)
	case r.work.ID.Time().Sub(now) > maxDelay:
		return fmt.Errorf("latest job is %s ahead of the clock: that of this machine or of jobmaker's is wrong", r.work.ID.Time().Sub(now).Round(time.Second))
	case r.work.made.Sub(r.work.ID.Time()) > maxDelay:
		return fmt.Errorf("latest job is %s behind the clock: that of this machine or of jobmaker's is wrong", r.work.made.Sub(r.work.ID.Time()).Round(time.Second))
	case now.Sub(r.work.made) > s.cfg.MaxJobLifetime.Std():
		return fmt.Errorf("latest job is %s old", now.Sub(r.work.made).Round(time.Second))
	}
	return nil
}

// mergedMining returns the blocks of other chains that shares of j may solve and that somebody waits for.
func (s *Service) mergedMining(j *job.StratumJob) merged {
	m, err := mergedMining(j)
	if err != nil {
		s.metrics.jobs.WithLabelValues("bad merged").Inc()
		s.log.Error().Err(err).Uint64("job", uint64(j.ID)).Msg("merged mining of a job is not usable")
	}
	if s.auxBlocks == nil {
		m.aux = nil
	}
	if s.rskBlocks == nil {
		m.rsk = nil
	}
	return m
}

// keepJobs lets jobs grow old, and repeats the latest when there is none for long, until ctx ends.
func (s *Service) keepJobs(ctx context.Context) error {
	for retry.Sleep(ctx, time.Second) {
		if s.jobs.tick(time.Now()) {
			s.onLoops((*loop).newRound)
		}
	}
	return nil
}
