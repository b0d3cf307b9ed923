// Package gbtmaker takes block templates from Bitcoin nodes and writes the best to the raw template topic: at once when
// a node announces a block over ZeroMQ, answers a long poll or calls /notify, and every few seconds in between. What
// jobs need of a template goes ahead of it in a small message on a topic of its own. When a node takes long for the
// template on a new block, an empty one comes first.
//
// Every node is followed all the time, so that the newest template of another is at hand when one dies or lags behind;
// the branch with most work wins. A template comes from a node that is on the configured network and has finished
// downloading, and has all that a job needs. What is refused is counted by reason, and the last good template stays.
package gbtmaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/job"
	"btcpool/internal/retry"
	"btcpool/internal/service"
)

// What makes a template be fetched, as the metrics name it.
const (
	byZMQ      = "zmq"
	byLongPoll = "longpoll"
	byNotify   = "notify"
	byPeriod   = "period"
)

// staleAge is the age from which on jobs are not made of a template.
const staleAge = time.Minute

// Service is a gbtmaker.
type Service struct {
	log       zerolog.Logger
	metrics   *metrics
	network   bitcoin.Network
	maxTarget bitcoin.Target // the easiest that the network's blocks may have
	policy    Policy

	interval, repeat, emptyAfter, wholeAfter, zmqTimeout time.Duration // as in Config

	closing service.Closing
	outbox  *outbox
	notify  net.Listener // nil: there is no /notify
	nodes   []*node
	bus     *bus.Client
	topic   string         // that of raw templates
	light   string         // that of light templates
	kafka   *service.Fault // why templates do not reach it
	queue   retry.Bell     // chosen is to be written

	mu      sync.Mutex     // guards what follows, and the state of the nodes
	began   time.Time      // when Run did
	chosen  *template      // what is in the topic, or about to be
	left    reorganisation // what chosen sends miners back from, as long as it is lower
	written time.Time      // when a template was written last
}

// A template is what a node answered, and what is known of the answer.
type template struct {
	*job.Template
	node     *node
	trigger  string
	received time.Time
	work     bitcoin.Work // in the chain below it; zero: unknown
	easier   time.Time    // when a node gives easier bits than these; zero: never
	answer   answer
	leaves   chainhash.Hash // job.RawGBT.Left
}

// raw returns t as it is written to the raw template topic. It waits until t has its name.
func (t *template) raw() job.RawGBT {
	return job.RawGBT{
		CreatedAt: uint32(t.received.Unix()), Response: t.answer.text, Hash: t.answer.name(), Left: t.leaves, Work: t.work,
	}
}

// New returns a gbtmaker. It locks its folder and listens for /notify, and connects to nothing.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	network, err := bitcoin.NetworkByName(cfg.Network)
	if err != nil {
		return nil, err
	}
	maxTarget, err := bitcoin.TargetFromBits(network.Params.PowLimitBits)
	if err != nil {
		return nil, err
	}
	s := &Service{
		log:        deps.Log,
		metrics:    newMetrics(deps.Metrics),
		network:    network,
		maxTarget:  maxTarget,
		policy:     cfg.NodePolicy,
		interval:   cfg.PollInterval.Std(),
		repeat:     cfg.RepeatInterval.Std(),
		emptyAfter: cfg.EmptyAfter.Std(),
		wholeAfter: cfg.WholeAfter.Std(),
		zmqTimeout: cfg.ZMQTimeout.Std(),
		topic:      cfg.Kafka.Topics.RawGBT,
		light:      job.LightTopic(cfg.Kafka.Topics.RawGBT),
		kafka:      service.NewFault(deps.Log, zerolog.WarnLevel, "templates do not reach Kafka", "templates reach Kafka again"),
		queue:      retry.NewBell(),
	}
	s.kafka.Await(errors.New("waiting for Kafka"))
	if err := s.open(cfg, deps); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open opens what Close closes.
func (s *Service) open(cfg Config, deps service.Deps) (err error) {
	for i, nodeCfg := range cfg.AllNodes() {
		n, err := newNode(i, nodeCfg, deps.Log)
		if err != nil {
			return err
		}
		s.closing.Add(func() error { n.client.Close(); return nil })
		s.nodes = append(s.nodes, n)
		s.metrics.up.WithLabelValues(n.label).Set(0)
	}
	if s.outbox, err = openOutbox(cfg.DataDir); err != nil {
		return err
	}
	s.closing.Add(s.outbox.close)
	if cfg.NotifyListen != "" {
		if s.notify, err = net.Listen("tcp", cfg.NotifyListen); err != nil {
			return &config.ListenError{Key: "notify_listen", Addr: cfg.NotifyListen, Err: err}
		}
		s.closing.Add(s.notify.Close)
	}
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return err
	}
	s.closing.Add(s.bus.Close)
	return nil
}

// Close ends a gbtmaker that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// NotifyAddr returns the address of /notify, nil when there is none.
func (s *Service) NotifyAddr() net.Addr {
	if s.notify == nil {
		return nil
	}
	return s.notify.Addr()
}

// Run makes templates until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	s.mu.Lock()
	s.began = time.Now()
	s.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.compareBranches(ctx) })
	if s.notify != nil {
		g.Go(func() error { return httpapi.Serve(ctx, s.notify, s.notifyHandler(), time.Second) })
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

// Ready returns nil while the last template is fresh enough to make jobs of, unless all nodes that answer have less work
// than it.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := time.Since(s.written)
	if age < staleAge && !s.onlyLessWork() {
		return nil
	}
	why := s.kafka.Err()
	for _, n := range s.nodes {
		if n.fault != nil {
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

// notifyHandler has every node looked at for a new block, for bitcoind's blocknotify. It answers at once, and calls in
// a row make one look.
func (s *Service) notifyHandler() http.Handler {
	notify := func(w http.ResponseWriter, _ *http.Request) {
		for _, n := range s.nodes {
			n.notified.Ring()
		}
		w.WriteHeader(http.StatusNoContent)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /notify", notify)
	mux.HandleFunc("POST /notify", notify)
	return mux
}
