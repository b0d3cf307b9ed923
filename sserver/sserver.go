// Package sserver is the Stratum server: it gives jobs to miners, judges what
// they find and hands shares, blocks and events to Kafka.
//
// A share is acknowledged when it is on this machine's disk, in a spool that
// survives crashes and an absent Kafka. A block goes to a spool of its own
// before anything else happens to its share.
//
// One goroutine per connection reads and judges. Nothing ever waits for a miner
// that does not read: it is disconnected. Jobs, sessions, difficulties and
// verdicts know nothing of Stratum V1, which is one codec.
package sserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/agentwire"
	"btcpool/internal/bus"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/spool"
	"btcpool/internal/stratum"
)

const (
	extraNonce2Size = job.Extranonce2Size
	// closeGrace is what sessions get to answer what they have read.
	closeGrace = 5 * time.Second
	// proxyGrace is what a proxy gets to say for whom it connects.
	proxyGrace = 5 * time.Second
	// sweepInterval is how often guests that have gone are forgotten.
	sweepInterval = time.Minute
)

// Service is a Stratum server. It listens when it is made and serves when it
// runs.
type Service struct {
	cfg         Config
	log         zerolog.Logger
	loginLog    zerolog.Logger // of failures that may come by the thousand
	metrics     *metrics
	serverID    uint8
	versionMask uint32
	longAgents  *regexp.Regexp // nil: none

	ports     []*port
	bus       *bus.Client
	shares    *spool.Spool
	blocks    *spool.Spool
	auxBlocks *spool.Spool // nil: there is no such topic
	rskBlocks *spool.Spool // likewise
	handover  *handover.Client
	events    *eventQueue
	users     *userList
	jobs      *jobBook
	ids       *idPool
	guard     *guard
	roster    *roster
	scratch   sync.Pool

	open        atomic.Int64   // connections
	agentMiners atomic.Int64   // behind agents
	leaving     atomic.Bool    // sessions are ended
	sessions    sync.WaitGroup // goroutines that serve them
}

// New returns a server that listens already. It uses no network besides.
func New(cfg Config, deps service.Deps) (_ *Service, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o750); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:         cfg,
		log:         deps.Log,
		serverID:    cfg.ServerID,
		versionMask: cfg.versionMask(),
		jobs:        newJobBook(cfg),
		ids:         newIDPool(cfg.ServerID, cfg.MaxJobLifetime.Std()),
		guard:       newGuard(cfg.Limits),
		roster:      newRoster(min(max(runtime.GOMAXPROCS(0), 2), 8)),
		scratch:     sync.Pool{New: func() any { return new(scratch) }},
	}
	s.loginLog = s.log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute})
	s.metrics = newMetrics(deps.Metrics, s.jobAge)
	s.events = newEventQueue(s.metrics.eventsDropped)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.longAgents, err = cfg.longAgents(); err != nil {
		return nil, err
	}
	if s.users, err = newUserList(cfg, s.log); err != nil {
		return nil, err
	}
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return nil, err
	}
	if s.handover, err = handover.New(cfg.Handover, service.Deps{Log: s.log, Metrics: deps.Metrics}); err != nil {
		return nil, err
	}
	topics := cfg.Kafka.Topics
	for _, part := range []struct {
		spool       **spool.Spool
		name, topic string
	}{
		{&s.shares, "shares", topics.Share},
		{&s.blocks, "blocks", topics.SolvedShare},
		{&s.auxBlocks, "aux_blocks", topics.AuxSolved},
		{&s.rskBlocks, "rsk_blocks", topics.RSKSolved},
	} {
		if part.topic == "" {
			continue
		}
		spoolCfg := spool.Config{Dir: filepath.Join(cfg.DataDir, part.name), MaxBytes: cfg.SpoolMaxBytes}
		if *part.spool, err = spool.Open(spoolCfg, deps, part.name); err != nil {
			return nil, err
		}
	}
	for _, place := range cfg.places() {
		p, err := listen(place, cfg, s.log)
		if err != nil {
			return nil, err
		}
		s.ports = append(s.ports, p)
		s.log.Info().Stringer("addr", p.Addr()).Bool("tls", p.tls != nil).Msg("listening for miners")
	}
	return s, nil
}

// close releases what New opened.
func (s *Service) close() error {
	errs := []error{s.stopListening()}
	for _, sp := range []*spool.Spool{s.shares, s.blocks, s.auxBlocks, s.rskBlocks} {
		if sp != nil {
			errs = append(errs, sp.Close())
		}
	}
	if s.bus != nil {
		errs = append(errs, s.bus.Close())
	}
	return errors.Join(errs...)
}

func (s *Service) stopListening() error {
	var errs []error
	for _, p := range s.ports {
		if err := p.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Addr returns where miners connect, the first such place.
func (s *Service) Addr() net.Addr { return s.ports[0].Addr() }

// Addrs returns all places where miners connect, in the order of the
// configuration.
func (s *Service) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, p := range s.ports {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// Ready returns nil when miners can connect and have something to do.
func (s *Service) Ready() error {
	r := s.jobs.round.Load()
	if r == nil {
		return errors.New("no job yet")
	}
	if age := time.Since(r.work.ID.Time()); age > s.cfg.MaxJobLifetime.Std() {
		return fmt.Errorf("latest job is %s old", age.Round(time.Second))
	}
	return nil
}

func (s *Service) jobAge() time.Duration {
	r := s.jobs.round.Load()
	if r == nil {
		return 0
	}
	return time.Since(r.work.ID.Time())
}

// Run serves miners until ctx ends. Then it sends them away, answers what was
// read, closes all sessions, sends what Kafka takes and returns nil.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()

	// What sessions depend on outlives them.
	beyond, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	g, beyond := errgroup.WithContext(beyond)
	topics := s.cfg.Kafka.Topics
	for _, part := range []struct {
		spool *spool.Spool
		topic string
	}{{s.shares, topics.Share}, {s.blocks, topics.SolvedShare}, {s.auxBlocks, topics.AuxSolved}, {s.rskBlocks, topics.RSKSolved}} {
		if part.spool != nil {
			g.Go(func() error { return part.spool.Run(beyond, s.sender(part.topic)) })
		}
	}
	g.Go(func() error { return s.handover.Run(beyond) })
	g.Go(func() error { return s.events.run(beyond, s.sender(topics.CommonEvents)) })
	g.Go(func() error {
		defer release()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(beyond, cancel)()
		return s.serve(ctx, beyond)
	})
	return g.Wait()
}

func (s *Service) sender(topic string) func(context.Context, []bus.Message) error {
	return func(ctx context.Context, msgs []bus.Message) error { return s.bus.Write(ctx, topic, msgs...) }
}

// serve has miners served until ctx ends, and sends them away then; their last
// requests may take until beyond ends.
func (s *Service) serve(ctx, beyond context.Context) error {
	work, done := context.WithCancel(beyond)
	defer done()
	g, work := errgroup.WithContext(work)
	g.Go(func() error { return s.users.run(work) })
	g.Go(func() error { return s.readJobs(work) })
	g.Go(func() error { return s.keepJobs(work) })
	for _, part := range s.roster.parts {
		g.Go(func() error {
			part.run(work, s)
			return nil
		})
	}
	for _, p := range s.ports {
		g.Go(func() error { return s.accept(ctx, beyond, p) })
	}
	g.Go(func() error {
		defer done()
		select {
		case <-ctx.Done():
		case <-work.Done():
		}
		err := s.stopListening()
		s.drain(work)
		return err
	})
	err := g.Wait()
	s.hangUp()
	return err
}

// hangUp ends all sessions. Nothing is accepted any more.
func (s *Service) hangUp() {
	s.leaving.Store(true)
	for _, part := range s.roster.parts {
		for _, session := range part.all(nil) {
			session.hangUp()
		}
	}
	force := time.AfterFunc(closeGrace, func() {
		for _, part := range s.roster.parts {
			for _, session := range part.all(nil) {
				session.out.conn.Close()
			}
		}
	})
	defer force.Stop()
	s.sessions.Wait()
}

// readJobs takes jobs from Kafka until ctx ends.
func (s *Service) readJobs(ctx context.Context) error {
	topics := s.cfg.Kafka.Topics
	names := []string{topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents, topics.AuxSolved, topics.RSKSolved}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	if err := s.bus.EnsureTopics(ctx, names...); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	since := time.Now().Add(-s.cfg.MaxJobDelay.Std())
	return s.bus.Read(ctx, topics.Job, bus.Since(since), func(msg bus.Message) error {
		s.takeJob(msg.Value, time.Now())
		return nil
	})
}

// takeJob starts a round if the job of a message deserves one.
func (s *Service) takeJob(text []byte, now time.Time) {
	j, err := job.ParseStratumJob(text)
	if err != nil {
		s.metrics.jobs.WithLabelValues("bad").Inc()
		s.log.Error().Err(err).Msg("job is not usable")
		return
	}
	sent, err := s.jobs.add(j, s.mergedMining(j), now)
	result := "stored"
	switch {
	case errors.Is(err, errJobKnown):
		result = "known"
	case errors.Is(err, errJobLate):
		result = "late"
	case errors.Is(err, errJobBehind):
		result = "behind"
	case err != nil:
		result = "bad"
	case sent:
		result = "sent"
	}
	s.metrics.jobs.WithLabelValues(result).Inc()
	if err != nil && result != "known" {
		s.log.Warn().Err(err).Uint64("job", uint64(j.ID)).Int32("height", j.Height).Msg("job dropped")
	}
	if sent {
		s.roster.wakeAll()
		s.metrics.jobHeight.Set(float64(j.Height))
		s.log.Debug().Uint64("job", uint64(j.ID)).Int32("height", j.Height).Stringer("prev_hash", j.PrevHash).Msg("job sent")
	}
}

// mergedMining returns the blocks of other chains that shares of j may solve
// and that somebody waits for.
func (s *Service) mergedMining(j *job.StratumJob) merged {
	m, err := mergedMining(j)
	if err != nil {
		s.metrics.jobs.WithLabelValues("bad merged").Inc()
		s.log.Error().Err(err).Uint64("job", uint64(j.ID)).Msg("merged mining of a job is not usable")
	}
	if s.auxBlocks == nil {
		m.aux = nil
	}
	if s.rskBlocks == nil {
		m.rsk = nil
	}
	return m
}

// keepJobs lets jobs grow old, and repeats the latest when there is none for
// long, until ctx ends.
func (s *Service) keepJobs(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-sweep.C:
			s.guard.sweep(now)
		case now := <-ticker.C:
			if s.jobs.tick(now) {
				s.roster.wakeAll()
			}
		}
	}
}

// accept starts a session for each connection until the port is closed.
func (s *Service) accept(ctx, beyond context.Context, p *port) error {
	for {
		conn, err := p.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of descriptors, most likely: that passes.
			s.metrics.refused.WithLabelValues("accept").Inc()
			s.log.Error().Err(err).Msg("connection not accepted")
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		s.welcome(beyond, p, conn)
	}
}

// welcome finds out who connects: one whom a proxy speaks for may have to be
// waited for.
func (s *Service) welcome(ctx context.Context, p *port, conn net.Conn) {
	if s.open.Add(1) > int64(s.cfg.MaxConnections) {
		s.refuse(conn, "limit")
		return
	}
	ip := remoteIP(conn)
	if !contains(p.proxies, ip) {
		s.connect(ctx, p, conn, ip)
		return
	}
	s.sessions.Go(func() {
		_ = conn.SetReadDeadline(time.Now().Add(proxyGrace)) // fails only with the read
		from, err := readProxyHeader(conn)
		switch {
		case err != nil:
			s.refuse(conn, "proxy header")
		case from.IsValid():
			s.connect(ctx, p, conn, from)
		default:
			s.connect(ctx, p, conn, ip)
		}
	})
}

// refuse closes a connection that does not become a session.
func (s *Service) refuse(conn net.Conn, reason string) {
	s.metrics.refused.WithLabelValues(reason).Inc()
	s.open.Add(-1)
	conn.Close()
}

// connect makes a session of conn, if ip is welcome, and serves it.
func (s *Service) connect(ctx context.Context, p *port, conn net.Conn, ip netip.Addr) {
	now := time.Now()
	if reason := s.guard.admit(ip, now); reason != "" {
		s.refuse(conn, reason)
		return
	}
	id, ok := s.ids.get(now)
	if !ok {
		s.guard.leave(ip, now)
		s.refuse(conn, "session ids")
		return
	}
	if p.tls != nil {
		conn = tls.Server(conn, p.tls) // shakes hands with the first read
	}
	session := &session{
		srv:      s,
		port:     p,
		announce: announceV1,
		out: newOutbound(conn, s.cfg.WriteTimeout.Std(), s.sessions.Go, func() {
			s.metrics.disconnected.WithLabelValues("slow").Inc()
		}),
		state: state{
			ID:    id,
			IP:    ip,
			Miner: miner{Difficulty: p.vardiff.Start(p.difficulty, p.vardiff.Min, now)},
		},
	}
	s.metrics.sessions[connected].Inc()
	s.roster.add(session)
	if s.leaving.Load() { // too late to be in hangUp's list
		session.hangUp()
	}
	s.sessions.Go(func() {
		defer s.disconnect(session)
		s.converse(ctx, session, conn)
	})
}

// converse runs the session's protocol. A fault of the program costs this
// session only.
func (s *Service) converse(ctx context.Context, session *session, conn net.Conn) {
	defer func() {
		if fault := recover(); fault != nil {
			s.metrics.panics.Inc()
			s.log.Error().Str("session", session.sessionID()).Interface("fault", fault).Bytes("stack", debug.Stack()).Msg("session failed")
		}
	}()
	err := (&v1{session: session}).serve(ctx, conn)
	if reason := disconnectReason(err); reason != "" {
		s.metrics.disconnected.WithLabelValues(reason).Inc()
		s.log.Debug().Err(err).Str("session", session.sessionID()).Stringer("ip", session.IP).Msg("disconnected")
	}
}

// disconnectReason returns why this side ended a session, "" if it did not or
// has counted it already.
func disconnectReason(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, stratum.ErrLineTooLong):
		return "line too long"
	case errors.Is(err, errBadLines):
		return "bad lines"
	case errors.Is(err, agentwire.ErrStream):
		return "bad frame"
	case errors.Is(err, errBanned):
		return "banned"
	case errors.Is(err, errSpool):
		return "spool"
	}
	return ""
}

func (s *Service) disconnect(session *session) {
	now := time.Now()
	session.out.close()
	s.roster.remove(session)
	s.metrics.sessions[session.Phase].Dec()
	before := session.end(now)
	switch {
	case session.Farm != nil:
		s.agentMiners.Add(-int64(len(session.Farm.Miners)))
		s.ids.put(session.ID, now)
	case session.Phase != authorized:
		s.ids.put(session.ID, now)
	default:
		s.ids.putPast(session.ID, before, session.IP, now)
	}
	s.guard.leave(session.IP, now)
	s.open.Add(-1)
}

func remoteIP(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
