package sserver

import (
	"context"
	"errors"
	"slices"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/retry"
)

// readJobs takes jobs from Kafka until ctx ends.
func (s *Service) readJobs(ctx context.Context) error {
	topics := s.cfg.Kafka.Topics
	names := []string{topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents, topics.AuxSolved, topics.RSKSolved}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	if err := s.bus.EnsureTopics(ctx, names...); err != nil {
		return err
	}
	since := time.Now().Add(-s.cfg.MaxJobDelay.Std())
	return s.bus.Read(ctx, topics.Job, bus.Since(since), func(msg bus.Message) error {
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
	// Miners differ in what they do with a bit of the version that they may roll:
	// set it, or turn it over. So it is clear (BIP 320 leaves these bits to them).
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
	if err != nil && result != "known" {
		s.log.Warn().Err(err).Uint64("job", uint64(j.ID)).Int32("height", j.Height).Msg("job dropped")
	}
	if sent {
		s.onLoops((*loop).newRound)
		s.metrics.jobHeight.Set(float64(j.Height))
		s.log.Debug().Uint64("job", uint64(j.ID)).Int32("height", j.Height).Stringer("prev_hash", j.PrevHash).Msg("job sent")
	}
}

// mergedMining returns the blocks of other chains that shares of j may solve
// and that somebody waits for.
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

// keepJobs lets jobs grow old, and repeats the latest when there is none for
// long, until ctx ends.
func (s *Service) keepJobs(ctx context.Context) error {
	for retry.Sleep(ctx, time.Second) {
		if s.jobs.tick(time.Now()) {
			s.onLoops((*loop).newRound)
		}
	}
	return nil
}
