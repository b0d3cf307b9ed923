// Package agentproxy is the farm-side proxy: thousands of machines on a LAN share a few connections to a pool, and each
// of them is still a worker of its own there.
//
// With pools that know it, it speaks the agents' protocol (internal/agentwire): 15 to 23 bytes a share, one job for all.
// To other pools it speaks plain Stratum V1, whose extranonce it divides. Machines see a Stratum V1 server either way.
//
// All that belongs to miners, links and accounts is touched by one goroutine only, the loop; others have it do something
// by Service.loop.Post. Nothing in the loop waits.
package agentproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/config"
	"btcpool/internal/httpapi"
	"btcpool/internal/poll"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/upgrade"
)

// tickInterval is how exact pauses are.
const tickInterval = 250 * time.Millisecond

// Service is the proxy.
type Service struct {
	log     zerolog.Logger
	metrics metrics
	closing service.Closing

	loop       *poll.Loop
	ports      ports
	most       int          // connections of miners, by the configuration and descriptors
	page       net.Listener // nil: none
	pageAddr   string       // by the configuration
	multiUser  bool         // by it, too
	goroutines sync.WaitGroup
	started    time.Time
	view       view
	shunned    shunned
	fault      atomic.Pointer[error] // what Ready says
	before     *upgrade.Predecessor  // whose miners and links are gone on with; nil: nobody's
	serving    atomic.Bool           // the loop runs
	moving     sync.Mutex            // held while another process takes over

	// What follows is the loop's.

	cfg      Config
	routes   []route // by cfg, as dialer is
	dialer   *dialer
	now      time.Time // when the turn began
	miners   []*miner  // all connections
	numbers  numbers
	accounts map[string]*account
	masks    map[string]uint32 // version bits that pools take, by their addresses
	relays   int               // of other proxies
	sweep    int               // miners before this place have been looked at in this round
	leaving  bool
	relayed  upgrade.Relays
	gone     gone
	checker  checker
	held     int // shares for links that broke
	silent   int // connected miners that are
	silences fewLines
	returns  fewLines
	out      []byte // scratch
	in       [4 << 10]byte
}

// New returns a proxy that listens, but serves nobody yet.
func New(cfg Config, deps service.Deps) (_ *Service, err error) {
	s := &Service{
		log:       deps.Log,
		metrics:   newMetrics(deps.Metrics),
		before:    deps.Predecessor,
		pageAddr:  cfg.Page,
		multiUser: cfg.MultiUser,
		accounts:  make(map[string]*account),
		started:   time.Now(),
		silences:  fewLines{what: "silent, or gone"},
		returns:   fewLines{what: "works again"},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	s.setFault(errStarting)
	s.adopt(cfg)
	if s.loop, err = poll.NewLoop(); err != nil {
		return nil, err
	}
	s.closing.Add(func() error { s.loop.Close(); return nil })
	if s.most, err = service.Connections(cfg.MaxConnections, service.OpenFiles(), deps.Log); err != nil {
		return nil, err
	}
	s.closing.Add(func() error { s.closePorts(); return nil })
	if err := s.setPorts(cfg); err != nil {
		return nil, err
	}
	if cfg.Page != "" {
		if s.page, err = s.listenPage(); err != nil {
			return nil, &config.ListenError{Key: "page", Addr: cfg.Page, Err: err}
		}
		s.closing.Add(s.page.Close)
		s.log.Info().Str("url", "http://"+s.page.Addr().String()).Msg("status page")
	}
	return s, nil
}

func (s *Service) listenPage() (net.Listener, error) {
	if file := s.before.Listener(pageName(s.pageAddr)); file != nil {
		defer file.Close()
		return net.FileListener(file)
	}
	return net.Listen("tcp", s.pageAddr)
}

// adopt has what comes made by cfg. Before Run it is New's, then the loop's.
func (s *Service) adopt(cfg Config) {
	s.cfg = cfg
	s.routes = cfg.routes()
	s.shunned.keep(s.routes)
	s.dialer = newDialer(cfg)
	for _, a := range s.accounts {
		a.adopt()
	}
}

// Reload goes over to another configuration. Miners stay: those whose link is not wanted any more leave it when another
// one is up. If the proxy cannot listen where it is to, nothing changes.
func (s *Service) Reload(ctx context.Context, cfg Config) error {
	most, err := service.Connections(cfg.MaxConnections, service.OpenFiles(), s.log)
	if err == nil {
		err = s.setPorts(cfg)
	}
	if err != nil {
		return err
	}
	s.loop.Post(func() { // where it listens has changed, so that all else has to follow
		s.most = most
		s.adopt(cfg)
	})
	return s.loop.Call(ctx, func() {})
}

// Close ends a proxy that has not run, and does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Addrs returns where miners connect, in the order of the configuration.
func (s *Service) Addrs() []net.Addr {
	var addrs []net.Addr
	s.ports.mu.Lock()
	defer s.ports.mu.Unlock()
	for _, p := range s.ports.all {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// PageAddr returns where the status page is, nil if there is none.
func (s *Service) PageAddr() net.Addr {
	if s.page == nil {
		return nil
	}
	return s.page.Addr()
}

var errStarting = errors.New("no pool has been reached yet")

// Ready returns nil while every account that miners mine for has a link to a pool with work.
func (s *Service) Ready() error { return *s.fault.Load() }

func (s *Service) setFault(err error) { s.fault.Store(&err) }

// Run serves miners until ctx ends, then lets go of them and returns nil.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.before != nil {
		if err := s.takeOver(); err != nil {
			return err
		}
	}
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	s.servePorts()
	if s.page != nil {
		g.Go(func() error { return httpapi.Serve(serving, s.page, s.handler(), time.Second) })
	}
	ticking, stop := context.WithCancel(context.WithoutCancel(ctx)) // also while machines are let go of
	g.Go(func() error {
		for retry.Sleep(ticking, tickInterval) {
			s.loop.Post(s.tick)
		}
		return nil
	})
	s.loop.Post(func() {
		if !s.cfg.MultiUser {
			s.account("")
		}
	})
	defer context.AfterFunc(ctx, func() {
		s.closePorts()
		s.loop.Post(s.leave)
	})()
	g.Go(func() error {
		defer stop()
		defer cancel()
		return s.serve()
	})
	err = g.Wait()
	s.loop.Close() // a link that has just been made ends by that
	s.relayed.Wait(outer, &s.goroutines, s.log)
	return err
}

// turnInterval is how often turns begin at most, unless something is posted. A wake-up costs more than all that is done
// for a share; those that come within it have one for all of them.
const turnInterval = 3 * time.Millisecond

// serve is the loop.
func (s *Service) serve() error {
	s.serving.Store(true)
	defer s.serving.Store(false)
	for !s.leaving || len(s.miners) > 0 || len(s.accounts) > 0 {
		if err := s.loop.Wait(true); err != nil {
			return fmt.Errorf("event loop: %w", err)
		}
		s.now = time.Now()
		s.loop.Turn()
		s.loop.Gather(turnInterval - time.Since(s.now))
	}
	return nil
}

// leave lets go of all miners and links.
func (s *Service) leave() {
	s.leaving = true
	for _, m := range slices.Clone(s.miners) {
		m.finish(nil)
		m.settle()
	}
	for _, a := range s.accounts {
		a.end()
	}
}

// add takes on a connection, if it is to be served.
func (s *Service) add(conn poll.Link, ip netip.Addr) {
	refusal := ""
	switch {
	case len(s.cfg.Allow) > 0 && !slices.ContainsFunc(s.cfg.Allow, func(p netip.Prefix) bool { return p.Contains(ip) }):
		refusal = "not allowed"
	case len(s.miners) >= s.most:
		refusal = "limit"
	}
	if refusal != "" {
		s.metrics.refused.WithLabelValues(refusal).Inc()
		conn.Close()
		return
	}
	m := newMiner(s, conn, ip)
	m.pos = len(s.miners)
	s.miners = append(s.miners, m)
	m.counts.since = s.now
	if err := conn.Attach(s.loop, m); err != nil {
		s.log.Error().Err(err).Msg("connection not served")
		m.fail(nil)
	}
	if s.leaving {
		m.fail(nil)
	}
	m.settle()
}

// tick sees to what is due.
func (s *Service) tick() {
	s.sweepMiners()
	s.gone.sweep(s.now)
	s.missing()
	s.silences.sum(s)
	s.returns.sum(s)
	var missing []error
	for _, a := range s.accounts {
		a.tick()
		if err := a.fault(); err != nil {
			missing = append(missing, err)
		}
	}
	s.setFault(errors.Join(missing...))
}

// sweepTicks is how many ticks it takes to look at every miner: how exact their deadlines are.
const sweepTicks = 4

func (s *Service) sweepMiners() {
	for range len(s.miners)/sweepTicks + 1 {
		if s.sweep = min(s.sweep, len(s.miners)); s.sweep == 0 {
			if s.sweep = len(s.miners); s.sweep == 0 {
				return
			}
		}
		s.sweep--
		s.miners[s.sweep].check()
	}
}

// account returns the account of that name, with its links. "" is the one of all miners, unless there are several.
func (s *Service) account(name string) *account {
	a := s.accounts[name]
	if a == nil {
		a = newAccount(s, name)
		s.accounts[name] = a
	}
	return a
}
