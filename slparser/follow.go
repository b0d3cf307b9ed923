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
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

const (
	pollInterval = time.Second // between looks at files that have no more
	daysAtOnce   = 4           // in memory
)

// dayFile is a file that is read while it grows.
type dayFile struct {
	info   os.FileInfo // as it was before it was read last
	grown  time.Time   // when that was seen to change
	reader *sharefile.Reader
	stats  *dayStats
	atEnd  bool // nothing more when last read
	dirty  bool // stats have changes, or nobody has compared them with the database
	flying bool // changes are being written
	noSize bool // rows were written before the end was seen, without how much of the file they are of
	flaws
}

// flaws are what keeps the rows of a day from being all that its shares were worth.
type flaws struct {
	damaged int64 // bytes that were left out
	torn    int64 // bytes at the end that are no whole member
	short   bool  // the database has more
}

// settled tells whether all that a file holds is in the database.
func (f *dayFile) settled() bool { return f.atEnd && !f.dirty && !f.flying }

// counted is a file whose shares are in the database, though not in memory.
type counted struct {
	size int64       // negative: whatever it is when it is seen first
	info os.FileInfo // nil: of an earlier process
	flaws
}

// is tells whether the file has not changed since it was counted.
func (c *counted) is(info os.FileInfo) bool {
	if c.size < 0 {
		c.size, c.info = info.Size(), info
	}
	return c.size == info.Size() && (c.info == nil || os.SameFile(c.info, info) && c.info.ModTime().Equal(info.ModTime()))
}

// follow reads the files as they grow.
func (s *Service) follow(ctx context.Context) error {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range s.files {
			f.reader.Close()
		}
	}()
	var looked time.Time
	waiting := 0
	for {
		var errLook error
		if now := time.Now(); now.Sub(looked) >= pollInterval {
			looked = now
			waiting, errLook = s.lookAtFiles(now)
		}
		more, err := s.readFiles()
		err = errors.Join(errLook, err)
		s.reading.Set(err)
		if err != nil {
			s.metrics.readErrors.Inc()
		}
		if more && ctx.Err() == nil {
			continue
		}
		if err == nil {
			s.behind.Store(waiting > 0)
		}
		if !retry.Sleep(ctx, pollInterval) {
			return nil
		}
	}
}

// lookAtFiles sees which files have changed, and takes into memory those whose shares are to be counted, newest first
// and not too many at once. It returns how many have to wait.
func (s *Service) lookAtFiles(now time.Time) (waiting int, err error) {
	days, err := sharefile.Days(s.cfg.DataDir, s.cfg.Chain)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("data_dir = %q: there is no such folder: it must be sharelogger's", s.cfg.DataDir)
	}
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	today := sharefile.DayOf(now.Unix())
	for day, f := range s.files {
		if day != today && f.settled() && now.Sub(f.grown) >= s.cfg.LateShares.Std() {
			s.letGo(day)
		}
	}
	for _, day := range slices.Backward(days) {
		info, errStat := os.Stat(sharefile.Path(s.cfg.DataDir, s.cfg.Chain, day))
		if errStat != nil {
			err = errors.Join(err, errStat)
			continue
		}
		if f := s.files[day]; f != nil {
			err = errors.Join(err, s.lookAgain(day, f, info, now))
			continue
		}
		if !s.due(day, info, today) {
			continue
		}
		if s.leaveLate(day, info) {
			continue
		}
		if day != today && !s.makeRoom(today) {
			waiting++
			continue
		}
		if errTake := s.take(day, info, now); errTake != nil {
			err = errors.Join(err, errTake)
			continue
		}
		if c, ok := s.counted[day]; day < today && ok || day < today.Before() {
			s.metrics.lateFiles.Inc()
			s.log.Warn().Int("day", int(day)).Int64("bytes", info.Size()).Int64("counted_bytes", c.size).
				Msg("file of a past day holds more than was counted: counting it again")
		}
		delete(s.counted, day)
	}
	s.metrics.daysWaiting.Set(float64(waiting))
	s.tellFlaws(days)
	return waiting, err
}

// due tells whether a file that is not in memory is to be: today's, and those with more than the database has. Before
// the database was asked, yesterday's is the only one. The caller holds mu.
func (s *Service) due(day sharefile.Day, info os.FileInfo, today sharefile.Day) bool {
	if day == today {
		return true
	}
	if c, ok := s.counted[day]; ok {
		due := !c.is(info)
		s.counted[day] = c
		return due
	}
	return s.asked || day >= today.Before()
}

// leaveLate tells whether a file has only what came to a sealed day after its file was removed. No rows are made of it:
// those that are there are of the whole day, and computing the day reads both. A sealed file that cannot be read
// keeps no file from being counted: the rows that are there still are not replaced by less. The caller holds mu.
func (s *Service) leaveLate(day sharefile.Day, info os.FileInfo) bool {
	lacks, err := sealed.Lacks(s.cfg.DataDir, s.cfg.Chain, day)
	if err != nil {
		s.log.Error().Err(err).Int("day", int(day)).Msg("nobody can tell what a sealed day has: counting the day's own file")
	}
	if !lacks {
		return false
	}
	s.counted[day] = counted{info.Size(), info, flaws{short: true}}
	s.log.Error().Int("day", int(day)).Int64("bytes", info.Size()).
		Msg("shares came late to a sealed day whose file was removed: its rows stay; -d computes them of both")
	return true
}

// take begins to read a file. The caller holds mu.
func (s *Service) take(day sharefile.Day, info os.FileInfo, now time.Time) error {
	r, err := sharefile.Open(sharefile.Path(s.cfg.DataDir, s.cfg.Chain, day))
	if err != nil {
		return err
	}
	s.files[day] = &dayFile{info: info, grown: now, reader: r, stats: newDayStats(day, s.rules), dirty: true}
	return nil
}

// lookAgain notices that a file in memory has grown, or is another one now. The caller holds mu.
func (s *Service) lookAgain(day sharefile.Day, f *dayFile, info os.FileInfo, now time.Time) error {
	if had, err := f.reader.Stat(); err != nil || !os.SameFile(had, info) {
		return s.takeAnew(day, f, info, now)
	}
	if info.Size() != f.info.Size() {
		f.grown, f.atEnd = now, false
	}
	f.info = info
	return nil
}

// takeAnew begins again with a file that is not what it was. Its rows stay until there is more. The caller holds mu.
func (s *Service) takeAnew(day sharefile.Day, f *dayFile, info os.FileInfo, now time.Time) error {
	s.log.Warn().Int("day", int(day)).Int64("bytes", info.Size()).Msg("file was replaced: counting it again")
	f.reader.Close()
	delete(s.files, day)
	if s.leaveLate(day, info) {
		return nil
	}
	return s.take(day, info, now)
}

// makeRoom lets go of a past day when there are too many. The caller holds mu.
func (s *Service) makeRoom(today sharefile.Day) bool {
	if len(s.files) < daysAtOnce {
		return true
	}
	var longest sharefile.Day
	for day, f := range s.files {
		if day != today && f.settled() && (longest == 0 || f.grown.Before(s.files[longest].grown)) {
			longest = day
		}
	}
	if longest == 0 {
		return false
	}
	s.letGo(longest)
	return true
}

// letGo forgets the shares of a settled day, but not what they were read from. The caller holds mu.
func (s *Service) letGo(day sharefile.Day) {
	f := s.files[day]
	f.reader.Close()
	delete(s.files, day)
	s.counted[day] = counted{f.info.Size(), f.info, f.flaws}
}

// tellFlaws adds up what is wrong with the days that have files. The caller holds mu.
func (s *Service) tellFlaws(days []sharefile.Day) {
	var damaged, torn int64
	short := 0
	for _, day := range days {
		of := s.counted[day].flaws
		if f := s.files[day]; f != nil {
			of = f.flaws
		}
		damaged, torn = damaged+of.damaged, torn+of.torn
		if of.short {
			short++
		}
	}
	s.metrics.damaged.Set(float64(damaged))
	s.metrics.torn.Set(float64(torn))
	s.metrics.daysShort.Set(float64(short))
}

// readFiles reads a batch of each file in memory, newest first, and returns whether there is more.
func (s *Service) readFiles() (more bool, err error) {
	s.mu.Lock()
	days := make([]sharefile.Day, 0, len(s.files))
	for day := range s.files {
		days = append(days, day)
	}
	s.mu.Unlock()
	slices.Sort(days)
	for _, day := range slices.Backward(days) {
		moreOfDay, errOfDay := s.readDay(day)
		more = more || moreOfDay
		err = errors.Join(err, errOfDay)
	}
	return more, err
}

func (s *Service) readDay(day sharefile.Day) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[day]
	batch, err := f.reader.NextBatch()
	var t tally
	t.read(batch, func(sh *share.Share) bool {
		credit, ok := s.rules.creditOf(sh)
		if ok {
			f.stats.add(&credit)
			s.newest = max(s.newest, sh.Time)
		}
		return ok
	})
	s.metrics.add(t)
	f.dirty = f.dirty || t.shares > 0
	s.metrics.newest.Set(float64(s.newest))
	if damage := new(sharefile.Damage); errors.As(err, &damage) {
		f.damaged += damage.Bytes
		f.dirty = true
		s.logDamage(damage)
		return true, nil
	}
	if errors.Is(err, sharefile.ErrReplaced) {
		return true, s.takeAnew(day, f, f.info, time.Now())
	}
	if err == nil {
		return true, nil
	}
	f.atEnd = atEnd(err) || errors.Is(err, sharefile.ErrCorrupt)
	f.dirty = f.dirty || f.atEnd && f.noSize
	f.torn = max(0, f.info.Size()-f.reader.Position())
	if atEnd(err) {
		err = nil
	}
	return false, err
}

func (s *Service) logDamage(d *sharefile.Damage) {
	s.metrics.damages.Inc()
	s.log.Error().Err(d.Err).Int64("offset", d.At).Int64("bytes", d.Bytes).
		Msg("share file is damaged: its shares there are not counted; sharelogger -repair takes them from Kafka again")
}
