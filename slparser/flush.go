package slparser

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/retry"
	"btcpool/internal/sharefile"
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
	for s.ask(ctx, db) != nil {
		if !retry.Sleep(ctx, s.cfg.FlushDBInterval.Std()) {
			return nil
		}
	}
	s.writing.Set(nil)
	var purging sync.WaitGroup
	purging.Go(func() { s.purge(ctx, db) })
	defer purging.Wait()
	for retry.Sleep(ctx, s.cfg.FlushDBInterval.Std()) {
		s.flush(ctx, db)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	s.flush(last, db)
	return nil
}

// purge removes old statistics, beside what is written.
func (s *Service) purge(ctx context.Context, db *store.Store) {
	for pause := s.cfg.FlushDBInterval.Std(); retry.Sleep(ctx, pause); pause = purgeInterval {
		if err := db.PurgeStats(ctx, time.Now(), s.cfg.KeepDays.keep()); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("old statistics not removed")
		}
	}
}

// ask learns which days the database has, and of how much of their files.
func (s *Service) ask(ctx context.Context, db *store.Store) error {
	days, err := db.LogBytes(ctx)
	if err != nil {
		s.writing.Set(err)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.knownDays(days, sharefile.DayOf(time.Now().Unix()))
	for day, c := range known {
		if s.files[day] == nil {
			s.counted[day] = c
		}
	}
	s.asked = true
	return nil
}

// knownDays are those that need not be counted while their files stay as they are. Earlier releases, and btcpool, do not
// say how much of a file they counted: their days are taken for whole, but for the last two and the present ones.
func (s *Service) knownDays(days map[int]int64, today sharefile.Day) map[sharefile.Day]counted {
	var newest sharefile.Day
	for day := range days {
		newest = max(newest, sharefile.Day(day))
	}
	known := make(map[sharefile.Day]counted)
	for day, bytes := range days {
		switch day := sharefile.Day(day); {
		case bytes != 0:
			known[day] = counted{size: max(bytes, 0)}
		case day < min(newest, today).Before():
			known[day] = counted{size: -1}
		}
	}
	return known
}

// flush writes the changes of all days. What could not be written is written with the next flush.
func (s *Service) flush(ctx context.Context, db *store.Store) {
	start := time.Now()
	s.mu.Lock()
	all := make(map[*dayFile]*changes)
	for _, f := range s.files {
		if f.dirty {
			all[f] = f.takeChanges()
			f.dirty, f.flying = false, true
		}
	}
	s.mu.Unlock()
	var failed error
	for f, c := range all {
		short := false
		err := s.write(ctx, db, c)
		if err == nil && c.logBytes != 0 {
			short, err = s.writeLogBytes(ctx, db, c)
		}
		s.mu.Lock()
		f.flying = false
		switch {
		case err != nil:
			f.dirty = true
		case c.logBytes != 0:
			f.short = short
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

// takeChanges returns what to write. Only the rows of a file that was read to its end are all that there is.
func (f *dayFile) takeChanges() *changes {
	c := f.stats.takeChanges()
	switch {
	case f.atEnd && f.damaged == 0:
		c.logBytes = f.reader.Position()
	case f.atEnd:
		c.logBytes = incomplete
	}
	f.noSize = !f.atEnd
	return c
}

// incomplete, in place of how much of a file was counted, has it counted again after each start.
const incomplete = -1

// writeLogBytes notes how much of its file the rows of a day were made of. The day is short when the rows that were
// there say more.
func (s *Service) writeLogBytes(ctx context.Context, db *store.Store, c *changes) (short bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	had, short, err := exceeds(ctx, db, c)
	if err != nil {
		return false, err
	}
	if short {
		s.log.Error().Int("day", int(c.stats.day)).Stringer("file", c.pool).Stringer("database", had).
			Msg("the database has more of a day than its file: its rows stay")
		c.logBytes = incomplete
	}
	return short, db.SetLogBytes(ctx, int(c.stats.day), c.logBytes)
}

// exceeds tells whether the database has more of a day than c, and what the pool has accepted there.
func exceeds(ctx context.Context, db *store.Store, c *changes) (had bitcoin.Work, more bool, err error) {
	rows, err := db.ReadStats(ctx, store.Day, 0, 0, int(c.stats.day), int(c.stats.day))
	if err == nil && len(rows) > 0 {
		had = rows[0].Accept
	}
	return had, had.Cmp(c.pool) > 0, err
}

// write writes rows in transactions of bounded size; each row is right by itself.
func (s *Service) write(ctx context.Context, db *store.Store, c *changes) error {
	return s.writeParts(ctx, c, db.WriteStats)
}

// writeParts makes rows and writes them, a part at a time.
func (s *Service) writeParts(ctx context.Context, c *changes, write func(_ context.Context, days, hours []store.Stats) error) error {
	for {
		s.mu.Lock()
		p := c.take()
		s.mu.Unlock()
		if len(p.of) == 0 {
			return nil
		}
		if err := s.writePart(ctx, p, write); err != nil {
			s.mu.Lock()
			p.giveBack()
			s.mu.Unlock()
			return err
		}
	}
}

func (s *Service) writePart(ctx context.Context, p part, write func(_ context.Context, days, hours []store.Stats) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := write(ctx, p.days, p.hours); err != nil {
		return err
	}
	s.metrics.rows.Add(float64(len(p.days) + len(p.hours)))
	return nil
}
