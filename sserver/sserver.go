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
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/spool"
	"btcpool/internal/stratum"
	"btcpool/internal/vardiff"
)

const (
	extraNonce2Size = job.Extranonce2Size
	// closeGrace is what sessions get to answer what they have read.
	closeGrace = 5 * time.Second
)

// Service is a Stratum server. It listens when it is made and serves when it
// runs.
type Service struct {
	cfg         Config
	log         zerolog.Logger
	loginLog    zerolog.Logger // of failures that may come by the thousand
	metrics     *metrics
	serverID    uint8
	vardiff     vardiff.Policy
	difficulty  bitcoin.Difficulty // of miners that wish for none
	versionMask uint32

	listener net.Listener
	bus      *bus.Client
	shares   *spool.Spool
	blocks   *spool.Spool
	events   *eventQueue
	users    *userList
	jobs     *jobBook
	ids      *idPool
	roster   *roster
	scratch  sync.Pool

	open     atomic.Int64   // connections
	sessions sync.WaitGroup // goroutines that serve them
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
		log:         deps.Log.With().Str("component", "sserver").Logger(),
		serverID:    cfg.ServerID,
		vardiff:     cfg.vardiff(),
		difficulty:  bitcoin.DifficultyAtLeast(cfg.DefaultDifficulty),
		versionMask: cfg.versionMask(),
		jobs:        newJobBook(cfg),
		ids:         newIDPool(cfg.ServerID, cfg.MaxJobLifetime.Std()),
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
	if s.users, err = newUserList(cfg, s.log); err != nil {
		return nil, err
	}
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return nil, err
	}
	for _, part := range []struct {
		spool **spool.Spool
		name  string
	}{{&s.shares, "shares"}, {&s.blocks, "blocks"}} {
		spoolCfg := spool.Config{Dir: filepath.Join(cfg.DataDir, part.name), MaxBytes: cfg.SpoolMaxBytes}
		if *part.spool, err = spool.Open(spoolCfg, deps, part.name); err != nil {
			return nil, err
		}
	}
	if s.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, err
	}
	s.log.Info().Stringer("addr", s.listener.Addr()).Msg("listening for miners")
	return s, nil
}

// close releases what New opened.
func (s *Service) close() error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, sp := range []*spool.Spool{s.shares, s.blocks} {
		if sp != nil {
			errs = append(errs, sp.Close())
		}
	}
	if s.bus != nil {
		errs = append(errs, s.bus.Close())
	}
	return errors.Join(errs...)
}

// Addr returns where miners connect.
func (s *Service) Addr() net.Addr { return s.listener.Addr() }

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

// Run serves miners until ctx ends. Then it answers what was read, closes all
// sessions, sends what Kafka takes and returns nil.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()

	// What sessions depend on outlives them.
	beyond, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	g, beyond := errgroup.WithContext(beyond)
	g.Go(func() error { return s.shares.Run(beyond, s.sender(s.cfg.Kafka.Topics.Share)) })
	g.Go(func() error { return s.blocks.Run(beyond, s.sender(s.cfg.Kafka.Topics.SolvedShare)) })
	g.Go(func() error { return s.events.run(beyond, s.sender(s.cfg.Kafka.Topics.CommonEvents)) })
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

// serve has miners served until ctx ends; their last requests may take until
// beyond ends.
func (s *Service) serve(ctx, beyond context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.users.run(ctx) })
	g.Go(func() error { return s.readJobs(ctx) })
	g.Go(func() error { return s.keepJobs(ctx) })
	for _, part := range s.roster.parts {
		g.Go(func() error {
			part.run(ctx, s)
			return nil
		})
	}
	g.Go(func() error { return s.accept(ctx, beyond) })
	g.Go(func() error {
		<-ctx.Done()
		return s.listener.Close()
	})
	err := g.Wait()
	s.hangUp()
	return err
}

// hangUp ends all sessions. Nothing is accepted any more.
func (s *Service) hangUp() {
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
	if err := s.bus.EnsureTopics(ctx, topics.Job, topics.Share, topics.SolvedShare, topics.CommonEvents); err != nil {
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
	sent, err := s.jobs.add(j, now)
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
		s.log.Info().Uint64("job", uint64(j.ID)).Int32("height", j.Height).Stringer("prev_hash", j.PrevHash).Msg("job sent")
	}
}

// keepJobs lets jobs grow old, and repeats the latest when there is none for
// long, until ctx ends.
func (s *Service) keepJobs(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if s.jobs.tick(now) {
				s.roster.wakeAll()
			}
		}
	}
}

// accept starts a session for each connection until the listener is closed.
func (s *Service) accept(ctx, beyond context.Context) error {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
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
		s.connect(beyond, conn)
	}
}

// connect makes a session of conn, if there is room, and serves it.
func (s *Service) connect(ctx context.Context, conn net.Conn) {
	now := time.Now()
	if s.open.Load() >= int64(s.cfg.MaxConnections) {
		s.metrics.refused.WithLabelValues("limit").Inc()
		conn.Close()
		return
	}
	id, ok := s.ids.get(now)
	if !ok {
		s.metrics.refused.WithLabelValues("session ids").Inc()
		conn.Close()
		return
	}
	session := &session{
		srv:      s,
		announce: announceV1,
		out: newOutbound(conn, s.cfg.WriteTimeout.Std(), s.sessions.Go, func() {
			s.metrics.disconnected.WithLabelValues("slow").Inc()
		}),
		state: state{
			ID:         id,
			IP:         remoteIP(conn),
			Difficulty: s.vardiff.Start(s.difficulty, s.vardiff.Min, now),
		},
	}
	s.open.Add(1)
	s.metrics.sessions[connected].Inc()
	s.roster.add(session)
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
	if session.Phase == authorized {
		session.event(share.MinerDead, "del_conn", now)
	}
	s.ids.put(session.ID, now)
	s.open.Add(-1)
}

func remoteIP(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
