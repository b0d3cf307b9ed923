// Package sserver is the Stratum server: it gives jobs to miners, judges what they find and hands shares, blocks and
// events to Kafka.
//
// A share is acknowledged when it is on this machine's disk, in a spool that survives crashes and an absent Kafka. A
// block goes to a spool of its own before anything else happens to its share.
//
// A few loops share the connections: each reads, judges and writes for its own, and waits for no miner. A miner that
// does not read is disconnected.
//
// A protocol (protocol.go) parses what a miner says, calls the session's verbs and appends what the session has to say.
// Jobs, sessions, difficulties, verdicts and the operator's interface make no text of any protocol.
package sserver

import (
	"context"
	"errors"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"btcpool/internal/bus"
	"btcpool/internal/guard"
	"btcpool/internal/poll"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/spool"
	"btcpool/internal/upgrade"
	"btcpool/internal/users"
	"btcpool/sserver/operator"
)

const (
	maxLoops = 8
	// closeGrace is what sessions get to answer what they have read.
	closeGrace = 5 * time.Second
	// sendGap is the least time between two sends of shares to Kafka while few wait: they are for statistics and logs, and
	// a broker takes as long for one as for hundreds. At 1,000 shares/s it halves what the broker uses.
	sendGap = 250 * time.Millisecond
	// proxyGrace is what a proxy gets to say for whom it connects.
	proxyGrace = 5 * time.Second
)

// Service is a Stratum server. It listens when it is made and serves when it runs.
type Service struct {
	cfg         Config
	log         zerolog.Logger
	loginLog    zerolog.Logger // for failures that may come by the thousand
	metrics     *metrics
	serverID    atomic.Uint32 // 0: none yet
	versionMask uint32
	longAgents  *regexp.Regexp // user agents that may be silent for long; nil: no others than agents

	registry *registry.Registry
	ports    []*port
	users    *users.Lists
	chains   []*chain     // at least one
	first    int          // index of the one that users mine who have not chosen
	board    *switchboard // nil: users have no nodes
	ids      *idPool
	twins    *twins
	guard    *guard.Guard
	loops    []*loop
	admin    *operator.API      // nil: not configured
	commands *operator.Commands // nil: not configured
	started  time.Time
	closing  service.Closing

	maxConnections int
	acceptLog      rate.Sometimes

	open        atomic.Int64   // connections
	agentMiners atomic.Int64   // miners behind agents
	goroutines  sync.WaitGroup // those that work for sessions

	before     *upgrade.Predecessor // whose sessions are gone on with; nil: nobody's
	takenOver  *succession          // nil: they are not, or by a term that has begun
	lease      atomic.Pointer[registry.Lease]
	inTerm     atomic.Bool // a term is under way
	moving     sync.Mutex  // held while sessions pass to another process
	gate       poll.Gate
	collecting sync.Mutex  // of still
	still      bool        // loops read nothing, and wait
	gone       atomic.Bool // another process has all sessions
	relays     upgrade.Relays
}

// New returns a server that listens already, unless it has to get its id first. It uses no network besides.
func New(cfg Config, deps service.Deps) (_ *Service, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return nil, err
	}
	if deps.Predecessor != nil {
		theirs, err := readSettings(deps.Predecessor.Settings)
		if err != nil {
			return nil, err
		}
		cfg = cfg.inOrderOf(theirs.chains)
	}
	s := &Service{
		cfg:         cfg,
		log:         deps.Log,
		versionMask: cfg.versionMask(),
		started:     time.Now(),
		acceptLog:   rate.Sometimes{Interval: 10 * time.Second},
		before:      deps.Predecessor,
	}
	bans := cfg.DataDir
	if s.before != nil { // they are the other process's until all is taken over
		bans = ""
	}
	s.guard = guard.New(cfg.Limits, guard.NewBans(bans, deps.Log, time.Now()))
	s.setID(cfg.ServerID)
	s.loginLog = s.log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute})
	s.twins = newTwins(s.log, s.started)
	s.metrics = newMetrics(deps.Metrics, s.twins)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.maxConnections, err = service.Connections(cfg.MaxConnections, service.OpenFiles(), deps.Log); err != nil {
		return nil, err
	}
	if cfg.Development != (Development{}) {
		s.log.Warn().Interface("development", cfg.Development).Msg("shares and blocks are not what they seem")
	}
	if s.longAgents, err = cfg.longAgents(); err != nil {
		return nil, err
	}
	if s.registry, err = registry.New(cfg.ZooKeeper, deps); err != nil {
		return nil, err
	}
	places := cfg.places()
	var sources []users.Source
	for _, place := range places {
		for _, one := range cfg.PerChain() {
			sources = append(sources, cfg.sourceAt(place, one))
		}
	}
	if s.users, err = users.New("sserver", cfg.Users, sources, cfg.DataDir, cfg.UsersDatabase(), deps); err != nil {
		return nil, err
	}
	if err := s.openChains(deps); err != nil {
		return nil, err
	}
	for range min(max(runtime.GOMAXPROCS(0), 2), maxLoops) {
		l, err := newLoop(s)
		if err != nil {
			return nil, err
		}
		s.loops = append(s.loops, l)
	}
	s.closing.Add(s.closeLoops)
	for _, c := range s.chains {
		c.shares.OnDurable(func(durable uint64, failure error) { s.release(c.index, durable, failure) })
		c.shares.BeforeSync(s.collect)
	}
	s.closing.Add(s.stopListening)
	for _, place := range places {
		p, err := s.listen(place)
		if err != nil {
			return nil, err
		}
		for _, c := range s.chains {
			p.users = append(p.users, s.users.Of(cfg.sourceAt(place, c.cfg)))
		}
		s.ports = append(s.ports, p)
		s.log.Info().Stringer("addr", p.Addr()).Bool("tls", place.TLSCertFile != "").Msg("listening for miners")
	}
	if err := s.openSwitchboard(deps); err != nil {
		return nil, err
	}
	if cfg.AdminAPI.Listen != "" {
		if s.admin, err = operator.Listen(cfg.AdminAPI, operated{s}, deps); err != nil {
			return nil, err
		}
		s.closing.Add(s.admin.Close)
	}
	if cfg.Management.Enabled {
		s.commands = operator.NewCommands(cfg.Management, operated{s}, s.firstChain().bus, deps)
	}
	if cfg.ServerID == 0 && s.before == nil { // miners are better off elsewhere until there is one
		return s, errors.Join(s.stopListening(), s.closeLoops())
	}
	return s, nil
}

// closeLoops may be called again.
func (s *Service) closeLoops() error {
	for _, l := range s.loops {
		l.Close()
	}
	return nil
}

// Close ends a service that has not run, and does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// stopListening may be called again.
func (s *Service) stopListening() error {
	var errs []error
	for _, p := range s.ports {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Addr returns where miners connect, the first such place.
func (s *Service) Addr() net.Addr { return s.ports[0].Addr() }

// Addrs returns all places where miners connect, in the order of the configuration.
func (s *Service) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, p := range s.ports {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// Ready returns nil when miners can connect and have something to do, on one of the chains at least.
func (s *Service) Ready() error {
	switch {
	case s.serverID.Load() == 0:
		return errNoServerID
	case s.guard.Closed.Load():
		return errDraining
	}
	if err := s.twins.err(); err != nil {
		return err
	}
	return s.chainsErr()
}

// Run serves miners until ctx ends. Then it sends them away, answers what was read, closes all sessions, sends what
// Kafka takes and returns nil.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()

	// What sessions depend on outlives them.
	beyond, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	g, beyond := errgroup.WithContext(beyond)
	for _, c := range s.chains {
		c.send(beyond, g)
	}
	alone := func(run func(context.Context)) { // what only one process may do
		g.Go(func() error {
			if s.before.Wait(beyond) {
				run(beyond)
			}
			return nil
		})
	}
	if s.admin != nil {
		alone(s.admin.Run)
	}
	if s.commands != nil {
		alone(s.commands.Run)
	}
	g.Go(func() error {
		defer release()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(beyond, cancel)()
		return s.serve(ctx, beyond)
	})
	err = g.Wait()
	if s.gone.Load() {
		err = errors.Join(err, s.Close())
		s.relays.Wait(ctx, &s.goroutines, s.log)
	}
	return err
}

// solvedTopic has the whole names of workers as keys of solved shares: for btcpool's readers all behind the fields is
// coinbase.
type solvedTopic struct{ spool.Topic }

func (t solvedTopic) Write(ctx context.Context, partitions int, msgs ...bus.Message) error {
	msgs = slices.Clone(msgs)
	for i, m := range msgs {
		if name, solved := share.CutName(m.Value); name != "" {
			msgs[i] = bus.Message{Key: []byte(name), Value: solved}
		}
	}
	return t.Topic.Write(ctx, partitions, msgs...)
}

// serve has miners served until ctx ends, and sends them away then; their last requests may take until beyond ends.
func (s *Service) serve(ctx, beyond context.Context) error {
	work, done := context.WithCancel(beyond)
	defer done()
	g, work := errgroup.WithContext(work)
	g.Go(func() error { s.users.Run(work); return nil })
	g.Go(func() error {
		if s.before.Wait(work) {
			s.guard.Run(work)
		}
		return nil
	})
	for _, c := range s.chains {
		g.Go(func() error { return c.readJobs(work) })
		g.Go(func() error { return c.keepJobs(work) })
	}
	if s.board != nil {
		g.Go(func() error { s.board.run(work); return nil })
	}
	g.Go(func() error { return s.hearServers(work) })
	g.Go(func() error {
		defer done()
		if s.before != nil {
			if err := s.takeOver(ctx); err != nil {
				return err
			}
		}
		return s.serveTerms(ctx, work, beyond, done)
	})
	return g.Wait()
}
