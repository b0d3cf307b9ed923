package sharelogger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/archive"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// chainLog reads the shares of a chain and writes its files.
type chainLog struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	bus     *bus.Client
	closing service.Closing
	// former is the folder that the chain's is a part of by default, where its log may be from when it was the only one.
	former string // "": no matter

	adding, flushing *service.Fault // what goes wrong with the files
	reading          *service.Fault // and with Kafka

	group  *group  // nil: none
	sealer *sealer // nil: none

	mu      sync.Mutex
	writer  *sharefile.Writer
	flushed map[int]int64 // by partition: below these offsets all is on disk

	body []byte // of a share of an old version; only Read's goroutine uses it
}

// newChain makes the client of the bus.
func newChain(cfg Config, deps service.Deps) (*chainLog, error) {
	fault := func() *service.Fault {
		return service.NewFault(deps.Log, zerolog.ErrorLevel,
			"share log cannot be written: shares wait in the topic until this is mended", "share log is written again")
	}
	s := &chainLog{
		cfg: cfg, log: deps.Log, metrics: newMetrics(deps.Metrics), adding: fault(), flushing: fault(),
		reading: service.NewFault(deps.Log, zerolog.WarnLevel, "shares cannot be read from Kafka: will try again and again", "shares are read again"),
	}
	s.adding.Await(errors.New("waiting for the share topic"))
	if cfg.SealDay != 0 || cfg.VerifyDay != 0 {
		return s, nil
	}
	var err error
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return nil, err
	}
	s.closing.Add(s.bus.Close)
	if cfg.GroupID != "" {
		s.group = newGroup(s.bus, cfg.GroupID, cfg.Kafka.Topics.Share, s.log, s.metrics.commits)
	}
	return s, nil
}

// open locks the folder and recovers its files, unless they are open.
func (s *chainLog) open() error {
	if s.writer != nil || s.bus == nil {
		return nil
	}
	if err := s.checkFormer(); err != nil {
		return err
	}
	mode, err := s.cfg.fileMode()
	if err != nil {
		return err
	}
	writer, err := sharefile.OpenWriter(s.cfg.DataDir, s.cfg.Chain, s.log, sharefile.Compression(s.cfg.CompressionLevel), sharefile.FileMode(mode))
	if err != nil {
		return fmt.Errorf("share log in %s: %w", s.cfg.DataDir, err)
	}
	s.mu.Lock()
	s.writer, s.flushed = writer, nil
	s.mu.Unlock()
	return s.openSealer()
}

// checkFormer wants no second log of the chain to begin beside one that is there.
func (s *chainLog) checkFormer() error {
	if s.former == "" {
		return nil
	}
	days, err := sharefile.Days(s.former, s.cfg.Chain)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(days) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s has day files of %s already: set data_dir in its section of [[chains]], to that folder to go on there", s.former, s.cfg.Chain)
}

// release gives the folder free.
func (s *chainLog) release() error {
	if s.writer == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.writer.Close()
	s.writer = nil
	return err
}

func (s *chainLog) openSealer() error {
	if s.cfg.Seal.After == 0 || s.cfg.Repair != 0 {
		return nil
	}
	store, err := archive.New(s.cfg.Seal.Archive)
	if err != nil {
		return config.In("seal.archive", err)
	}
	s.sealer = &sealer{
		cfg: s.cfg, log: s.log, metrics: s.metrics, store: store, needs: s.needsDay, remove: s.removeDay, known: make(map[sharefile.Day]*pastDay),
		fault: service.NewFault(s.log, zerolog.ErrorLevel, "past days are not all sealed: will look again", "past days are sealed"),
	}
	return nil
}

// needsDay tells whether a day's file cannot be removed yet.
func (s *chainLog) needsDay(day sharefile.Day) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writer.Needs(day)
}

// removeDay removes a day's file, unless it is needed.
func (s *chainLog) removeDay(day sharefile.Day, info os.FileInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writer.Remove(day, info)
}

func (s *chainLog) close() error { return errors.Join(s.release(), s.closing.Close()) }

// ready tells what keeps shares from getting to the disk.
func (s *chainLog) ready() error {
	err := errors.Join(s.adding.Err(), s.flushing.Err())
	if away := s.reading.Err(); away != nil {
		err = errors.Join(err, fmt.Errorf("shares cannot be read from Kafka: %w", away))
	}
	return err
}

// run works until ctx ends, then writes what it has.
func (s *chainLog) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.release()) }()
	if err := s.open(); err != nil {
		return err
	}
	switch {
	case s.cfg.Repair != 0:
		return s.repair(ctx)
	case s.cfg.SealDay != 0:
		return s.seal(ctx, s.cfg.SealDay)
	case s.cfg.VerifyDay != 0:
		return s.verify(ctx, s.cfg.VerifyDay)
	}
	topic := s.cfg.Kafka.Topics.Share
	if err := s.bus.EnsureTopics(ctx, topic); err != nil || ctx.Err() != nil {
		return err
	}
	start, err := s.start(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	s.adding.Set(nil)
	s.flushing.Set(nil)
	s.reading.Set(nil)

	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.bus.Read(inner, topic, start, func(m bus.Message) error { return s.take(inner, m) }, bus.Failing(s.reading.Set))
	})
	g.Go(func() error { return s.flushEvery(inner, s.cfg.FlushInterval.Std()) })
	g.Go(func() error { return s.commitEvery(inner, s.cfg.FlushInterval.Std()) })
	if s.sealer != nil {
		g.Go(func() error { return s.sealer.run(inner) })
	}
	err = g.Wait()
	s.mu.Lock()
	if s.flush() != nil {
		s.log.Warn().Int("bytes", s.writer.Pending()).Msg("stopping with shares not written: they will be read from the topic again")
	}
	s.mu.Unlock()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCommit)
	defer cancel()
	s.commit(last)
	return err
}

// take adds a message's share to what the next flush writes. When too much is waiting, it waits for a flush to succeed.
func (s *chainLog) take(ctx context.Context, m bus.Message) error {
	var sh share.Share
	body, fault, err := s.parse(m, &sh)
	if err != nil {
		s.metrics.dropped.WithLabelValues(fault).Inc()
		s.log.Debug().Err(err).Int("partition", m.Partition).Int64("offset", m.Offset).Msg("share dropped")
		return nil
	}
	if m.Time.IsZero() {
		m.Time = time.Unix(sh.Time, 0)
	}
	s.metrics.lag.Set(time.Since(m.Time).Seconds())
	for s.add(m, &sh, body) != nil {
		if !retry.Sleep(ctx, retryInterval) {
			return ctx.Err()
		}
	}
	return nil
}

// parse reads a message's share and returns its record, valid until the next call, or what kind of fault an error is.
func (s *chainLog) parse(m bus.Message, sh *share.Share) (body []byte, fault string, err error) {
	if err := sh.Parse(m.Value); err != nil {
		return nil, "malformed", err
	}
	if err := sh.Validate(); err != nil {
		return nil, "invalid", err
	}
	body, ok := share.Body(m.Value)
	if !ok {
		s.body = sh.AppendBody(s.body[:0])
		body = s.body
	}
	return body, "", nil
}

const retryInterval = time.Second

// add returns an error when the share has to be added again later.
func (s *chainLog) add(m bus.Message, sh *share.Share, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writer.Pending() >= s.cfg.FlushBytes {
		if err := s.flush(); err != nil {
			return err
		}
	}
	isNew, err := s.writer.Add(&m, sh, body)
	s.note(s.adding, err)
	if err != nil {
		return err
	}
	if !isNew {
		s.metrics.dropped.WithLabelValues("repeated").Inc()
	}
	s.metrics.pending.Set(float64(s.writer.Pending()))
	return nil
}

func (s *chainLog) flushEvery(ctx context.Context, interval time.Duration) error {
	for retry.Sleep(ctx, interval) {
		s.mu.Lock()
		_ = s.flush() // logged, and tried again the next time
		s.mu.Unlock()
	}
	return nil
}

// flush writes what is pending. The caller holds mu.
func (s *chainLog) flush() error {
	if s.writer.Pending() == 0 {
		return nil
	}
	start := time.Now()
	n, err := s.writer.Flush()
	s.metrics.flushTime.Observe(time.Since(start).Seconds())
	s.metrics.written.Add(float64(n))
	s.metrics.gaps.Set(float64(s.writer.Gaps()))
	s.metrics.pending.Set(float64(s.writer.Pending()))
	s.note(s.flushing, err)
	if err == nil {
		s.flushed = s.writer.Next()
	}
	return err
}

// lastCommit bounds how long stopping waits for the consumer group.
const lastCommit = 5 * time.Second

func (s *chainLog) commitEvery(ctx context.Context, interval time.Duration) error {
	for retry.Sleep(ctx, interval) {
		s.commit(ctx)
	}
	return nil
}

// commit has the consumer group remember what is on disk.
func (s *chainLog) commit(ctx context.Context) {
	s.mu.Lock()
	next := s.flushed
	s.mu.Unlock()
	if s.group != nil {
		s.group.commit(ctx, next)
	}
}

// note keeps the outcome of an operation on the files.
func (s *chainLog) note(f *service.Fault, err error) {
	if err != nil {
		s.metrics.failures.Inc()
	}
	f.Set(err)
}
