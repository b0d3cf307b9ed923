package slparser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"btcpool/internal/store"
)

const connectLimit = time.Minute // how long reaching the database may take

// computeDay writes the statistics of Config.Day over all that is there for it. Unless Config.Force says so, it takes
// nothing away: the file must be whole and must not have less than the database.
func (s *Service) computeDay(ctx context.Context) error {
	stats := newDayStats(s.cfg.Day, s.network)
	read, err := s.readWhole(ctx, s.dayPath(), stats.add)
	if err != nil {
		return err
	}
	connect, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	db, err := store.Connect(connect, s.cfg.Database, s.log)
	if err != nil {
		return err
	}
	return errors.Join(s.replaceDay(ctx, db, stats, read), db.Close())
}

func (s *Service) replaceDay(ctx context.Context, db *store.Store, stats *dayStats, read reading) error {
	c := stats.takeChanges()
	day := int(s.cfg.Day)
	had, more, err := exceeds(ctx, db, c)
	if err != nil {
		return err
	}
	size, faults := read.size, read.flawed()
	if faults != nil {
		size = incomplete
	}
	if more {
		faults = errors.Join(faults, fmt.Errorf("it has %s hashes accepted, the database %s", c.pool, had))
	}
	if faults != nil {
		if !s.cfg.Force {
			return fmt.Errorf("statistics of %d stay as they are, because of the file: %w (-force computes them all the same; "+
				"sharelogger -repair takes a day from Kafka again)", day, faults)
		}
		s.log.Warn().Err(faults).Int("day", day).Msg("statistics computed of what there is")
	}
	if err := db.ReplaceDay(ctx, day, c.days, c.hours); err != nil {
		return err
	}
	if err := db.SetLogBytes(ctx, day, size); err != nil {
		return err
	}
	s.metrics.rows.Add(float64(len(c.days) + len(c.hours)))
	s.log.Info().Int("day", day).Int64("shares", read.shares).Int("keys", len(c.days)).Msg("statistics computed anew")
	return nil
}
