// Package auxmaker asks the nodes of other chains for blocks that may be mined
// along with the pool's, and writes them to the work topics: those of all AuxPoW
// chains together, as one merkle tree that a coinbase can commit to, and RSK's.
//
// A new block goes out as soon as it is known, and what there is goes out again
// with every interval, because jobmaker forgets old work. A chain whose node is
// away is left out until it answers again; the others go on.
package auxmaker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bus"
	"btcpool/internal/httpapi"
	"btcpool/internal/service"
)

const (
	// staleAge is when jobs are not made of work any more.
	staleAge = time.Minute
	// writeTimeout is when it is better to ask for new work than to go on trying
	// to write the old.
	writeTimeout = 10 * time.Second
	// callSpacing bounds what a node costs whose news come all the time.
	callSpacing = 20 * time.Millisecond
)

// Values of the label topic.
const (
	topicAux = "aux"
	topicRSK = "rsk"
)

// Service is an auxmaker.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	bus     *bus.Client
	chains  []*chain
	rsk     *rsk         // nil: none
	notify  net.Listener // nil: none

	changed chan struct{} // a chain has another block; holds one

	mu      sync.Mutex
	written map[string]time.Time // by topic
	fault   error                // why messages cannot be written
}

// New returns an auxmaker. It listens, and connects to nothing.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:     cfg,
		log:     deps.Log,
		metrics: newMetrics(deps.Metrics),
		changed: make(chan struct{}, 1),
		written: make(map[string]time.Time),
		fault:   errors.New("waiting for Kafka"),
	}
	var err error
	for _, c := range cfg.Chains {
		one, err := newChain(c)
		if err != nil {
			return nil, err
		}
		s.chains = append(s.chains, one)
	}
	if cfg.RSK.URL != "" {
		if s.rsk, err = newRSK(cfg.RSK); err != nil {
			return nil, err
		}
	}
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return nil, err
	}
	if cfg.NotifyListen != "" {
		if s.notify, err = net.Listen("tcp", cfg.NotifyListen); err != nil {
			return nil, fmt.Errorf("notify_listen: %w", err)
		}
	}
	return s, nil
}

// NotifyAddr returns the address of /notify, nil when there is none.
func (s *Service) NotifyAddr() net.Addr {
	if s.notify == nil {
		return nil
	}
	return s.notify.Addr()
}

// Run makes work until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.bus.Close()
	g, ctx := errgroup.WithContext(ctx)
	if s.notify != nil {
		g.Go(func() error { return httpapi.Serve(ctx, s.notify, s.handler(), time.Second) })
	}
	g.Go(func() error {
		if err := s.bus.EnsureTopics(ctx, s.topics()...); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.setFault(nil)
		for _, c := range s.chains {
			g.Go(func() error { s.follow(ctx, c); return nil })
			if c.zmq != "" {
				g.Go(func() error { return s.subscribe(ctx, c) })
			}
		}
		if len(s.chains) > 0 {
			g.Go(func() error { s.writeAux(ctx); return nil })
		}
		if s.rsk != nil {
			g.Go(func() error { s.followRSK(ctx); return nil })
		}
		return nil
	})
	return g.Wait()
}

func (s *Service) topics() (names []string) {
	if len(s.chains) > 0 {
		names = append(names, s.cfg.Kafka.Topics.AuxWork)
	}
	if s.rsk != nil {
		names = append(names, s.cfg.Kafka.Topics.RSKWork)
	}
	return names
}

// Ready returns nil while there is work of some chain that jobs are made of.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.written {
		if time.Since(at) < staleAge {
			return nil
		}
	}
	if s.fault != nil {
		return fmt.Errorf("no work written: %w", s.fault)
	}
	return errors.New("no work written: no node has answered with any lately")
}

func (s *Service) setFault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = err
}

// write writes a message to a topic and reports whether it is there. Failures
// are logged when they begin.
func (s *Service) write(ctx context.Context, label, topic string, value []byte) bool {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := s.bus.Write(ctx, topic, bus.Message{Value: value})
	s.mu.Lock()
	before := s.fault
	s.fault = err
	if err == nil {
		s.written[label] = time.Now()
	}
	s.mu.Unlock()
	if err != nil {
		s.metrics.unwritten.WithLabelValues(label).Inc()
		if before == nil && !errors.Is(err, context.Canceled) {
			s.log.Warn().Err(err).Str("topic", topic).Msg("work not written: is Kafka running?")
		}
		return false
	}
	s.metrics.messages.WithLabelValues(label).Inc()
	s.metrics.lastTime.WithLabelValues(label).SetToCurrentTime()
	return true
}

// handler serves /notify, for the blocknotify of a node: every chain is asked
// for work at once. The answer is that of btcpool's gwmaker.
func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	notify := func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range s.chains {
			poke(c.news)
		}
		if s.rsk != nil {
			poke(s.rsk.news)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"err_no":0,"err_msg":"notify success"}`))
	}
	mux.HandleFunc("GET /notify", notify) // and HEAD
	mux.HandleFunc("POST /notify", notify)
	return mux
}

// poke puts a token into a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// repeat calls f at once, whenever there is news, and after each interval
// without, until ctx ends.
func repeat(ctx context.Context, news <-chan struct{}, interval time.Duration, f func()) {
	for ctx.Err() == nil {
		f()
		spacing := time.NewTimer(callSpacing)
		select {
		case <-ctx.Done():
			spacing.Stop()
			return
		case <-spacing.C:
		}
		timer := time.NewTimer(interval - callSpacing)
		select {
		case <-ctx.Done():
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}
