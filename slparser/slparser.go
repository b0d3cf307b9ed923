// Package slparser makes statistics of the share log: it reads the day files while they are written, keeps what each
// worker, each user and the pool did by hour and day, and writes what changed to the database and answers over HTTP.
// All sums are exact; what it writes are absolute values, so that reading a file again changes nothing.
package slparser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/httpapi"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
)

const (
	pollInterval  = time.Second // of a file that has no more
	batchSize     = 10_000      // shares read under one lock
	rowsAtOnce    = 10_000      // in one transaction
	writeTimeout  = time.Minute // of one transaction
	lastWrite     = 10 * time.Second
	purgeInterval = time.Hour
	connectLimit  = time.Minute // when only one day is computed
	graceHTTP     = time.Second
)

// Service is one of slparser's modes: see Config.Day and Config.User.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	network bitcoin.Network
	ln      net.Listener // nil in modes that exit
	started time.Time

	requests, bytes atomic.Uint64 // of HTTP
	behind          atomic.Bool   // files have more than was read
	readErr, dbErr  atomic.Pointer[error]

	mu    sync.Mutex
	files map[sharefile.Day]*dayFile
	first sharefile.Day // the oldest that is read; those before are complete
}

// dayFile is a file that is read while it grows.
type dayFile struct {
	reader *sharefile.Reader // nil until there is a file
	stats  *dayStats
	atEnd  bool // nothing more when last read
	dirty  bool // stats have changes
	flying bool // changes are being written
}

// New listens for HTTP requests, in the mode that serves.
func New(cfg Config, deps service.Deps) (*Service, error) {
	network, err := bitcoin.NetworkByName(cfg.Network)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg:     cfg,
		log:     deps.Log,
		metrics: newMetrics(deps.Metrics),
		network: network,
		started: time.Now(),
		files:   make(map[sharefile.Day]*dayFile),
	}
	s.behind.Store(true)
	s.readErr.Store(new(error))
	waiting := errors.New("waiting for the database")
	s.dbErr.Store(&waiting)
	if cfg.Day != 0 {
		return s, nil
	}
	if s.ln, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr is where HTTP requests are answered; nil in modes that exit.
func (s *Service) Addr() net.Addr {
	if s.ln == nil {
		return nil
	}
	return s.ln.Addr()
}

// Ready tells what keeps the statistics from being up to date.
func (s *Service) Ready() error {
	if s.cfg.Day != 0 {
		return nil
	}
	var behind error
	if s.behind.Load() {
		behind = errors.New("reading the share log up to its end")
	}
	return errors.Join(behind, *s.readErr.Load(), *s.dbErr.Load())
}

// Run serves until ctx ends, or does what Config.Day asks for.
func (s *Service) Run(ctx context.Context) error {
	switch {
	case s.cfg.Day != 0 && s.cfg.User != nil:
		return s.print(ctx)
	case s.cfg.Day != 0:
		return s.computeDay(ctx)
	}
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return httpapi.Serve(inner, s.ln, s.handler(), graceHTTP) })
	g.Go(func() error { return s.follow(inner) })
	g.Go(func() error { return s.keep(inner) })
	return g.Wait()
}

func (s *Service) path(day sharefile.Day) string {
	return sharefile.Path(s.cfg.DataDir, s.cfg.Chain, day)
}

func (s *Service) print(ctx context.Context) error {
	r, err := sharefile.Open(s.path(s.cfg.Day))
	if err != nil {
		return err
	}
	defer r.Close()
	return printShares(ctx, os.Stdout, r, *s.cfg.User, s.metrics)
}

// computeDay writes the statistics of a finished day over all that is there for
// it.
func (s *Service) computeDay(ctx context.Context) error {
	r, err := sharefile.Open(s.path(s.cfg.Day))
	if err != nil {
		return err
	}
	defer r.Close()
	stats := newDayStats(s.cfg.Day, s.network)
	for {
		_, err := readShares(r, batchSize, s.metrics, stats.add)
		if atEnd(err) {
			if !errors.Is(err, io.EOF) {
				s.log.Warn().Int64("offset", r.Position()).Msg("the file ends in the middle of a flush")
			}
			break
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
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

// follow reads the files of the present days as they grow.
func (s *Service) follow(ctx context.Context) error {
	defer s.closeFiles()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		more, err := s.readFiles(time.Now())
		s.noteRead(err)
		if more && ctx.Err() == nil {
			continue
		}
		if err == nil {
			s.behind.Store(false)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// readFiles reads a batch of each file, and returns whether there is more.
func (s *Service) readFiles(now time.Time) (more bool, err error) {
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

// chooseDays returns the days to read, newest first: today, and yesterday from the start until it is read, written
// and LateShares old. The caller holds mu.
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
		r, err := sharefile.Open(s.path(day))
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
	n, err := readShares(f.reader, batchSize, s.metrics, func(sh *share.Share) {
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

func (s *Service) closeFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.close()
	}
}

func (s *Service) noteRead(err error) {
	if err != nil {
		s.metrics.readErrors.Inc()
		if *s.readErr.Load() == nil {
			s.log.Error().Err(err).Msg("share log cannot be read on: will try again and again")
		}
	}
	s.readErr.Store(&err)
}

// keep writes what changed to the database, at the end once more.
func (s *Service) keep(ctx context.Context) error {
	db, err := store.Connect(ctx, s.cfg.Database, s.log)
	if err != nil {
		return nil // ctx has ended
	}
	defer db.Close()
	s.dbErr.Store(new(error))
	tick := time.NewTicker(s.cfg.FlushDBInterval.Std())
	defer tick.Stop()
	var purged time.Time
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			s.flush(last, db)
			return nil
		case <-tick.C:
		}
		s.flush(ctx, db)
		if now := time.Now(); now.Sub(purged) >= purgeInterval {
			purged = now
			if err := db.PurgeStats(ctx, now); err != nil && ctx.Err() == nil {
				s.log.Warn().Err(err).Msg("old statistics not removed")
			}
		}
	}
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
		if *s.dbErr.Load() == nil {
			s.log.Warn().Err(failed).Msg("statistics not written: will try again and again")
		}
		failed = fmt.Errorf("statistics not written: %w", failed)
	}
	s.dbErr.Store(&failed)
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
