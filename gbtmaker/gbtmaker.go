// Package gbtmaker takes block templates from a Bitcoin node and writes them to
// the raw template topic: at once when the node announces a block over ZeroMQ
// or answers a long poll, and every few seconds in between.
//
// A template comes from a node that is on the configured network and has
// finished downloading, and has all that a job needs. Run several gbtmakers on
// different nodes: the readers of the topic take the best.
package gbtmaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/service"
)

// What makes a template be fetched, as the metrics name it.
const (
	byZMQ      = "zmq"
	byLongPoll = "longpoll"
	byPeriod   = "period"
)

const (
	// staleAge is when jobs are not made of a template any more.
	staleAge = time.Minute
	// writeTimeout is when it is better to fetch a new template than to go on
	// trying to write an old one.
	writeTimeout = 10 * time.Second
	firstRetry   = 250 * time.Millisecond
	// longPollSpacing, from start to start, bounds what a node costs that
	// answers long polls at once.
	longPollSpacing = 100 * time.Millisecond
)

// Service is a gbtmaker.
type Service struct {
	log      zerolog.Logger
	metrics  *metrics
	network  bitcoin.Network
	node     *noderpc.Client
	zmq      string
	interval time.Duration
	bus      *bus.Client
	topic    string

	blocks chan struct{} // the node announced a block; holds one
	polled chan []byte   // answers to long polls

	mu      sync.Mutex
	newest  fetched
	changed chan struct{} // closed and replaced with newest
	written time.Time     // the last template
	fault   error         // why there is no newer one
}

// fetched is a template and its number, from 1.
type fetched struct {
	*job.Template
	n uint64
}

// New returns a gbtmaker without connecting to anything.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	network, err := bitcoin.NetworkByName(cfg.Network)
	if err != nil {
		return nil, err
	}
	node, err := noderpc.New(cfg.Node)
	if err != nil {
		return nil, err
	}
	client, err := bus.New(cfg.Kafka, deps)
	if err != nil {
		return nil, err
	}
	return &Service{
		log:      deps.Log,
		metrics:  newMetrics(deps.Metrics),
		network:  network,
		node:     node,
		zmq:      cfg.Node.ZMQ,
		interval: cfg.PollInterval.Std(),
		bus:      client,
		topic:    cfg.Kafka.Topics.RawGBT,
		blocks:   make(chan struct{}, 1),
		polled:   make(chan []byte),
		changed:  make(chan struct{}),
		fault:    errors.New("waiting for Kafka"),
	}, nil
}

// Run makes templates until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.bus.Close()
	defer s.node.Close()
	if err := s.bus.EnsureTopics(ctx, s.topic); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.makeTemplates(ctx); return nil })
	g.Go(func() error { s.longPoll(ctx); return nil })
	if s.zmq != "" {
		g.Go(func() error {
			return noderpc.SubscribeBlocks(ctx, s.zmq, s.log, s.announce, noderpc.OnMissed(func(n uint32) {
				s.metrics.missed.Add(float64(n))
			}))
		})
	}
	return g.Wait()
}

// Ready returns nil while the last template is fresh enough to make jobs of.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch age := time.Since(s.written); {
	case s.written.IsZero():
		return fmt.Errorf("no template yet: %w", s.fault)
	case age < staleAge:
		return nil
	case s.fault != nil:
		return fmt.Errorf("no template for %s: %w", age.Round(time.Second), s.fault)
	default:
		return fmt.Errorf("no template for %s", age.Round(time.Second))
	}
}

// announce asks for a template because the node has a new block.
func (s *Service) announce(chainhash.Hash) {
	select {
	case s.blocks <- struct{}{}:
	default: // one is asked for already
	}
}

// makeTemplates fetches and writes templates, one at a time, until ctx ends.
func (s *Service) makeTemplates(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last *job.Template // written, and nothing has failed since
	retry := firstRetry
	for {
		var response []byte
		var trigger string
		select {
		case <-ctx.Done():
			return
		case <-s.blocks:
			trigger = byZMQ
		case response = <-s.polled:
			trigger = byLongPoll
		case <-timer.C:
			trigger = byPeriod
		}
		template, err := s.makeTemplate(ctx, trigger, response, last)
		if ctx.Err() != nil {
			return
		}
		s.report(err)
		switch {
		case err != nil:
			last = nil // what comes next is looked at closely and goes out
			timer.Reset(retry)
			retry = min(2*retry, s.interval)
		case template != nil:
			last = template
			timer.Reset(s.interval)
			retry = firstRetry
		}
	}
}

// makeTemplate writes the template in response, or one it fetches when response
// is nil, and returns it. It returns nil for one that is like last but for its
// time, if it came for news of the node: periodic ones always go out, as jobs
// live on fresh templates.
func (s *Service) makeTemplate(ctx context.Context, trigger string, response []byte, last *job.Template) (*job.Template, error) {
	// News do not wait for a look at a node that has been fine so far.
	if trigger == byPeriod || last == nil {
		if err := s.checkNode(ctx); err != nil {
			return nil, err
		}
	}
	if response == nil {
		start := time.Now()
		var err error
		if response, err = s.node.BlockTemplate(ctx, ""); err != nil {
			return nil, s.failed("rpc", err)
		}
		s.metrics.rpcSeconds.Observe(time.Since(start).Seconds())
	}
	template, err := job.ParseTemplate(response)
	if err != nil {
		return nil, s.failed("template", fmt.Errorf("node at %s: %w", s.node.URL(), err))
	}
	s.publish(template)
	if trigger != byPeriod && last != nil && sameWork(template, last) {
		s.metrics.unchanged.WithLabelValues(trigger).Inc()
		return nil, nil
	}

	now := time.Now()
	raw := job.NewRawGBT(response, now)
	writeCtx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.bus.Write(writeCtx, s.topic, bus.Message{Value: raw.AppendTo(nil)}); err != nil {
		return nil, s.failed("kafka", fmt.Errorf("template not written, is Kafka running? %w", err))
	}
	s.mu.Lock()
	s.written = now
	s.mu.Unlock()
	s.metrics.templates.WithLabelValues(trigger).Inc()
	s.metrics.height.Set(float64(template.Height))
	s.metrics.transactions.Set(float64(len(template.TxIDs)))
	s.metrics.bytes.Set(float64(len(response)))
	s.metrics.lastTime.Set(float64(now.Unix()))
	if last == nil || template.PrevHash != last.PrevHash {
		s.log.Info().Int32("height", template.Height).Stringer("prev_hash", template.PrevHash).Int("transactions", len(template.TxIDs)).Str("trigger", trigger).Msg("template for a new block")
	}
	return template, nil
}

// sameWork reports whether jobs made of a and b would differ by their time only.
func sameWork(a, b *job.Template) bool {
	return a.PrevHash == b.PrevHash && a.Height == b.Height && a.Bits == b.Bits && a.Version == b.Version &&
		a.CoinbaseValue == b.CoinbaseValue && slices.Equal(a.TxIDs, b.TxIDs)
}

// checkNode returns why no templates should be taken from the node.
func (s *Service) checkNode(ctx context.Context) error {
	info, err := s.node.ChainInfo(ctx)
	if err != nil {
		return s.failed("rpc", err)
	}
	if info.Chain != s.network.Chain {
		return s.failed("chain", fmt.Errorf("node at %s is on the chain %q, network = %q needs %q", s.node.URL(), info.Chain, s.network.Name, s.network.Chain))
	}
	// A regtest node thinks so whenever its last block is old.
	if info.InitialBlockDownload && s.network.Name != "regtest" {
		return s.failed("chain", fmt.Errorf("node at %s is still downloading the chain", s.node.URL()))
	}
	return nil
}

func (s *Service) failed(reason string, err error) error {
	s.metrics.failures.WithLabelValues(reason).Inc()
	return err
}

// report keeps the outcome for Ready and logs it when it is not that of the
// time before.
func (s *Service) report(err error) {
	s.mu.Lock()
	before := s.fault
	s.fault = err
	s.mu.Unlock()
	switch {
	case err == nil && before != nil:
		s.log.Info().Msg("templates are made")
	case err != nil && (before == nil || err.Error() != before.Error()):
		s.log.Warn().Err(err).Msg("no template")
	}
}

// publish makes template the newest one.
func (s *Service) publish(template *job.Template) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = fetched{template, s.newest.n + 1}
	close(s.changed)
	s.changed = make(chan struct{})
}

// await returns the newest template when want says so of it, or ok = false when
// ctx ends.
func (s *Service) await(ctx context.Context, want func(fetched) bool) (_ fetched, ok bool) {
	for {
		s.mu.Lock()
		newest, changed := s.newest, s.changed
		s.mu.Unlock()
		if newest.n > 0 && want(newest) {
			return newest, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fetched{}, false
		}
	}
}

// longPoll waits at the node for a template better than the newest, over and
// over until ctx ends. After a failure it waits for a template that came some
// other way: the node works again then.
func (s *Service) longPoll(ctx context.Context) {
	var seen uint64
	for {
		base, ok := s.await(ctx, func(f fetched) bool { return f.n > seen && f.LongPollID != "" })
		if !ok {
			return
		}
		seen = base.n
		spacing := time.After(longPollSpacing)
		response, err := s.pollFrom(ctx, base)
		switch {
		case err == nil:
			select {
			case s.polled <- response:
			case <-ctx.Done():
			}
		case ctx.Err() == nil && !errors.Is(err, context.Canceled):
			s.log.Debug().Err(err).Msg("long poll failed")
			_ = s.failed("rpc", err)
		}
		select {
		case <-spacing:
		case <-ctx.Done():
		}
	}
}

// pollFrom does one long poll. It is given up when base turns out to be
// outdated: a node that has not answered by then may never do.
func (s *Service) pollFrom(ctx context.Context, base fetched) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.await(ctx, func(f fetched) bool { return f.PrevHash != base.PrevHash })
		cancel()
	}()
	defer func() { cancel(); <-watched }()
	return s.node.BlockTemplate(ctx, base.LongPollID)
}
