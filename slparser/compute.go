package slparser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"btcpool/internal/sharefile"
	"btcpool/internal/store"
)

const connectLimit = time.Minute // how long reaching the database may take

// compute writes the statistics of Config.Day to Config.LastDay over all that is there for them. Unless Config.Force says
// so, it takes nothing away: a file must be whole and must not have less than the database. A day that stays as it is
// does not keep the others from being computed.
func (s *Service) compute(ctx context.Context) error {
	connect, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	db, err := store.Connect(connect, s.cfg.Database, s.log)
	if err != nil {
		return err
	}
	for day := range s.cfg.days() {
		if errDay := s.computeDay(ctx, db, day); errDay != nil && ctx.Err() == nil {
			err = errors.Join(err, fmt.Errorf("day %d: %w", day, errDay))
		}
	}
	return errors.Join(err, ctx.Err(), db.Close())
}

func (s *Service) computeDay(ctx context.Context, db *store.Store, day sharefile.Day) error {
	start := time.Now()
	progress := newProgress(s.terminal, day)
	stats, t, read, err := s.count(ctx, day, progress.read)
	if err == nil {
		err = s.replaceDay(ctx, db, stats, t, read, progress)
	}
	progress.end()
	if err == nil {
		s.log.Info().Int("day", int(day)).Int64("shares", t.shares).Int("workers", stats.workers.count).Dur("took_ms", time.Since(start)).
			Msg("statistics computed anew")
	}
	return err
}

func (s *Service) replaceDay(ctx context.Context, db *store.Store, stats *dayStats, t tally, read reading, progress *progress) error {
	c := stats.takeChanges()
	day := int(stats.day)
	had, more, err := exceeds(ctx, db, c)
	if err != nil {
		return err
	}
	size, faults := read.log, read.flawed()
	if t.shares == 0 {
		faults = errors.Join(faults, errors.New("it holds no share"))
	}
	if faults != nil {
		size = incomplete
	}
	if more {
		faults = errors.Join(faults, fmt.Errorf("it has %s hashes accepted, the database %s", c.pool, had))
	}
	if faults != nil {
		if !s.cfg.Force {
			return fmt.Errorf("statistics stay as they are, because of the file: %w (-force computes them all the same; sharelogger -repair takes a day from Kafka again)", faults)
		}
		s.log.Warn().Err(faults).Int("day", day).Msg("statistics computed of what there is")
	}
	// Whatever ends this half way, the day is counted again.
	if err := db.SetLogBytes(ctx, day, incomplete); err != nil {
		return err
	}
	all, rows := len(c.left), 0
	err = s.writeParts(ctx, c, func(ctx context.Context, days, hours []store.Stats) error {
		progress.wrote(all-len(c.left), all)
		rows += len(days) + len(hours)
		return db.OverwriteStats(ctx, days, hours)
	})
	if err == nil {
		err = db.DropStats(ctx, day, rows, stats.has)
	}
	if err != nil {
		return fmt.Errorf("only a part of the statistics is written: %w", err)
	}
	return db.SetLogBytes(ctx, day, size)
}

// has tells whether there is a row for a key.
func (d *dayStats) has(kind store.StatsKind, k store.StatsKey) bool {
	switch e := d.find(key{int64(k.UserID), k.WorkerID}); {
	case e == nil:
		return false
	case kind == store.Day:
		return e.hours != [24]*totals{} // the pool may have done nothing
	default:
		return e.hours[k.Period%100] != nil
	}
}
