// Package switcher is the Stratum V1 proxy for pools whose chains do not share a process: it moves miners between the
// servers of several chains, as their users' nodes in ZooKeeper say, and their connections stay. The servers may be any
// that speak Stratum V1.
//
// # What miners see
//
// Whole lines only, one answer to each request, and an extranonce1 that stays: it is a part of each server's extranonce2,
// where that leaves room for it; the rest of a coinbase's beginning is put into the first part of it. Jobs have a mark
// before their ids by which the switcher knows whose they are, so that a share goes to the server that it is for, for a
// while also after a switch.
//
// # What happens when
//
// A miner stays at its server until the next one has let it in and has given it a job. When a server breaks, its miners
// go to another one of the chain, or are held until there is one. When ZooKeeper is away all goes on with what is known.
//
// A session is a plain value that belongs to one loop, with its connections. On SIGUSR2 another process goes on with all of
// them.
package switcher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"btcpool/internal/chainwatch"
	"btcpool/internal/config"
	"btcpool/internal/guard"
	"btcpool/internal/httpapi"
	"btcpool/internal/poll"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/upgrade"
	"btcpool/internal/userchain"
)

const (
	maxLoops = 8
	// proxyGrace is what a proxy gets to say for whom it connects.
	proxyGrace = 5 * time.Second
	// stopGrace is what stopping takes besides the disconnecting of miners.
	stopGrace   = 5 * time.Second
	drainStep   = 100 * time.Millisecond
	logInterval = 10 * time.Second
)

// Service is a switcher. It listens when it is made and serves when it runs.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	closing service.Closing
	mask    uint32 // version bits that are promised at most
	started time.Time

	registry      *registry.Registry
	users         *chainwatch.Watcher
	spellings     *spellings                // nil: names are not looked up
	registrations *chainwatch.Registrations // nil: nobody is registered
	chains        []*chain                  // in the order of the configuration
	guard         *guard.Guard
	ids           *idPool
	loops         []*loop
	ports         []*port
	status        net.Listener // nil: none
	dials         chan struct{}

	acceptLog, chainLog, switchLog sampled

	maxConnections int
	open           atomic.Int64                   // connections
	before         *upgrade.Predecessor           // whose sessions are gone on with; nil: nobody's
	lease          atomic.Pointer[registry.Lease] // nil: there is no id yet
	running        atomic.Bool                    // loops are, or are about to
	moving         sync.Mutex                     // held while sessions pass to another process
	gate           poll.Gate
	gone           chan struct{} // closed when another process has all sessions
	relays         upgrade.Relays
	goroutines     sync.WaitGroup
	serving        context.Context //nolint:containedctx // ends when the service stops: of what works for sessions
	stopServing    context.CancelFunc
}

// sampled is a logger for what may come by the thousand.
type sampled struct {
	rate.Sometimes
	log zerolog.Logger
}

// Warn returns an event that is logged at times only.
func (s *sampled) Warn() (e *zerolog.Event) {
	s.Do(func() { e = s.log.Warn() })
	return e // nil does nothing
}

// port is a Listener that listens.
type port struct {
	*poll.Listener
	proxies []netip.Prefix
}

// New returns a switcher that listens, and connects to nothing but ZooKeeper.
func New(cfg Config, deps service.Deps) (_ *Service, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return nil, err
	}
	now := time.Now()
	s := &Service{
		cfg:     cfg,
		log:     deps.Log,
		metrics: newMetrics(deps.Metrics),
		mask:    cfg.versionMask(),
		started: now,
		ids:     &idPool{server: cfg.ServerID},
		before:  deps.Predecessor,
		gone:    make(chan struct{}),
		dials:   make(chan struct{}, maxDials),
	}
	bans := cfg.DataDir
	if s.before != nil { // they are the other process's until all is taken over
		bans = ""
	}
	s.guard = guard.New(cfg.Limits, guard.NewBans(bans, deps.Log, now))
	for _, l := range []*sampled{&s.acceptLog, &s.chainLog, &s.switchLog} {
		l.log, l.Interval = deps.Log, logInterval
	}
	s.serving, s.stopServing = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	s.closing.Add(func() error { s.stopServing(); return nil })
	if s.maxConnections, err = service.Connections(cfg.MaxConnections, service.OpenFiles()/2, deps.Log); err != nil {
		return nil, err
	}
	for _, of := range cfg.Chains {
		c := &chain{Chain: of, sessions: s.metrics.onChain.WithLabelValues(of.Name)}
		for _, server := range of.Servers {
			c.servers = append(c.servers, newServer(server, s.metrics.serverUp.WithLabelValues(of.Name, server.Addr)))
		}
		s.chains = append(s.chains, c)
	}
	for range min(max(runtime.GOMAXPROCS(0), 2), maxLoops) {
		l, err := newLoop(s)
		if err != nil {
			return nil, err
		}
		s.loops = append(s.loops, l)
		s.closing.Add(func() error { l.Close(); return nil })
	}
	for _, l := range cfg.Listeners {
		p, err := s.listen(l)
		if err != nil {
			return nil, err
		}
		s.ports = append(s.ports, p)
		s.closing.Add(p.Close)
		s.log.Info().Stringer("addr", p.Addr()).Bool("tls", l.TLSCertFile != "").Msg("listening for miners")
	}
	if cfg.Status != "" {
		if s.status, err = s.listenStatus(); err != nil {
			return nil, &config.ListenError{Key: "status", Addr: cfg.Status, Err: err}
		}
		s.closing.Add(s.status.Close)
	}
	if s.registry, err = registry.New(cfg.ZooKeeper, deps); err != nil {
		return nil, err
	}
	u := cfg.Users
	s.users, err = chainwatch.New(s.registry, chainwatch.Config{
		Path: u.Chain, File: cfg.snapshot(), Settings: u.Settings, Changed: s.changed,
	}, deps)
	if err != nil {
		return nil, err
	}
	s.closing.Add(s.users.Close)
	s.spellings = newSpellings(u, s.users)
	s.registrations = s.users.Registrations(u.AutoReg, deps)
	return s, nil
}

func (s *Service) listenStatus() (net.Listener, error) {
	if file := s.before.Listener(statusName(s.cfg.Status)); file != nil {
		defer file.Close()
		return net.FileListener(file)
	}
	return net.Listen("tcp", s.cfg.Status)
}

func (s *Service) listen(l Listener) (*port, error) {
	listener, err := poll.Listen(poll.Config{
		Addr:         l.Listen,
		Inherited:    s.before.Listener(l.name()),
		CertFile:     l.TLSCertFile,
		KeyFile:      l.TLSKeyFile,
		Log:          s.log,
		Go:           s.goroutines.Go,
		WriteTimeout: s.cfg.WriteTimeout.Std(),
	})
	if err != nil {
		return nil, config.Listening("listen", l.Listen, err)
	}
	return &port{listener, l.ProxyNetworks}, nil
}

// Close ends a switcher that has not run, and does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Addrs returns where miners connect, in the order of the configuration.
func (s *Service) Addrs() (addrs []net.Addr) {
	for _, p := range s.ports {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// StatusAddr returns where the status is, nil if there is none.
func (s *Service) StatusAddr() net.Addr {
	if s.status == nil {
		return nil
	}
	return s.status.Addr()
}

// Ready returns nil while miners can be served: it is known what users mine, and some chain has a server.
func (s *Service) Ready() error {
	if s.lease.Load() == nil {
		return errors.New("no server id yet")
	}
	if err := s.users.Fault(); err != nil && !s.users.Remembers() {
		return err
	}
	for _, c := range s.chains {
		if c.healthy() {
			return nil
		}
	}
	return errors.New("no server of any chain can be reached")
}

func (s *Service) id() uint8 { return s.ids.server }

// Run serves until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() {
		err = errors.Join(err, s.Close())
		s.relays.Wait(ctx, &s.goroutines, s.log)
	}()
	serve := func(ctx context.Context, lease registry.Lease) error {
		s.ids.server = lease.ID
		s.lease.Store(&lease)
		return s.serve(ctx)
	}
	if s.before != nil {
		return s.takeOver(ctx, serve)
	}
	return s.registry.Lease(ctx, s.cfg.LockPath, s.cfg.ServerID, serve)
}

// serve serves miners until ctx ends, then lets go of them; or until another process does.
func (s *Service) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.running.Store(true)
	defer s.running.Store(false)
	if s.status != nil {
		g.Go(func() error { return httpapi.Serve(ctx, s.status, s.handler(), time.Second) })
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx)) // also while miners are let go of
	defer stop()
	for _, f := range []func(context.Context){
		func(ctx context.Context) { _ = s.users.Run(ctx) }, // ends with ctx only
		s.users.KeepFile,
		s.guard.Run,
		s.tick,
	} {
		g.Go(func() error { f(background); return nil })
	}
	for _, c := range s.chains {
		for _, server := range c.servers {
			g.Go(func() error { s.watch(ctx, c, server); return nil })
		}
	}
	var accepting sync.WaitGroup
	for _, p := range s.ports {
		accepting.Go(func() { s.accept(ctx, p) })
	}
	g.Go(func() error {
		passed := false
		select {
		case <-s.gone:
			passed = true
			cancel()
		case <-ctx.Done():
		}
		for _, p := range s.ports {
			_ = p.Close() // which ends accept
		}
		accepting.Wait()
		if passed {
			return nil
		}
		s.letGo()
		for _, l := range s.loops {
			l.Post(l.leave)
		}
		return nil
	})
	var loops errgroup.Group
	for _, l := range s.loops {
		loops.Go(l.run)
	}
	g.Go(func() error {
		defer stop()
		if err := loops.Wait(); err != nil {
			return fmt.Errorf("event loop: %w", err)
		}
		return nil
	})
	err := g.Wait()
	s.stopServing()
	select {
	case <-s.gone: // they relay
	default:
		s.goroutines.Wait()
	}
	return err
}

func (s *Service) tick(ctx context.Context) {
	for retry.Sleep(ctx, tickInterval) {
		for _, l := range s.loops {
			l.Post(l.tick)
		}
	}
}

// letGo disconnects miners, evenly over the time that there is for that.
func (s *Service) letGo() {
	grace := s.cfg.ShutdownGrace.Std()
	if grace == 0 {
		return
	}
	steps := max(int(grace/drainStep), 1)
	s.log.Info().Int64("sessions", s.open.Load()).Stringer("grace", s.cfg.ShutdownGrace).Msg("disconnecting miners")
	for left := steps; left > 0 && s.open.Load() > 0; left-- {
		for _, l := range s.loops {
			l.Post(func() {
				for range (len(l.sessions) + left - 1) / left {
					l.end(l.sessions[len(l.sessions)-1])
				}
			})
		}
		time.Sleep(drainStep)
	}
}

// changed has all sessions of a user follow what its node says now.
func (s *Service) changed(user string, now chainwatch.Answer, heard time.Time) {
	to := s.target(user, now)
	e := s.log.Info().Str("user", user).Bool("node", now.Known).Str("says", now.Value.Chain)
	if to != nil {
		e = e.Str("chain", to.Name)
	}
	e.Msg("a user's node has changed")
	for _, l := range s.loops {
		l.Post(func() { l.changed(user, now, heard) })
	}
}

// chain returns the one of that name, nil if there is none.
func (s *Service) chain(name string) *chain {
	if i := slices.IndexFunc(s.chains, func(c *chain) bool { return c.Name == name }); i >= 0 {
		return s.chains[i]
	}
	return nil
}

// target returns the chain that a user is to mine; nil: it stays where it is, or is refused.
func (s *Service) target(user string, a chainwatch.Answer) *chain {
	name := a.Value.Chain
	switch {
	case !a.Known:
		name = s.cfg.DefaultChain
	case name == userchain.Auto && s.cfg.AutoChain != "":
		name = s.cfg.AutoChain
	case name == userchain.Auto:
		name = s.cfg.DefaultChain
	}
	to := s.chain(name)
	if to == nil && a.Known {
		s.metrics.unknownChains.Inc()
		s.chainLog.Warn().Str("user", user).Str("chain", a.Value.Chain).Msg("a user's node names a chain that is not configured: the user stays where it is")
	}
	return to
}

// promise are the version bits that every server lets miners roll, as far as that is known. One that lets nobody roll is
// for its time only: miners would give up ASICBoost for a chain that they may never mine.
func (s *Service) promise() uint32 {
	mask := s.mask
	for _, c := range s.chains {
		for _, server := range c.servers {
			if own := server.mask.Load(); own != unknownMask && own != 0 {
				mask &= uint32(own)
			}
		}
	}
	return mask
}

// accept starts a session for each connection until the port is closed.
func (s *Service) accept(ctx context.Context, p *port) {
	for next := 0; ; next++ {
		l := s.loops[next%len(s.loops)]
		err := s.gate.Accept(p.Listener, func(conn poll.Link, ip netip.Addr) { s.welcome(p, conn, ip, l) })
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		s.metrics.refused.WithLabelValues("accept").Inc() // out of descriptors, most likely: that passes
		s.acceptLog.Warn().Err(err).Msg("connections are not accepted: if files are too many, raise LimitNOFILE, or ulimit -n")
		retry.Sleep(ctx, 100*time.Millisecond)
	}
}

// welcome makes a session of conn, if ip may have one, and gives it to l. Of a proxy's it has to be heard first who
// connects.
func (s *Service) welcome(p *port, conn poll.Link, ip netip.Addr, l *loop) {
	now := time.Now()
	n := &session{state: state{IP: ip, Since: now}, srv: s, loop: l, link: conn}
	refusal := ""
	switch {
	case s.open.Add(1) > int64(s.maxConnections):
		refusal = "limit"
	case slices.ContainsFunc(p.proxies, func(of netip.Prefix) bool { return of.Contains(ip) }):
		n.proxied, n.readBy = true, now.Add(proxyGrace)
	default:
		refusal = s.admit(n, now)
	}
	if refusal == "" {
		l.Post(func() { l.add(n) }) // the loop ends after the last accept
		return
	}
	s.metrics.refused.WithLabelValues(refusal).Inc()
	s.open.Add(-1)
	conn.Close()
}

// admit makes n the session of a miner at its address, or says why there must be none.
func (s *Service) admit(n *session, now time.Time) (refusal string) {
	if refusal := s.guard.Admit(n.IP, now); refusal != "" {
		return refusal
	}
	id, ok := s.ids.get(now)
	n.ID, n.full, n.admitted = id, !ok, true
	n.readBy = now.Add(s.cfg.DetectTimeout.Std())
	s.metrics.sessions[connected].Add(1)
	return ""
}

// disconnect undoes admit, with all that came of it.
func (s *Service) disconnect(n *session, now time.Time) {
	if reason := reasonOf(n.why); reason != "" {
		s.metrics.disconnected.WithLabelValues(reason).Inc()
		s.log.Debug().Err(n.why).Str("session", n.sessionID()).Stringer("ip", n.IP).Str("user", n.Name.user).Msg("disconnected")
	}
	for u := range n.servers {
		u.leave()
	}
	n.now, n.next, n.past = nil, nil, nil
	if n.used {
		n.used = false
		n.loop.forgetUser(n)
		s.users.Leave(n.Name.user)
	}
	n.countChain(nil)
	if !n.admitted {
		return
	}
	s.metrics.sessions[n.Phase].Add(-1)
	if !n.full {
		s.ids.put(n.ID, now)
	}
	s.guard.Leave(n.IP, n.Trusted, now)
}

// reasonOf is a label for metrics; "": the miner has ended it.
func reasonOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, poll.ErrSlow):
		return "slow"
	case reasons[err] != "":
		return reasons[err]
	}
	return "other"
}

// countChain has the session counted as a chain's.
func (s *session) countChain(c *chain) {
	if s.counted != nil {
		s.counted.sessions.Dec()
	}
	if s.counted = c; c != nil {
		c.sessions.Inc()
	}
}
