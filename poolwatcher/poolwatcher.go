// Package poolwatcher is the service that learns of new blocks from other
// pools: when the Stratum job of one is for the height after ours, it writes an
// empty template on the same block to the raw template topic, so that miners
// leave the old block before our own nodes have the new one.
//
// Pools are not believed. What they say must fit our own job and must have the work of a block, our node must not have
// judged the block before, and as many pools as configured must agree. What jobmaker does with such templates bounds
// what is left: they are followed briefly, once a height, and any template of our own nodes beats them.
package poolwatcher

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/miner"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/stratum"
)

const (
	agent = "__PoolWatcher__" // btcpool's
	// idleTimeout is the silence after which a pool is connected to again, at the earliest reconnectWait after the last
	// time.
	idleTimeout   = 2 * time.Minute
	reconnectWait = 10 * time.Second
	// Later than nodeTimeout and writeTimeout allow, our own node is expected to have the block itself.
	nodeTimeout  = 2 * time.Second
	writeTimeout = 5 * time.Second
	logInterval  = 10 * time.Second
)

// Service is a poolwatcher.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	network bitcoin.Network
	closing service.Closing
	node    *noderpc.Client
	bus     *bus.Client

	refusalLog rate.Sometimes

	mu    sync.Mutex
	view  view
	guess guess
}

// guess is our last template, until our own nodes have shown whether it was right.
type guess struct {
	pool   string // "": none is open
	block  chainhash.Hash
	height int32
	at     time.Time
}

// New returns a poolwatcher; it connects to nothing.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	network, err := bitcoin.NetworkByName(cfg.Network)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg:        cfg,
		log:        deps.Log,
		metrics:    newMetrics(deps.Metrics, cfg.Pools),
		network:    network,
		refusalLog: rate.Sometimes{Interval: logInterval},
		view:       view{agree: cfg.Agree, pools: make(map[string]chainhash.Hash)},
	}
	if s.node, err = noderpc.New(cfg.Node); err != nil {
		return nil, err
	}
	s.closing.Add(func() error { s.node.Close(); return nil })
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.closing.Add(s.bus.Close)
	return s, nil
}

// Close ends a poolwatcher that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Run watches until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	topics := s.cfg.Kafka.Topics
	if err := s.bus.EnsureTopics(ctx, topics.RawGBT, topics.Job); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.bus.Read(ctx, topics.Job, bus.Last(1), func(m bus.Message) error {
			s.takeJob(m.Value, time.Now())
			return nil
		})
	})
	for _, p := range s.cfg.Pools {
		g.Go(func() error { s.watch(ctx, p); return nil })
	}
	return g.Wait()
}

// Ready returns nil while there are a pool and an own job to compare.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if own := s.view.own; own == nil || time.Since(own.ID.Time()).Abs() > jobLifetime {
		errs = append(errs, errors.New("no job of our own lately, by the clock of this machine"))
	}
	if len(s.view.pools) == 0 {
		errs = append(errs, errors.New("no pool is connected"))
	}
	return errors.Join(errs...)
}

// takeJob takes in a job of our own.
func (s *Service) takeJob(message []byte, now time.Time) {
	own, err := job.ParseStratumJob(message)
	if err != nil {
		s.metrics.invalid.Inc()
		s.refusalLog.Do(func() { s.log.Error().Err(err).Msg("own job skipped: it cannot be read") })
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.own = own
	open := s.guess
	switch {
	case open.pool == "" || own.Height < open.height:
	case own.PrevHash != open.block && own.Height == open.height:
		s.metrics.refuted.WithLabelValues(open.pool).Inc()
		s.log.Warn().Str("pool", open.pool).Stringer("prev_hash", open.block).Int32("height", open.height).
			Msg("our nodes work on another block than a pool named")
		s.guess = guess{}
	case own.PrevHash == open.block && len(own.MerkleBranch) > 0:
		s.metrics.lead.Observe(now.Sub(open.at).Seconds())
		s.guess = guess{}
	case own.Height > open.height:
		s.guess = guess{}
	}
}

// sighting is a claim that is worth following.
type sighting struct {
	claim
	own *job.StratumJob // our job that it was held against
	at  time.Time
}

// watch keeps a session with a pool until ctx ends.
func (s *Service) watch(ctx context.Context, p Pool) {
	log := s.log.With().Str("pool", p.Name).Logger()
	connected := s.metrics.connected.WithLabelValues(p.Name)
	sightings := make(chan sighting, 1) // a pool that names more while one is being followed is not heard
	var following sync.WaitGroup
	following.Go(func() {
		for seen := range sightings {
			s.follow(ctx, p.Name, seen)
		}
	})
	defer following.Wait()
	defer close(sightings)
	for ctx.Err() == nil {
		began := time.Now()
		client := miner.NewClient(miner.ClientConfig{
			Addr: p.Addr, TLS: p.tls(), User: p.User, Password: p.Password, Agent: agent, Idle: idleTimeout,
			OnStep: func(step miner.Step, _ time.Duration) {
				if step == miner.Authorize {
					connected.Set(1)
					log.Info().Msg("pool connected")
				}
			},
			OnJob: func(j *miner.Job, at time.Time) { s.hear(p.Name, j.Job, at, sightings) },
		}, log)
		err := client.Run(ctx)
		connected.Set(0)
		s.mu.Lock()
		s.view.forget(p.Name)
		s.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		log.Warn().Err(err).Msg("pool is not watched, will connect again")
		retry.Sleep(ctx, time.Until(began.Add(reconnectWait)))
	}
}

// hear judges a pool's job by what is known here.
func (s *Service) hear(pool string, j *stratum.Job, at time.Time, sightings chan<- sighting) {
	c, err := claimOf(j)
	if err != nil {
		s.count(pool, c, verdictInvalid)
		return
	}
	s.mu.Lock()
	v, own := s.view.hear(pool, c, at), s.view.own
	s.mu.Unlock()
	if v == verdictNew {
		select {
		case sightings <- sighting{c, own, at}:
			return
		default:
			v = verdictBusy
		}
	}
	s.count(pool, c, v)
}

// follow writes an empty template on the block that a pool has named, if our node and the other pools leave room for
// it.
func (s *Service) follow(ctx context.Context, pool string, seen sighting) {
	v := s.ask(ctx, seen)
	if v == verdictNew && !s.take(pool, seen) {
		v = verdictRepeated
	}
	s.count(pool, seen.claim, v)
	if v != verdictNew || ctx.Err() != nil {
		return
	}
	log := s.log.With().Str("pool", pool).Stringer("prev_hash", seen.prevHash).Int32("height", seen.height).Logger()
	if err := s.write(ctx, pool, seen); err != nil {
		s.metrics.unwritten.Inc()
		log.Warn().Err(err).Msg("empty template not written")
		return
	}
	s.metrics.templates.WithLabelValues(pool).Inc()
	log.Info().Dur("latency_ms", time.Since(seen.at)).Msg("empty template for a block of another pool")
}

// count counts what became of a pool's job, and logs what should be rare.
func (s *Service) count(pool string, c claim, v verdict) {
	s.metrics.jobs.WithLabelValues(pool, string(v)).Inc()
	switch v {
	case verdictNew, verdictSame, verdictKnown, verdictRepeated, verdictWaiting:
	default:
		s.refusalLog.Do(func() {
			s.log.Info().Str("pool", pool).Stringer("prev_hash", c.prevHash).Int32("height", c.height).Str("verdict", string(v)).
				Msg("block of another pool not followed")
		})
	}
}

// ask has our node say what it knows of the block. One that it has on its chain, or had long ago, needs no watcher; one
// of which only the header has come yet is as good as a new one.
func (s *Service) ask(ctx context.Context, seen sighting) verdict {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	where, err := s.node.Block(ctx, seen.prevHash.String())
	switch {
	case errors.Is(err, noderpc.ErrUnknownBlock):
		return verdictNew
	case err != nil:
		return verdictUnchecked
	case where.Confirmations <= 0 && where.Height == seen.own.Height:
		return verdictNew
	}
	return verdictKnown
}

// take makes the block ours to announce, unless another pool was faster or our own job is for another block by now.
func (s *Service) take(pool string, seen sighting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view.sent == seen.prevHash || s.view.own.PrevHash != seen.own.PrevHash {
		return false
	}
	s.view.sent = seen.prevHash
	s.guess = guess{pool, seen.prevHash, seen.height, seen.at}
	return true
}

func (s *Service) write(ctx context.Context, pool string, seen sighting) error {
	now := time.Now()
	raw := job.NewRawGBT(emptyTemplate(s.network, seen, now), now)
	raw.FromPool = pool
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return s.bus.Write(ctx, s.cfg.Kafka.Topics.RawGBT, bus.Message{Value: raw.AppendTo(nil)})
}
