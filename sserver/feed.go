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
func (c *chain) readJobs(ctx context.Context) error {
	topics := c.cfg.Kafka.Topics
	names := []string{topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents, topics.AuxSolved, topics.RSKSolved}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	if err := c.bus.EnsureTopics(ctx, names...); err != nil {
		return err
	}
	since := time.Now().Add(-c.cfg.MaxJobDelay.Std())
	return c.bus.Read(ctx, topics.Job, bus.Since(since, lastJobs), func(msg bus.Message) error {
		c.takeJob(msg.Value, time.Now())
		return nil
	})
}

// takeJob starts a round if the job of a message deserves one.
func (c *chain) takeJob(text []byte, now time.Time) {
	j, err := job.ParseStratumJob(text)
	if err != nil {
		c.metrics.jobs.WithLabelValues("bad").Inc()
		c.log.Error().Err(err).Msg("job is not usable")
		return
	}
	// Miners differ in what they do with a bit of the version that they may roll: set it, or turn it over. So it is
	// clear (BIP 320 leaves these bits to them).
	j.Version &^= int32(c.srv.versionMask)
	j = c.ownCoinbase(j)
	if c.cfg.GrandPool && len(j.GrandCoinbase1) == 0 {
		c.metrics.noGrand.Inc()
		c.rareLog.Error().Uint64("job", uint64(j.ID)).Msg("job has no room for clients with a pool of their own: they are not sent it; see grand_pool of jobmaker")
	}
	sent, err := c.jobs.add(j, c.mergedMining(j), now)
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
	c.metrics.jobs.WithLabelValues(result).Inc()
	switch {
	case err == nil:
		c.dropping.Store(nil)
	case result != "known" && c.dropping.Load() == nil:
		c.dropping.Store(&dropping{now, err})
	}
	if err != nil && result != "known" {
		c.log.Warn().Err(err).Uint64("job", uint64(j.ID)).Int32("height", j.Height).Msg("job dropped")
	}
	if sent {
		c.srv.onLoops((*loop).newRound)
		c.metrics.jobHeight.Set(float64(j.Height))
		c.log.Debug().Uint64("job", uint64(j.ID)).Int32("height", j.Height).Stringer("prev_hash", j.PrevHash).Msg("job sent")
	}
}

// dropping says why jobs have not been taken since a moment.
type dropping struct {
	since time.Time
	err   error
}

// jobFault returns what is wrong with the jobs that miners have, or nil.
func (c *chain) jobFault(now time.Time) error {
	r, d := c.jobs.round.Load(), c.dropping.Load()
	maxDelay := c.cfg.MaxJobDelay.Std()
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
	case now.Sub(r.work.made) > c.cfg.MaxJobLifetime.Std():
		return fmt.Errorf("latest job is %s old", now.Sub(r.work.made).Round(time.Second))
	}
	return nil
}

// mergedMining returns the blocks of other chains that shares of j may solve and that somebody waits for.
func (c *chain) mergedMining(j *job.StratumJob) merged {
	m, err := mergedMining(j)
	if err != nil {
		c.metrics.jobs.WithLabelValues("bad merged").Inc()
		c.log.Error().Err(err).Uint64("job", uint64(j.ID)).Msg("merged mining of a job is not usable")
	}
	if c.auxBlocks == nil {
		m.aux = nil
	}
	if c.rskBlocks == nil {
		m.rsk = nil
	}
	return m
}

// keepJobs lets jobs grow old, and repeats the latest when there is none for long, until ctx ends.
func (c *chain) keepJobs(ctx context.Context) error {
	for retry.Sleep(ctx, time.Second) {
		if c.jobs.tick(time.Now()) {
			c.srv.onLoops((*loop).newRound)
		}
	}
	return nil
}
