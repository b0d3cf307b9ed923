// Package blkmaker turns solved shares into blocks and gets them onto the
// chain: it keeps the jobs and templates of the last minutes, assembles the
// block, submits it to every node at once and follows what becomes of it in
// found_blocks.
//
// A solved share's offset is committed only when the nodes have decided and
// the row is written, and all of that may be repeated, so a blkmaker that is
// killed at any point loses nothing. The database takes no part in the
// submission: it may be away.
package blkmaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

const (
	group = "blkmaker"
	// recent is how old a solved share may be at the start to be taken up at
	// once: the group, which takes up all of them, has to wait for up to 10 s
	// until a killed member is missed.
	recent = time.Minute
	// drainFor is how long submissions under way go on when we are to stop.
	drainFor = 5 * time.Second
	// maxSolving is how many solved shares are worked on at a time; the rest
	// wait for their turn in the group.
	maxSolving = 1000
)

// Service is a blkmaker.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	network bitcoin.Network
	bus     *bus.Client
	nodes   []*node
	cache   *cache
	archive archive

	behind   atomic.Int32  // topics whose past is still being read into the cache
	caughtUp chan struct{} // closed when behind is 0

	store     *store.Store
	connected chan struct{} // closed when store is there
	follow    chan struct{} // wakes the follower: a block was written down

	solving solving
	work    sync.WaitGroup // all of solving's goroutines
}

// New opens the archive and makes clients of broker and nodes, without calling
// them.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	network, err := bitcoin.NetworkByName(cfg.Network)
	if err != nil {
		return nil, err
	}
	archive, err := openArchive(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	nodes, err := newNodes(cfg.Nodes)
	if err != nil {
		return nil, err
	}
	client, err := bus.New(cfg.Kafka, deps)
	if err != nil {
		return nil, err
	}
	m := newMetrics(deps.Metrics, len(nodes))
	s := &Service{
		cfg:       cfg,
		log:       deps.Log,
		metrics:   m,
		network:   network,
		bus:       client,
		nodes:     nodes,
		cache:     newCache(m),
		archive:   archive,
		caughtUp:  make(chan struct{}),
		connected: make(chan struct{}),
		follow:    make(chan struct{}, 1),
		solving:   newSolving(),
	}
	s.behind.Store(2)
	return s, nil
}

// Ready reports whether blocks can be made and submitted.
func (s *Service) Ready() error {
	var errs []error
	select {
	case <-s.caughtUp:
	default:
		errs = append(errs, errors.New("jobs and templates are still being read"))
	}
	if best, _ := s.best(); best == nil {
		for i, n := range s.nodes {
			errs = append(errs, fmt.Errorf("node %d: %w", i, n.state.Load().err))
		}
	}
	return errors.Join(errs...)
}

// Run makes blocks until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	// Submissions outlive the readers by drainFor.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return s.read(inner, work) })
	g.Go(func() error { return s.connect(inner) })
	g.Go(func() error { return s.followBlocks(inner) })
	g.Go(func() error { return s.pruneArchive(inner) })
	for _, n := range s.nodes {
		g.Go(func() error { return s.watch(inner, n) })
	}
	err = g.Wait()

	timer := time.AfterFunc(drainFor, stopWork)
	s.work.Wait()
	timer.Stop()
	stopWork()
	for _, n := range s.nodes {
		n.client.Close()
	}
	if ctx.Err() != nil {
		err = nil
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	return errors.Join(err, s.bus.Close())
}

// read reads all topics.
func (s *Service) read(ctx, work context.Context) error {
	topics := s.cfg.Kafka.Topics
	if err := s.bus.EnsureTopics(ctx, topics.RawGBT, topics.Job, topics.SolvedShare); err != nil {
		return err
	}
	now := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.bus.Read(ctx, topics.RawGBT, bus.Since(now.Add(-keepFor)), s.keepTemplate, bus.CaughtUp(s.topicRead))
	})
	g.Go(func() error {
		return s.bus.Read(ctx, topics.Job, bus.Since(now.Add(-keepFor)), s.keepJob, bus.CaughtUp(s.topicRead))
	})
	// Solved shares are read twice. The first reader is prompt: nothing that
	// happens to one block holds up the next. The second one commits a solved
	// share when it is done with.
	g.Go(func() error {
		return s.bus.Read(ctx, topics.SolvedShare, bus.Since(now.Add(-recent)), func(m bus.Message) error {
			if s.solving.open() < maxSolving {
				_, _ = s.solve(ctx, work, m) // the other reader tells of what cannot be read
			}
			return nil
		})
	})
	g.Go(func() error {
		return s.bus.ReadGroup(ctx, topics.SolvedShare, group, func(ctx context.Context, m bus.Message) error {
			concluded, err := s.solve(ctx, work, m)
			if err != nil {
				s.invalidMessage(topics.SolvedShare, m, err)
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-concluded:
				return nil
			}
		})
	})
	return g.Wait()
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
	if err != nil {
		s.invalidMessage(s.cfg.Kafka.Topics.RawGBT, m, err)
		return nil
	}
	txs, err := job.TemplateTransactions(raw.Response)
	if err != nil {
		s.invalidMessage(s.cfg.Kafka.Topics.RawGBT, m, err)
		return nil
	}
	s.cache.addTemplate(raw.Hash, txs, m.Time, time.Now())
	return nil
}

func (s *Service) keepJob(m bus.Message) error {
	j, err := job.ParseStratumJob(m.Value)
	if err != nil {
		s.invalidMessage(s.cfg.Kafka.Topics.Job, m, err)
		return nil
	}
	s.cache.addJob(j, m.Time, time.Now())
	return nil
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
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := do(s.store)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.Warn().Err(err).Dur("retry_ms", wait).Msg(what + ": will try again")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (s *Service) pruneArchive(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := s.archive.prune(time.Now()); err != nil {
			s.log.Warn().Err(err).Msg("old blocks not removed from data_dir")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
