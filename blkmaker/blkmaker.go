// Package blkmaker turns solved shares into blocks and gets them onto the
// chain: it keeps the jobs and templates of the last heights, assembles the
// block, submits it to every node at once and follows what becomes of it in
// found_blocks.
//
// A solved share comes through Kafka and directly from sserver; the first to arrive wins. It is in the journal, on
// disk, before anything else happens to it, and is worked on again after every start until a node has the block on its
// chain, every node has refused it, or it is given up, and until the row is written. All of that may be repeated, so a
// blkmaker that is killed at any point loses nothing. Database and Kafka take no part in the submission: they may be
// away.
package blkmaker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/durable"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

const (
	// readBack is how far back jobs and templates are read at the start: a job can be solved for 5 minutes, and may be
	// made of a template that is some minutes old. Those of the time before are in data_dir.
	readBack = 15 * time.Minute
	// lastTemplates and lastJobs are how many of the last are read where it is not known how old they are.
	lastTemplates, lastJobs = 100, 120
	// firstReadBack is how far back solved shares are read by a blkmaker whose data_dir is new. By then others have
	// built on the parents of the rest. Where it is not known how old they are, all are read.
	firstReadBack = time.Hour
	// readAgain is how many solved shares that were read before are read again at every start: the journal knows them
	// all, and what it does not know would be a block lost.
	readAgain = 1000
	// drainFor is how long submissions under way go on when we are to stop.
	drainFor = 5 * time.Second
	// maxSolving is how many solved shares are worked on at a time; the rest wait where they are.
	maxSolving = 1000
	// maxWaiting is how many solved shares may wait for their jobs and templates besides; more are not real.
	maxWaiting = 10_000
)

// Service is a blkmaker.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	network bitcoin.Network
	bus     *bus.Client
	nodes   []*node
	merged  mergedNodes
	closing service.Closing
	journal *journal
	cache   *cache
	archive archive
	disk    *service.Fault   // data_dir cannot be written
	direct  *handover.Server // nil: none

	behind   atomic.Int32  // topics whose past is still being read into the cache
	caughtUp chan struct{} // closed when behind is 0

	store     *store.Store
	connected chan struct{} // closed when store is there
	follow    retry.Bell    // wakes the follower: a block was written down

	room    chan struct{}  // holds one for each solved share that is being worked on
	waiting chan struct{}  // holds one for each that waits for its job and template
	tasks   sync.WaitGroup // all that works on them
}

// New opens data_dir and the address for solved shares, and makes clients of broker and nodes, without calling them.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:       cfg,
		log:       deps.Log,
		caughtUp:  make(chan struct{}),
		connected: make(chan struct{}),
		follow:    retry.NewBell(),
		room:      make(chan struct{}, maxSolving),
		waiting:   make(chan struct{}, maxWaiting),
	}
	s.metrics = newMetrics(deps.Metrics, len(cfg.Nodes))
	s.metrics.watchShares(deps.Metrics, s.room, s.waiting)
	s.metrics.invalid.WithLabelValues(cfg.Kafka.Topics.SolvedShare) // so that the first one is an increase
	s.disk = service.NewFault(s.log, zerolog.ErrorLevel, "data_dir cannot be written: a block that is found now may be lost", "data_dir can be written again")
	s.behind.Store(2)
	if err := s.open(deps); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Service) open(deps service.Deps) (err error) {
	if s.network, err = bitcoin.NetworkByName(s.cfg.Network); err != nil {
		return err
	}
	if s.cfg.Verify {
		s.archive = archive(filepath.Join(s.cfg.DataDir, "blocks"))
		s.nodes, err = newNodes(s.cfg.Nodes, &s.closing)
		return err
	}
	if err := s.openDataDir(deps); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if s.bus, err = bus.New(s.cfg.Kafka, deps); err != nil {
		return err
	}
	s.closing.Add(s.bus.Close)
	if s.nodes, err = newNodes(s.cfg.Nodes, &s.closing); err != nil {
		return err
	}
	if s.merged, err = newMergedNodes(s.cfg, &s.closing); err != nil {
		return err
	}
	if s.cfg.Handover.Listen != "" {
		if s.direct, err = handover.Listen(s.cfg.Handover); err != nil {
			return err
		}
		s.closing.Add(s.direct.Close)
	}
	return nil
}

func (s *Service) openDataDir(deps service.Deps) error {
	lock, err := durable.Lock(s.cfg.DataDir)
	if err != nil {
		return err
	}
	s.closing.Add(lock.Close)
	if s.journal, err = openJournal(s.cfg.DataDir, s.log, s.metrics); err != nil {
		return err
	}
	s.closing.Add(s.journal.close)
	s.metrics.watchJournal(deps.Metrics, s.journal)
	if s.cache, err = openCache(filepath.Join(s.cfg.DataDir, "cache"), s.log, s.metrics); err != nil {
		return err
	}
	s.closing.Add(s.cache.close)
	s.archive, err = openArchive(filepath.Join(s.cfg.DataDir, "blocks"))
	return err
}

// Close ends a service that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Addr returns where solved shares are handed over, nil when that is off.
func (s *Service) Addr() net.Addr {
	if s.direct == nil {
		return nil
	}
	return s.direct.Addr()
}

// Ready reports whether blocks can be made and submitted.
func (s *Service) Ready() error {
	if s.cfg.Verify {
		return nil
	}
	var errs []error
	select {
	case <-s.caughtUp:
	default:
		errs = append(errs, errors.New("jobs and templates are still being read"))
	}
	if err := s.disk.Err(); err != nil {
		errs = append(errs, fmt.Errorf("data_dir cannot be written: %w", err))
	}
	if len(s.room) == cap(s.room) {
		errs = append(errs, errBusy)
	}
	if len(s.waiting) == cap(s.waiting) {
		errs = append(errs, errCrowd)
	}
	if best, _ := s.best(); best == nil {
		for i, n := range s.nodes {
			errs = append(errs, fmt.Errorf("node %d: %w", i, n.state.Load().err))
		}
	}
	return errors.Join(errs...)
}

// Run makes blocks until ctx ends, or verifies.
func (s *Service) Run(ctx context.Context) error {
	if s.cfg.Verify {
		return errors.Join(s.verify(ctx, os.Stdout), s.Close())
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx)) // submissions outlive the readers by drainFor
	g, inner := errgroup.WithContext(ctx)
	w := worker{s, inner, work}
	g.Go(func() error { return s.readTemplates(inner) })
	topics := s.cfg.Kafka.Topics
	for kind, topic := range map[kind]string{kindBlock: topics.SolvedShare, kindAux: topics.AuxSolved, kindRSK: topics.RSKSolved} {
		g.Go(func() error { return w.readSolved(kind, topic) })
	}
	g.Go(func() error { w.resume(); return nil })
	if s.direct != nil {
		g.Go(func() error { return s.direct.Run(inner, w.takeDirect) })
	}
	g.Go(func() error {
		if err := s.connect(inner); err != nil {
			return err
		}
		g.Go(func() error { return s.followBlocks(inner) })
		g.Go(func() error { return s.followMerged(inner, mergedEvery) })
		return nil
	})
	g.Go(func() error { return s.pruneArchive(inner) })
	g.Go(func() error { s.watchDisk(inner, diskEvery); return nil })
	for _, n := range s.nodes {
		g.Go(func() error { return s.watch(inner, n) })
	}
	err := g.Wait()

	timer := time.AfterFunc(drainFor, stopWork)
	s.tasks.Wait()
	timer.Stop()
	stopWork()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, s.Close())
}

// readTemplates reads templates and jobs.
func (s *Service) readTemplates(ctx context.Context) error {
	topics := s.cfg.Kafka.Topics
	if err := s.bus.EnsureTopics(ctx, topics.RawGBT, topics.Job); err != nil {
		return err
	}
	since := time.Now().Add(-readBack)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.bus.Read(ctx, topics.RawGBT, bus.Since(since, lastTemplates), s.keepTemplate, bus.CaughtUp(s.topicRead))
	})
	g.Go(func() error {
		return s.bus.Read(ctx, topics.Job, bus.Since(since, lastJobs), s.keepJob, bus.CaughtUp(s.topicRead))
	})
	return g.Wait()
}

// readSolved reads the topic of a kind of solved shares from where an earlier run has come to.
func (w worker) readSolved(kind kind, topic string) error {
	if topic == "" {
		return nil
	}
	if err := w.bus.EnsureTopics(w.ctx, topic); err != nil {
		return err
	}
	from := bus.Since(time.Now().Add(-firstReadBack), math.MaxInt)
	if last := w.journal.lastRead(topic); last != nil {
		from = bus.After(last, readAgain)
	}
	live := false // only used on the goroutine that handles messages
	handle := func(m bus.Message) error { return w.takeMessage(kind, topic, m, live) }
	rewound := func(partition int, earliest int64) { w.journal.rewound(topic, partition, earliest) }
	return w.bus.Read(w.ctx, topic, from, handle, bus.CaughtUp(func() { live = true }), bus.Rewound(rewound))
}

// topicRead is called when a topic's past is in the cache.
func (s *Service) topicRead() {
	if s.behind.Add(-1) == 0 {
		s.log.Info().Msg("jobs and templates read")
		close(s.caughtUp)
	}
}

func (s *Service) keepTemplate(m bus.Message) error {
	raw, err := job.ParseRawGBT(m.Value)
	var height int32
	var txs [][]byte
	if err == nil {
		height, txs, err = job.TemplateTransactions(raw.Response)
	}
	if err != nil {
		s.invalidMessage(s.cfg.Kafka.Topics.RawGBT, m, err)
		return nil
	}
	s.cache.addTemplate(height, raw.Hash, txs, sentAt(m, time.Unix(int64(raw.CreatedAt), 0)))
	return nil
}

func (s *Service) keepJob(m bus.Message) error {
	j, err := job.ParseStratumJob(m.Value)
	if err != nil {
		s.invalidMessage(s.cfg.Kafka.Topics.Job, m, err)
		return nil
	}
	s.cache.addJob(j, sentAt(m, j.ID.Time()))
	return nil
}

// sentAt is when a message was sent, not later than now whatever the sender's clock says. Made, the time that its
// content tells, stands in for a message without a time.
func sentAt(m bus.Message, made time.Time) time.Time {
	sent := m.Time
	if sent.IsZero() {
		sent = made
	}
	if now := time.Now(); sent.After(now) {
		return now
	}
	return sent
}

func (s *Service) invalidMessage(topic string, m bus.Message, err error) {
	s.metrics.invalid.WithLabelValues(topic).Inc()
	s.log.Error().Err(err).Str("topic", topic).Int("partition", m.Partition).Int64("offset", m.Offset).
		Int("bytes", len(m.Value)).Msg("message skipped: it cannot be read")
}

// connect opens the database.
func (s *Service) connect(ctx context.Context) error {
	db, err := store.Connect(ctx, s.cfg.Database, s.log)
	if err != nil {
		return err
	}
	s.store = db
	s.closing.Add(db.Close)
	close(s.connected)
	return nil
}

// withStore repeats do until it succeeds or ctx ends.
func (s *Service) withStore(ctx context.Context, what string, do func(*store.Store) error) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.connected:
	}
	pace := retry.Pace{First: 100 * time.Millisecond, Longest: 5 * time.Second}
	return retry.Do(ctx, pace, func() error { return do(s.store) }, func(err error, pause time.Duration) {
		s.log.Warn().Err(err).Dur("retry_ms", pause).Msg(what + ": will try again")
	})
}

const (
	// diskEvery is how often data_dir is tried out: blocks are too rare to find out by them.
	diskEvery = 10 * time.Second
	// diskRoom is for some blocks in hex, and what the journal grows by meanwhile.
	diskRoom = 64 << 20
)

// watchDisk tries out again and again whether data_dir can be written, until ctx ends.
func (s *Service) watchDisk(ctx context.Context, every time.Duration) {
	for again := true; again; again = retry.Sleep(ctx, every) {
		s.disk.Set(durable.Writable(s.cfg.DataDir, diskRoom))
	}
}

func (s *Service) pruneArchive(ctx context.Context) error {
	for again := true; again; again = retry.Sleep(ctx, time.Hour) {
		if err := s.archive.prune(time.Now()); err != nil {
			s.log.Warn().Err(err).Msg("old blocks not removed from data_dir")
		}
	}
	return nil
}
