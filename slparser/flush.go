package slparser

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"btcpool/internal/retry"
	"btcpool/internal/store"
)

const (
	rowsAtOnce    = 10_000      // rows in one transaction
	writeTimeout  = time.Minute // how long one transaction may take
	lastWrite     = 10 * time.Second
	purgeInterval = time.Hour
)

// keep writes what changed to the database, at the end once more.
func (s *Service) keep(ctx context.Context) error {
	db, err := store.Connect(ctx, s.cfg.Database, s.log)
	if err != nil {
		return nil // ctx has ended
	}
	defer db.Close()
	s.writing.Set(nil)
	var purged time.Time
	for retry.Sleep(ctx, s.cfg.FlushDBInterval.Std()) {
		s.flush(ctx, db)
		if now := time.Now(); now.Sub(purged) >= purgeInterval {
			purged = now
			if err := db.PurgeStats(ctx, now); err != nil && ctx.Err() == nil {
				s.log.Warn().Err(err).Msg("old statistics not removed")
			}
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	s.flush(last, db)
	return nil
}

// flush writes the changes of all days. What could not be written is written with the next flush.
func (s *Service) flush(ctx context.Context, db *store.Store) {
	start := time.Now()
	s.mu.Lock()
	all := make(map[*dayFile]changes)
	for _, f := range s.files {
		if f.dirty {
			all[f] = f.stats.takeChanges()
			f.dirty, f.flying = false, true
		}
	}
	s.mu.Unlock()
	var failed error
	for f, c := range all {
		err := s.write(ctx, db, c)
		s.mu.Lock()
		if f.flying = false; err != nil {
			c.giveBack()
			f.dirty = true
		}
		s.mu.Unlock()
		failed = errors.Join(failed, err)
	}
	if len(all) == 0 {
		return
	}
	s.metrics.flushSeconds.Observe(time.Since(start).Seconds())
	if failed != nil {
		s.metrics.flushErrors.Inc()
		failed = fmt.Errorf("statistics not written: %w", failed)
	}
	s.writing.Set(failed)
}

// write writes rows in transactions of bounded size; each row is right by itself.
func (s *Service) write(ctx context.Context, db *store.Store, c changes) error {
	for rows := range slices.Chunk(c.hours, rowsAtOnce) {
		if err := s.writeRows(ctx, db, nil, rows); err != nil {
			return err
		}
	}
	for rows := range slices.Chunk(c.days, rowsAtOnce) {
		if err := s.writeRows(ctx, db, rows, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) writeRows(ctx context.Context, db *store.Store, days, hours []store.Stats) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := db.WriteStats(ctx, days, hours); err != nil {
		return err
	}
	s.metrics.rows.Add(float64(len(days) + len(hours)))
	return nil
}
