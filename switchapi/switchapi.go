// Package switchapi is the service that says which chain each user mines. It does what userChainAPIServer and
// chainSwitcher did around btcpool: an HTTP API of the user system's writes a node a user in ZooKeeper, where servers
// watch it; users are read from lists and maps of the user system, and made when a server asks for one; and what the
// users in auto mode mine is chosen by what chains are worth, and commanded through Kafka.
//
// # What was accepted is done
//
// A switch is on disk before its client is told that it is accepted, and is written to ZooKeeper when that is back,
// however long that takes and however often the process is killed meanwhile. Of several switches of a user the last
// counts. Nodes are written by their version, so that a late write never goes over a newer one.
//
// Several switchapi may run: all answer, and the one that leads (ZooKeeper decides) reads maps, registers and commands. Of
// switches of a user that different ones have accepted the last counts that gets to ZooKeeper.
package switchapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"btcpool/internal/config"
	"btcpool/internal/durable"
	"btcpool/internal/httpapi"
	"btcpool/internal/poll"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/service"
)

const (
	logInterval = 10 * time.Second
	stopGrace   = 11 * time.Second // a request waits for ZooKeeper up to maxWait
	mendPause   = time.Second      // between looks whether the journal has to be made anew
)

// Service is a switchapi.
type Service struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *metrics
	closing  service.Closing
	registry *registry.Registry
	nodes    *registry.Nodes
	waiting  *waiting
	lists    *lists
	auto     *auto // nil: nothing is chosen
	audit    *dayLog
	clients  []*client
	password string // of registrations
	http     *http.Client
	ln       net.Listener

	strangers                        *rate.Limiter
	invalidLog, pullLog, strangerLog rate.Sometimes

	journal   *service.Fault // why nothing can be accepted
	zookeeper *service.Fault // why nodes are not written
	kafka     *service.Fault // why servers are not commanded
}

// New returns a switchapi. It listens, and connects to nothing but ZooKeeper.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:         cfg,
		log:         deps.Log,
		metrics:     newMetrics(deps.Metrics),
		http:        &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Registration.Parallel, IdleConnTimeout: time.Minute}},
		strangers:   rate.NewLimiter(strangerRate, strangerRate),
		invalidLog:  rate.Sometimes{Interval: logInterval},
		pullLog:     rate.Sometimes{Interval: logInterval},
		strangerLog: rate.Sometimes{Interval: logInterval},
		journal:     service.NewFault(deps.Log, zerolog.ErrorLevel, "switches cannot be accepted: is the disk full?", "switches are accepted again"),
		zookeeper:   service.NewFault(deps.Log, zerolog.WarnLevel, "users' nodes are not written, switches wait: is ZooKeeper running?", "users' nodes are written again"),
		kafka:       service.NewFault(deps.Log, zerolog.WarnLevel, "servers are not commanded: is Kafka running?", "servers are commanded again"),
	}
	if err := s.open(deps); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open opens what Close closes.
func (s *Service) open(deps service.Deps) (err error) {
	s.closing.Add(func() error { s.http.CloseIdleConnections(); return nil })
	for _, cfg := range s.cfg.Clients {
		c, err := newClient(cfg)
		if err != nil {
			return config.In("clients", err)
		}
		for _, other := range s.clients {
			if other.hash == c.hash {
				return fmt.Errorf("clients: %s has the token of %s", c.name, other.name)
			}
		}
		s.clients = append(s.clients, c)
	}
	if s.password, err = s.cfg.Registration.password().Read(); err != nil {
		return config.In("registration", err)
	}
	lock, err := durable.Lock(s.cfg.DataDir)
	if err != nil {
		return err
	}
	s.closing.Add(lock.Close)
	if s.waiting, err = openWaiting(s.cfg.DataDir, s.cfg.MaxWaiting, s.log, s.metrics.damaged.Inc); err != nil {
		return err
	}
	s.closing.Add(s.waiting.Close)
	watchWaiting(deps.Metrics, s.waiting)
	s.audit = s.newDayLog("audit")
	s.closing.Add(s.audit.Close)
	if s.lists, err = openLists(s.cfg, deps); err != nil {
		return err
	}
	if s.registry, err = registry.New(s.cfg.ZooKeeper, deps); err != nil {
		return err
	}
	if s.cfg.AutoChain.Enabled {
		if err := s.openAuto(deps); err != nil {
			return err
		}
	}
	if s.ln, err = s.listen(); err != nil {
		return err
	}
	s.closing.Add(s.ln.Close)
	if s.nodes, err = s.registry.Nodes(s.cfg.Nodes.UserChain); err != nil {
		return err
	}
	s.closing.Add(s.nodes.Close)
	return nil
}

func (s *Service) newDayLog(name string) *dayLog {
	return &dayLog{dir: s.cfg.DataDir, name: name, keep: s.cfg.LogDays, log: s.log, failed: s.metrics.unlogged.Inc}
}

func (s *Service) listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return nil, &config.ListenError{Key: "listen", Addr: s.cfg.Listen, Err: err}
	}
	if s.cfg.TLSCertFile == "" {
		return ln, nil
	}
	secure, err := poll.ServerTLS(s.cfg.TLSCertFile, s.cfg.TLSKeyFile, s.log)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return tls.NewListener(ln, secure), nil
}

// Close ends a switchapi that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Addr returns where clients ask.
func (s *Service) Addr() net.Addr { return s.ln.Addr() }

// Run works until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return httpapi.Serve(ctx, s.ln, s.handler(), stopGrace) })
	g.Go(func() error { s.writeNodes(ctx); return nil })
	g.Go(func() error {
		for retry.Sleep(ctx, mendPause) {
			s.mend()
		}
		return nil
	})
	if len(s.cfg.Lists) > 0 {
		g.Go(func() error { s.lists.all.Run(ctx); return nil })
		g.Go(func() error { s.lists.follow(ctx, s.waiting.add); return nil })
	}
	if s.cfg.Map.URL != "" || s.cfg.Map.SubPoolURL != "" || s.cfg.Registration.URL != "" || s.auto != nil {
		g.Go(func() error { return s.registry.Lead(ctx, s.cfg.Nodes.Lead, s.lead) })
	}
	return g.Wait()
}

// mend lets switches be accepted again, if they cannot be and that has become possible.
func (s *Service) mend() { s.journal.Set(s.waiting.mend()) }

// lead does what only one switchapi may do, until ctx ends.
func (s *Service) lead(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if s.cfg.Map.URL != "" || s.cfg.Map.SubPoolURL != "" {
		g.Go(func() error { s.followMap(ctx); return nil })
	}
	if s.cfg.Registration.URL != "" {
		g.Go(func() error { s.register(ctx); return nil })
	}
	if s.auto != nil {
		g.Go(func() error { return s.auto.run(ctx) })
	}
	return g.Wait()
}

// Ready returns nil while switches can be accepted: that needs the disk only.
func (s *Service) Ready() error { return s.journal.Err() }
