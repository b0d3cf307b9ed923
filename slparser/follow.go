package slparser

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"btcpool/internal/retry"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

const pollInterval = time.Second // between looks at a file that has no more

// dayFile is a file that is read while it grows.
type dayFile struct {
	reader *sharefile.Reader // nil until there is a file
	stats  *dayStats
	atEnd  bool // nothing more when last read
	dirty  bool // stats have changes
	flying bool // changes are being written
}

// follow reads the files of the present days as they grow.
func (s *Service) follow(ctx context.Context) error {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range s.files {
			f.close()
		}
	}()
	for {
		more, err := s.readFiles(time.Now())
		s.reading.Set(err)
		if err != nil {
			s.metrics.readErrors.Inc()
		}
		if more && ctx.Err() == nil {
			continue
		}
		if err == nil {
			s.behind.Store(false)
		}
		if !retry.Sleep(ctx, pollInterval) {
			return nil
		}
	}
}

// readFiles reads a batch of each file, and returns whether there is more.
func (s *Service) readFiles(now time.Time) (more bool, err error) {
	if _, err := os.Stat(s.cfg.DataDir); errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("data_dir = %q: there is no such folder: it must be sharelogger's", s.cfg.DataDir)
	}
	s.mu.Lock()
	days := s.chooseDays(now)
	s.mu.Unlock()
	for _, day := range days {
		moreOfDay, errOfDay := s.readDay(day)
		more = more || moreOfDay
		err = errors.Join(err, errOfDay)
	}
	return more, err
}

// chooseDays returns the days to read, newest first: today, and yesterday from the start until it is read, written and
// LateShares old. The caller holds mu.
func (s *Service) chooseDays(now time.Time) []sharefile.Day {
	today := sharefile.DayOf(now.Unix())
	if s.first == 0 {
		s.first = sharefile.DayOf(now.Unix() - 86400)
	}
	for s.first < today {
		f, end := s.files[s.first], s.first.Next().Start()
		if f == nil || !f.atEnd || f.dirty || f.flying || now.Before(end.Add(s.cfg.LateShares.Std())) {
			break
		}
		f.close()
		delete(s.files, s.first)
		s.first = s.first.Next()
	}
	var days []sharefile.Day
	for day := s.first; day <= today; day = day.Next() {
		if s.files[day] == nil {
			s.files[day] = &dayFile{stats: newDayStats(day, s.network)}
		}
		days = append(days, day)
	}
	slices.Reverse(days)
	return days
}

func (s *Service) readDay(day sharefile.Day) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[day]
	if f.reader == nil {
		r, err := sharefile.Open(sharefile.Path(s.cfg.DataDir, s.cfg.Chain, day))
		if errors.Is(err, fs.ErrNotExist) {
			f.atEnd = true
			return false, nil
		}
		if err != nil {
			return false, err
		}
		f.reader = r
	}
	var newest int64
	n, err := readShares(f.reader, s.metrics, func(sh *share.Share) {
		f.stats.add(sh)
		newest = sh.Time
	})
	if newest > 0 {
		f.dirty = true
		s.metrics.newest.Set(float64(newest))
	}
	f.atEnd = atEnd(err)
	if err != nil && !f.atEnd {
		return false, err
	}
	return n == batchSize, nil
}

func (f *dayFile) close() {
	if f.reader != nil {
		f.reader.Close()
	}
}
