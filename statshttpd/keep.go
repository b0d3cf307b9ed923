package statshttpd

import (
	"context"
	"errors"
	"time"

	"btcpool/internal/retry"
	"btcpool/internal/store"
)

const (
	lookInterval = 2 * time.Second
	queryTimeout = 10 * time.Second // of one statement

	purgeInterval = time.Hour
	purgeRows     = 1000           // a transaction
	purgeFor      = 24 * time.Hour // without a share ever
)

// keep does all that has to do with the database until ctx ends. Counting never waits for it.
func (s *Service) keep(ctx context.Context) (err error) {
	db, err := store.Connect(ctx, s.cfg.Database, s.log)
	if err != nil {
		return nil // ctx ended
	}
	stats := db
	if s.cfg.ownStatistics() {
		if stats, err = store.Connect(ctx, s.cfg.StatisticsDatabase, s.log); err != nil {
			return db.Close() // ctx ended
		}
		defer func() { err = errors.Join(err, stats.Close()) }()
	}
	s.stats.Store(stats)
	s.keepUpToDate(ctx, db, stats)
	return db.Close()
}

// statistics is the database with the tables that slparser writes, nil while none was there.
func (s *Service) statistics() *store.Store {
	if stats := s.stats.Load(); stats != nil {
		return stats
	}
	return s.db.Load()
}

func (s *Service) keepUpToDate(ctx context.Context, db, stats *store.Store) {
	learn := func() error { return s.learn(ctx, db) }
	if retry.Do(ctx, retry.Pace{First: lookInterval, Longest: lookInterval}, learn, nil) != nil {
		return // ctx ended
	}
	s.db.Store(db)
	flush := time.NewTicker(s.cfg.FlushDBInterval.Std())
	defer flush.Stop()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	purge := time.NewTicker(purgeInterval)
	defer purge.Stop()
	cut := time.NewTicker(cutInterval)
	defer cut.Stop()
	s.purge(ctx, db)
	s.purgeMinutes(ctx, stats)
	for {
		s.refreshLedger(ctx, db)
		select {
		case <-look.C:
			if err := s.lookUp(ctx, db); err != nil && ctx.Err() == nil {
				s.writing.Set(err)
			}
		case <-flush.C:
			s.flush(ctx, db)
		case <-purge.C:
			s.purge(ctx, db)
			s.purgeMinutes(ctx, stats)
		case <-cut.C:
			s.cutDue(s.now())
			err := s.writeMinutes(ctx, stats)
			if s.minutes.Set(err); err != nil {
				s.metrics.flushes.WithLabelValues("failed").Inc()
			}
			s.refreshHours(ctx, stats)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
			defer cancel()
			s.flush(last, db)
			s.cutDue(s.now().Add(cutAfter)) // nobody will have more of an hour that is over
			s.minutes.Set(s.writeMinutes(last, stats))
			return
		}
	}
}

func withTimeout(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return do(ctx)
}

// purge deletes the rows of workers that nobody has heard of for long, unless those are kept for ever, and of those that
// never had a share, which other software or an earlier release has written.
func (s *Service) purge(ctx context.Context, db *store.Store) {
	now := s.now()
	silent, never := time.Time{}, now.Add(-purgeFor)
	if keep := s.cfg.WorkersRetention.Std(); keep != 0 {
		silent, never = now.Add(-keep), now.Add(-min(purgeFor, keep))
	}
	for n := purgeRows; n == purgeRows && ctx.Err() == nil; {
		err := withTimeout(ctx, func(ctx context.Context) (err error) {
			n, err = db.PurgeWorkers(ctx, silent, never, purgeRows)
			return err
		})
		if err != nil {
			s.log.Warn().Err(err).Msg("rows of workers not purged: will try again in an hour")
			return
		}
		s.metrics.purged.Add(float64(n))
	}
}
