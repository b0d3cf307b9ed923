package slparser

import (
	"context"
	"errors"
	"time"

	"btcpool/internal/store"
)

const connectLimit = time.Minute // how long reaching the database may take

// computeDay writes the statistics of Config.Day over all that is there for it.
func (s *Service) computeDay(ctx context.Context) error {
	stats := newDayStats(s.cfg.Day, s.network)
	if err := s.readWhole(ctx, stats.add); err != nil {
		return err
	}
	connect, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	db, err := store.Connect(connect, s.cfg.Database, s.log)
	if err != nil {
		return err
	}
	c := stats.takeChanges()
	if err := errors.Join(db.ReplaceDay(ctx, int(s.cfg.Day), c.days, c.hours), db.Close()); err != nil {
		return err
	}
	s.metrics.rows.Add(float64(len(c.days) + len(c.hours)))
	s.log.Info().Int("day", int(s.cfg.Day)).Int("keys", len(c.days)).Msg("statistics computed anew")
	return nil
}
