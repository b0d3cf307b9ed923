// Package gbtmaker takes block templates from Bitcoin nodes and writes the best
// to the raw template topic: at once when a node announces a block over ZeroMQ,
// answers a long poll or calls /notify, and every few seconds in between. What
// jobs need of it goes ahead in a small message on a topic of its own, and on a
// block whose template takes long an empty one.
//
// Every node is followed all the time, so that the newest template of another
// is at hand when one dies or lags behind; the highest wins. A template comes
// from a node that is on the configured network and has finished downloading,
// and has all that a job needs. What is refused is counted by reason, and the
// last good template stays.
package gbtmaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/httpapi"
	"btcpool/internal/job"
	"btcpool/internal/service"
)

// What makes a template be fetched, as the metrics name it.
const (
	byZMQ      = "zmq"
	byLongPoll = "longpoll"
	byNotify   = "notify"
	byPeriod   = "period"
)

const (
	// staleAge is when jobs are not made of a template any more.
	staleAge     = time.Minute
	writeTimeout = 10 * time.Second // until it is said that Kafka is away
	writeRetry   = time.Second
	stopGrace    = time.Second // for answers to /notify
)

// Service is a gbtmaker.
type Service struct {
	log       zerolog.Logger
	metrics   *metrics
	network   bitcoin.Network
	maxTarget bitcoin.Target // of the network's blocks
	policy    Policy

	interval, repeat, emptyAfter, zmqTimeout time.Duration

	bus    *bus.Client
	topic  string // of raw templates
	light  string // of light ones
	outbox *outbox
	notify net.Listener // nil = none
	nodes  []*node
	queue  chan struct{} // chosen is to be written; holds one

	mu       sync.Mutex // guards what follows, and the state of the nodes
	chosen   *template  // what is in the topic, or about to be
	written  time.Time  // a template
	busFault error      // why the topic has not the chosen one
}

// template is a node's template.
type template struct {
	*job.Template
	node     *node
	trigger  string
	received time.Time
	raw      job.RawGBT
}

// New returns a gbtmaker without connecting to anything.
func New(cfg Config, deps service.Deps) (_ *Service, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		log:        deps.Log,
		metrics:    newMetrics(deps.Metrics),
		policy:     cfg.NodePolicy,
		interval:   cfg.PollInterval.Std(),
		repeat:     cfg.RepeatInterval.Std(),
		emptyAfter: cfg.EmptyAfter.Std(),
		zmqTimeout: cfg.ZMQTimeout.Std(),
		topic:      cfg.Kafka.Topics.RawGBT,
		light:      job.LightTopic(cfg.Kafka.Topics.RawGBT),
		queue:      make(chan struct{}, 1),
		busFault:   errors.New("waiting for Kafka"),
	}
	if s.network, err = bitcoin.NetworkByName(cfg.Network); err != nil {
		return nil, err
	}
	if s.maxTarget, err = bitcoin.TargetFromBits(s.network.Params.PowLimitBits); err != nil {
		return nil, err
	}
	for i, nodeCfg := range cfg.nodes() {
		n, err := newNode(i, nodeCfg, deps.Log)
		if err != nil {
			return nil, err
		}
		s.nodes = append(s.nodes, n)
		s.metrics.up.WithLabelValues(n.label).Set(0)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.outbox, err = openOutbox(cfg.DataDir); err != nil {
		return nil, err
	}
	if cfg.NotifyListen != "" {
		if s.notify, err = net.Listen("tcp", cfg.NotifyListen); err != nil {
			return nil, fmt.Errorf("notify_listen: %w", err)
		}
	}
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return nil, err
	}
	return s, nil
}

// close releases what New opened.
func (s *Service) close() error {
	var errs []error
	for _, n := range s.nodes {
		n.client.Close()
	}
	if s.outbox != nil {
		errs = append(errs, s.outbox.close())
	}
	if s.notify != nil {
		if err := s.notify.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.bus != nil {
		errs = append(errs, s.bus.Close())
	}
	return errors.Join(errs...)
}

// NotifyAddr returns the address of /notify, nil when there is none.
func (s *Service) NotifyAddr() net.Addr {
	if s.notify == nil {
		return nil
	}
	return s.notify.Addr()
}

// Run makes templates until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	g, ctx := errgroup.WithContext(ctx)
	if s.notify != nil {
		g.Go(func() error { return httpapi.Serve(ctx, s.notify, s.notifyHandler(), stopGrace) })
	}
	for _, n := range s.nodes {
		g.Go(func() error { s.follow(ctx, n); return nil })
		g.Go(func() error { s.longPoll(ctx, n); return nil })
		if n.zmq != "" {
			g.Go(func() error { return s.subscribe(ctx, n) })
		}
	}
	g.Go(func() error { return s.write(ctx) })
	return g.Wait()
}

// Ready returns nil while the last template is fresh enough to make jobs of.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := time.Since(s.written)
	if age < staleAge {
		return nil
	}
	why := s.busFault
	for _, n := range s.nodes {
		if s.busFault == nil && n.fault != nil {
			why = errors.Join(why, fmt.Errorf("node %s: %w", n.label, n.fault.err))
		}
	}
	text := "no template yet"
	if !s.written.IsZero() {
		text = fmt.Sprintf("no template for %s", age.Round(time.Second))
	}
	if why == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %w", text, why)
}

// notifyHandler has every node looked at for a new block, for bitcoind's
// blocknotify. It answers at once, and calls in a row make one look.
func (s *Service) notifyHandler() http.Handler {
	notify := func(w http.ResponseWriter, _ *http.Request) {
		for _, n := range s.nodes {
			signal(n.look, byNotify)
		}
		w.WriteHeader(http.StatusNoContent)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notify", notify)
	mux.HandleFunc("POST /notify", notify)
	return mux
}

// signal sends v if there is room: what is in the channel says enough.
func signal[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}

// choose gives the best template to the writer unless that one, or one that is
// equal and not yet to be repeated, is there already. s.mu is held.
func (s *Service) choose(now time.Time) {
	best := s.best(now)
	if best == nil || best == s.chosen {
		return
	}
	if last := s.chosen; last != nil && sameWork(best.Template, last.Template) && best.received.Sub(last.received) < s.repeat {
		return
	}
	s.chosen = best
	signal(s.queue, struct{}{})
}

// best returns the highest template, of equals one with transactions, nil when
// there is none that can be used. s.mu is held.
func (s *Service) best(now time.Time) *template {
	var best *template
	for _, n := range s.nodes {
		t := n.latest
		switch {
		case n.fault != nil || t == nil || now.Sub(t.received) > staleAge:
		case s.top(n, now) > t.Height-1:
		case best == nil || t.Height > best.Height:
			best = t
		case t.Height < best.Height || t.Empty() && !best.Empty():
		case best.Empty() && !t.Empty():
			best = t
		case s.policy == PolicyEqual && s.chosen != nil && s.chosen.node == n:
			best = t
		}
	}
	return best
}

// fresh returns what is in the topic while jobs are made of it, or nil. s.mu is
// held.
func (s *Service) fresh(now time.Time) *template {
	if s.chosen == nil || now.Sub(s.chosen.received) > staleAge {
		return nil
	}
	return s.chosen
}

// top returns the height of the chain that miners work on, as far as n must
// follow it: a node that was reorganised away from it is right to be lower.
// s.mu is held.
func (s *Service) top(n *node, now time.Time) int32 {
	if c := s.fresh(now); c != nil && c.PrevHash != n.left {
		return c.Height - 1
	}
	return 0
}

// sameWork reports whether jobs made of a and b would differ by their time only.
func sameWork(a, b *job.Template) bool {
	return a.PrevHash == b.PrevHash && a.Height == b.Height && a.Bits == b.Bits && a.Version == b.Version &&
		a.CoinbaseValue == b.CoinbaseValue && slices.Equal(a.MerkleBranch, b.MerkleBranch)
}

// write writes what is chosen, again and again while it fails, until ctx ends.
func (s *Service) write(ctx context.Context) error {
	if err := s.bus.EnsureTopics(ctx, s.topic, s.light); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.reportBus(nil)
	if err := s.sendKept(ctx); err != nil {
		return err
	}
	var last *template
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.queue:
		}
		s.mu.Lock()
		t := s.chosen
		s.mu.Unlock()
		if t == last { // chosen while the one before was being queued
			continue
		}
		err := s.deliver(ctx, t)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			s.wrote(t, last)
			last = t
			continue
		}
		s.metrics.failures.WithLabelValues("kafka").Inc()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(writeRetry):
			signal(s.queue, struct{}{})
		}
	}
}

// sendKept writes the template that a process that was killed had not written.
func (s *Service) sendKept(ctx context.Context) error {
	raw, ok, err := s.outbox.kept()
	if err != nil {
		s.log.Error().Err(err).Msg("a template may be lost that a process before had not sent")
		return nil
	}
	if !ok {
		return nil
	}
	if err := s.bus.Write(ctx, s.topic, bus.Message{Value: raw.AppendTo(nil)}); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.log.Info().Str("gbthash", raw.Hash).Msg("template sent that a process before had not")
	return s.outbox.clear()
}

// deliver writes t until it is written, however long Kafka is away and whatever
// is chosen meanwhile: there may be jobs of its light form, and a block found on
// one needs the rest. An error is ctx's, or one that no repetition mends.
func (s *Service) deliver(ctx context.Context, t *template) error {
	for {
		err := s.writeTemplate(ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.reportBus(err)
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		s.metrics.failures.WithLabelValues("kafka").Inc()
	}
}

// writeTemplate writes what jobs need of t, and then all of it.
func (s *Service) writeTemplate(ctx context.Context, t *template) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.outbox.put(t.raw); err != nil {
		s.log.Error().Err(err).Msg("template not kept while it is sent")
	}
	light := job.LightGBT{CreatedAt: t.raw.CreatedAt, Hash: t.raw.Hash, Template: t.Template}
	err := s.bus.Write(ctx, s.light, bus.Message{Value: light.AppendTo(nil)})
	if err == nil {
		err = s.bus.Write(ctx, s.topic, bus.Message{Value: t.raw.AppendTo(nil)})
	}
	if err != nil {
		return fmt.Errorf("template not written, is Kafka running? %w", err)
	}
	if err := s.outbox.clear(); err != nil { // it is sent once more then
		s.log.Error().Err(err).Msg("template not forgotten")
	}
	return nil
}

// wrote records that t is in the topic, after last.
func (s *Service) wrote(t, last *template) {
	now := time.Now()
	s.mu.Lock()
	s.written = now
	s.mu.Unlock()
	s.metrics.templates.WithLabelValues(t.trigger).Inc()
	s.metrics.height.Set(float64(t.Height))
	s.metrics.transactions.Set(float64(t.Transactions))
	s.metrics.bytes.Set(float64(len(t.raw.Response)))
	s.metrics.lastTime.Set(float64(now.Unix()))
	s.metrics.writeSeconds.Observe(now.Sub(t.received).Seconds())
	for _, n := range s.nodes {
		used := 0.0
		if n == t.node {
			used = 1
		}
		s.metrics.used.WithLabelValues(n.label).Set(used)
	}
	if last == nil || t.PrevHash != last.PrevHash {
		s.log.Info().Int32("height", t.Height).Stringer("prev_hash", t.PrevHash).Int("transactions", t.Transactions).
			Str("node", t.node.label).Str("trigger", t.trigger).Msg("template for a new block")
	}
}

// reportBus keeps the outcome of writing for Ready and logs its changes.
func (s *Service) reportBus(err error) {
	s.mu.Lock()
	before := s.busFault
	s.busFault = err
	s.mu.Unlock()
	switch {
	case err == nil && before != nil:
		s.log.Info().Msg("Kafka is there")
	case err != nil && before == nil:
		s.log.Warn().Err(err).Msg("templates do not get to Kafka")
	}
}
