package statshttpd

import (
	"context"
	"time"

	"btcpool/internal/retry"
	"btcpool/internal/store"
)

const (
	lookInterval = 2 * time.Second
	queryTimeout = 10 * time.Second // of one statement
)

// keep does all that has to do with the database until ctx ends. Counting never waits for it.
func (s *Service) keep(ctx context.Context) error {
	db, err := store.Connect(ctx, s.cfg.Database, s.log)
	if err != nil {
		return nil // ctx ended
	}
	s.keepUpToDate(ctx, db)
	return db.Close()
}

func (s *Service) keepUpToDate(ctx context.Context, db *store.Store) {
	learn := func() error { return s.learn(ctx, db) }
	if retry.Do(ctx, retry.Pace{First: lookInterval, Longest: lookInterval}, learn, nil) != nil {
		return // ctx ended
	}
	s.db.Store(db)
	flush := time.NewTicker(s.cfg.FlushDBInterval.Std())
	defer flush.Stop()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		s.refreshLedger(ctx, db)
		select {
		case <-look.C:
		case <-flush.C:
			s.flush(ctx, db)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
			defer cancel()
			s.flush(last, db)
			return
		}
	}
}

func withTimeout(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return do(ctx)
}
