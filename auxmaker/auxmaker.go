// Package auxmaker asks the nodes of other chains for blocks that may be mined along with the pool's, and writes them
// to the work topics: those of all AuxPoW chains together, as one merkle tree that a coinbase can commit to, and RSK's.
//
// A new block goes out as soon as it is known, and what there is goes out again with every interval, because jobmaker
// forgets old work. A chain whose node is away is left out until it answers again; the others go on.
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
	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/retry"
	"btcpool/internal/service"
)

const (
	// staleAge is the age from which on jobs are not made of work.
	staleAge = time.Minute
	// writeTimeout is how long to try to write work before asking for newer is better.
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
	closing service.Closing
	bus     *bus.Client
	chains  []*chain
	rsk     *rsk         // nil: RSK is not mined along
	notify  net.Listener // nil: there is no /notify

	changed retry.Bell     // a chain has another block
	kafka   *service.Fault // why work does not reach it

	mu      sync.Mutex
	written time.Time // when a message was written last
}

// New returns an auxmaker. It listens for /notify, and connects to nothing.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:     cfg,
		log:     deps.Log,
		metrics: newMetrics(deps.Metrics),
		changed: retry.NewBell(),
		kafka:   service.NewFault(deps.Log, zerolog.WarnLevel, "work does not reach Kafka: is it running?", "work reaches Kafka again"),
	}
	s.kafka.Await(errors.New("waiting for Kafka"))
	if err := s.open(deps); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open opens what Close closes.
func (s *Service) open(deps service.Deps) (err error) {
	for _, cfg := range s.cfg.Chains {
		c, err := newChain(cfg)
		if err != nil {
			return err
		}
		s.closing.Add(func() error { c.node.Close(); return nil })
		s.chains = append(s.chains, c)
	}
	if s.cfg.RSK.URL != "" {
		if s.rsk, err = newRSK(s.cfg.RSK); err != nil {
			return err
		}
		s.closing.Add(func() error { s.rsk.node.Close(); return nil })
	}
	if s.bus, err = bus.New(s.cfg.Kafka, deps); err != nil {
		return err
	}
	s.closing.Add(s.bus.Close)
	if s.cfg.NotifyListen != "" {
		if s.notify, err = net.Listen("tcp", s.cfg.NotifyListen); err != nil {
			return &config.ListenError{Key: "notify_listen", Addr: s.cfg.NotifyListen, Err: err}
		}
		s.closing.Add(s.notify.Close)
	}
	return nil
}

// Close ends an auxmaker that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// NotifyAddr returns the address of /notify, nil when there is none.
func (s *Service) NotifyAddr() net.Addr {
	if s.notify == nil {
		return nil
	}
	return s.notify.Addr()
}

// Run makes work until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	if s.notify != nil {
		g.Go(func() error { return httpapi.Serve(ctx, s.notify, s.handler(), time.Second) })
	}
	g.Go(func() error {
		if err := s.bus.EnsureTopics(ctx, s.topics()...); err != nil || ctx.Err() != nil {
			return err
		}
		s.kafka.Set(nil)
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
	if time.Since(s.written) < staleAge {
		return nil
	}
	if err := s.kafka.Err(); err != nil {
		return fmt.Errorf("no work written: %w", err)
	}
	return errors.New("no work written: no node has answered with any lately")
}

// write writes a message to a topic and reports whether it is there.
func (s *Service) write(ctx context.Context, label, topic string, value []byte) bool {
	inTime, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.bus.Write(inTime, topic, bus.Message{Value: value}); err != nil {
		s.metrics.unwritten.WithLabelValues(label).Inc()
		if ctx.Err() == nil {
			s.kafka.Set(fmt.Errorf("topic %s: %w", topic, err))
		}
		return false
	}
	s.kafka.Set(nil)
	s.mu.Lock()
	s.written = time.Now()
	s.mu.Unlock()
	s.metrics.messages.WithLabelValues(label).Inc()
	s.metrics.lastTime.WithLabelValues(label).SetToCurrentTime()
	return true
}

// handler serves /notify, for the blocknotify of a node: every chain is asked for work at once. The answer is that of
// btcpool's gwmaker.
func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	notify := func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range s.chains {
			c.news.Ring()
		}
		if s.rsk != nil {
			s.rsk.news.Ring()
		}
		httpapi.Write(w, http.StatusOK, httpapi.Legacy{ErrMsg: "notify success"})
	}
	mux.HandleFunc("GET /notify", notify) // HEAD too
	mux.HandleFunc("POST /notify", notify)
	return mux
}

// repeat calls f at once, whenever the bell rings, and after each interval in which it does not, until ctx ends.
func repeat(ctx context.Context, news retry.Bell, interval time.Duration, f func()) {
	for ctx.Err() == nil {
		f()
		retry.Sleep(ctx, callSpacing)
		select {
		case <-ctx.Done():
		case <-news:
		case <-time.After(interval - callSpacing):
		}
	}
}
