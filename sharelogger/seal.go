package sharelogger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/archive"
	"btcpool/internal/retry"
	"btcpool/internal/sealed"
	"btcpool/internal/service"
	"btcpool/internal/sharefile"
)

const (
	sealInterval    = time.Minute // between looks at past days
	damagedInterval = time.Hour   // between tries to do something with one whose files are wrong
)

// sealer seals days when they are over, archives what was sealed, and removes what it was sealed of.
type sealer struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	store   archive.Store // nil: none
	// needs tells whether a day's file cannot be removed yet, and remove removes it, if it is the one that info describes.
	needs  func(day sharefile.Day) (bool, error)
	remove func(day sharefile.Day, info os.FileInfo) error

	known map[sharefile.Day]*pastDay
	fault *service.Fault
}

// pastDay is a day as it was looked at last.
type pastDay struct {
	file os.FileInfo // of the day's file
	done bool        // it is sealed, and archived
	err  error       // what is wrong with it
	next time.Time   // when to try again
}

// seal makes the Parquet file of a day.
func (s *chainLog) seal(ctx context.Context, day sharefile.Day) error {
	footer, err := sealed.Seal(ctx, s.cfg.DataDir, s.cfg.Chain, day)
	if err != nil {
		return fmt.Errorf("day %d is not sealed: %w", day, err)
	}
	s.log.Info().Int("day", int(day)).Int64("shares", footer.Records).Msg("day sealed")
	return nil
}

// verify compares a sealed day with its source.
func (s *chainLog) verify(ctx context.Context, day sharefile.Day) error {
	v, err := sealed.Verify(ctx, s.cfg.DataDir, s.cfg.Chain, day)
	if err != nil {
		return fmt.Errorf("sealed day %d is not verified: %w", day, err)
	}
	line := s.log.Info().Int("day", int(day)).Int64("shares", v.Footer.Records)
	if v.Source {
		line.Msg("sealed day and its source have the same records")
	} else {
		line.Msg("sealed day is whole; its source is not there any more")
	}
	return nil
}

// run looks at the days until ctx ends.
func (s *sealer) run(ctx context.Context) error {
	for {
		err := s.look(ctx, time.Now())
		if ctx.Err() != nil {
			return nil
		}
		s.fault.Set(err)
		if !retry.Sleep(ctx, sealInterval) {
			return nil
		}
	}
}

// look does what is due, oldest days first.
func (s *sealer) look(ctx context.Context, now time.Time) error {
	days, err := sharefile.Days(s.cfg.DataDir, s.cfg.Chain)
	if err != nil {
		return err
	}
	var faults []error
	waiting := 0
	for _, day := range days {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.lookAt(ctx, day, now); err != nil {
			faults = append(faults, fmt.Errorf("day %d: %w", day, err))
			waiting++
		}
	}
	s.metrics.unsealed.Set(float64(waiting))
	return errors.Join(faults...)
}

func (s *sealer) lookAt(ctx context.Context, day sharefile.Day, now time.Time) error {
	info, err := os.Stat(sharefile.Path(s.cfg.DataDir, s.cfg.Chain, day))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ended, after := day.Next().Start(), s.cfg.Seal.After.Std()
	if now.Sub(ended) < after || now.Sub(info.ModTime()) < after {
		return nil
	}
	p := s.known[day]
	if p == nil || !os.SameFile(p.file, info) || p.file.Size() != info.Size() || !p.file.ModTime().Equal(info.ModTime()) {
		p = &pastDay{file: info}
		s.known[day] = p
	}
	if p.err != nil && now.Before(p.next) {
		return p.err
	}
	p.err = s.bring(ctx, day, p, now)
	p.next = now.Add(sealInterval)
	for _, lasting := range []error{sealed.ErrUnsound, sealed.ErrFewer, sealed.ErrDiffers, sealed.ErrCorrupt, archive.ErrDiffers} {
		if errors.Is(p.err, lasting) {
			p.next = now.Add(damagedInterval)
		}
	}
	return p.err
}

// bring does what is due for a past day.
func (s *sealer) bring(ctx context.Context, day sharefile.Day, p *pastDay, now time.Time) error {
	if !p.done {
		if err := s.settle(ctx, day); err != nil {
			return err
		}
		p.done = true
	}
	keep := s.cfg.Seal.RemoveSourceAfter
	if keep == 0 || now.Before(day.Next().Start().AddDate(0, 0, keep)) || now.Before(p.file.ModTime().AddDate(0, 0, keep)) {
		return nil
	}
	if needed, err := s.needs(day); needed || err != nil {
		return err
	}
	err := s.removeSource(ctx, day, p.file)
	p.done = err == nil // or what it was sealed as may not be what it is
	return err
}

// settle has a day sealed and archived.
func (s *sealer) settle(ctx context.Context, day sharefile.Day) error {
	current, err := sealed.Current(s.cfg.DataDir, s.cfg.Chain, day)
	if err != nil {
		return err
	}
	name := sealed.Path(s.cfg.DataDir, s.cfg.Chain, day)
	if !current {
		began := time.Now()
		footer, err := sealed.Seal(ctx, s.cfg.DataDir, s.cfg.Chain, day)
		if err != nil {
			s.metrics.sealFailures.Inc()
			return err
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		s.metrics.sealed.Inc()
		s.metrics.sealTime.Observe(time.Since(began).Seconds())
		s.log.Info().Int("day", int(day)).Int64("shares", footer.Records).Int64("bytes", info.Size()).
			Int64("source_bytes", footer.Sources[len(footer.Sources)-1].Bytes).Dur("took", time.Since(began)).Msg("day sealed")
	}
	if s.store == nil {
		return nil
	}
	key := path.Join(s.cfg.Chain, day.Start().Format("2006"), filepath.Base(name))
	if err := s.store.Put(ctx, key, name); err != nil {
		s.metrics.archiveFailures.Inc()
		return fmt.Errorf("not archived: %w", err)
	}
	s.metrics.archived.Inc()
	s.log.Info().Int("day", int(day)).Str("key", key).Msg("sealed day is in the archive")
	return nil
}

// removeSource removes a day's file if what was sealed of it is verified.
func (s *sealer) removeSource(ctx context.Context, day sharefile.Day, info os.FileInfo) error {
	v, err := sealed.Verify(ctx, s.cfg.DataDir, s.cfg.Chain, day)
	if err == nil {
		err = s.remove(day, info)
	}
	if err != nil {
		return fmt.Errorf("its file stays: %w", err)
	}
	delete(s.known, day)
	s.metrics.removed.Inc()
	s.log.Info().Int("day", int(day)).Int64("shares", v.Footer.Records).Int64("bytes", info.Size()).
		Msg("day's file removed: the sealed one has the same records")
	return nil
}
