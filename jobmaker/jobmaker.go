// Package jobmaker is the service that turns raw block templates into Stratum
// jobs: it reads the raw template topic and the light one ahead of it, decides by
// height, contents and age which template is best and when miners need a new job,
// and writes the job topic. The work of chains that are mined along comes from
// topics of its own.
//
// Of the jobmakers that share a lock in ZooKeeper one makes jobs; the others read along and begin within 5 s of its
// death.
package jobmaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/service"
)

// retryInterval is the pause after a job that failed, or while there is no template.
const retryInterval = time.Second

// Service is a jobmaker.
type Service struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *metrics
	network  bitcoin.Network
	builder  atomic.Pointer[builder] // another one after each update of a sub-pool
	started  time.Time
	closing  service.Closing
	bus      *bus.Client
	registry *registry.Registry

	dropLog, skewLog rate.Sometimes

	caughtUp chan struct{} // closed when all templates are known that were in the topic before us
	news     retry.Bell    // something was taken in

	mu           sync.Mutex
	schedule     schedule
	merged       mergedMining
	leading      bool      // jobs are ours to make
	lastTemplate time.Time // when one was accepted
	lastJob      time.Time // when one was sent
	failure      error     // why none was since then
}

// New returns a jobmaker; it connects to nothing.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	network, err := bitcoin.NetworkByName(cfg.Network)
	if err != nil {
		return nil, err
	}
	builder, err := cfg.builder()
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg:      cfg,
		log:      deps.Log,
		network:  network,
		started:  time.Now(),
		dropLog:  rate.Sometimes{Interval: logInterval},
		skewLog:  rate.Sometimes{Interval: logInterval},
		caughtUp: make(chan struct{}),
		news:     retry.NewBell(),
		schedule: schedule{
			interval:  cfg.JobInterval.Std(),
			life:      cfg.GBTLifetime.Std(),
			emptyLife: cfg.EmptyGBTLifetime.Std(),
			maxSkew:   cfg.MaxTemplateSkew.Std(),
			network:   network,
		},
		merged: mergedMining{auxNotify: cfg.AuxNotify, rskNotify: cfg.RSKNotify},
	}
	s.builder.Store(&builder)
	if s.registry, err = registry.New(cfg.ZooKeeper, deps); err != nil {
		return nil, err
	}
	if s.bus, err = bus.New(cfg.Kafka, deps); err != nil {
		return nil, err
	}
	s.closing.Add(s.bus.Close)
	s.metrics = newMetrics(deps.Metrics, s.sinceLastJob, s.partedSince)
	return s, nil
}

// Close ends a jobmaker that has not run. It does nothing to one that has.
func (s *Service) Close() error { return s.closing.Close() }

// Run makes jobs until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	sources := s.sources()
	topics := []string{s.cfg.Kafka.Topics.Job}
	for _, from := range sources {
		topics = append(topics, from.topic)
	}
	if err := s.bus.EnsureTopics(ctx, topics...); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, from := range sources {
		g.Go(func() error { return s.read(ctx, from) })
	}
	g.Go(func() error { return s.watchSubPools(ctx) })
	g.Go(func() error { return s.lead(ctx) })
	return g.Wait()
}

// Ready returns nil while there are fresh templates and, if it is our turn, jobs made of them.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	templateAge, jobAge := time.Since(s.lastTemplate), time.Since(s.lastJob)
	branch := &s.schedule.branch
	switch {
	case s.lastTemplate.IsZero():
		return errors.New("no template yet")
	case templateAge > s.cfg.GBTLifetime.Std() && time.Since(branch.lighter) < s.cfg.GBTLifetime.Std():
		parted := ""
		if since := branch.since(time.Now()); since > 0 {
			parted = fmt.Sprintf(" on a branch of its own since block %d or before,", since)
		}
		return fmt.Errorf("no template for %s but%s with less work than the block that miners are on: bring the nodes that have it "+
			"back, or, if it was a mistake, restart gbtmaker without them and then jobmaker", templateAge.Round(time.Second), parted)
	case templateAge > s.cfg.GBTLifetime.Std():
		return fmt.Errorf("no template for %s", templateAge.Round(time.Second))
	case s.standingBy():
		return nil
	case s.failure != nil:
		return fmt.Errorf("no job can be sent: %w", s.failure)
	case s.lastJob.IsZero():
		return errors.New("no job sent yet")
	case jobAge > 2*s.cfg.JobInterval.Std():
		return fmt.Errorf("no job sent for %s", jobAge.Round(time.Second))
	}
	return nil
}

func (s *Service) sinceLastJob() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.standingBy():
		return 0
	case s.lastJob.IsZero():
		return time.Since(s.started).Seconds()
	}
	return time.Since(s.lastJob).Seconds()
}

// partedSince returns since which block the nodes that templates come from disagree, 0 when they do not.
func (s *Service) partedSince() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.schedule.branch.since(time.Now()))
}

func (s *Service) standingBy() bool { return s.cfg.LeaderLockPath != "" && !s.leading }

// lead makes jobs whenever it is our turn, until ctx ends.
func (s *Service) lead(ctx context.Context) error {
	for {
		err := s.registry.Lease(ctx, s.cfg.IDLeasePath, uint8(s.cfg.ServerID), func(ctx context.Context, lease registry.Lease) error {
			ids := job.NewIDs(lease.ID)
			return s.registry.Lead(ctx, s.cfg.LeaderLockPath, func(ctx context.Context) error {
				s.makeJobs(ctx, ids)
				return nil
			})
		})
		if !errors.Is(err, registry.ErrLost) {
			return err
		}
		s.log.Warn().Err(err).Msg("id of this jobmaker is lost, asking for another")
	}
}

// makeJobs makes a job whenever one is due, until ctx ends. It begins when the templates are known that were there
// before, or the first job might be for a block that has been found.
func (s *Service) makeJobs(ctx context.Context, ids *job.IDs) {
	s.setLeading(true)
	defer s.setLeading(false)
	select {
	case <-s.caughtUp:
	case <-ctx.Done():
		return
	}
	for {
		due := time.After(s.makeJob(ctx, ids))
		select {
		case <-ctx.Done():
			return
		case <-s.news:
		case <-due:
		}
	}
}

// setLeading begins or ends our turn. What was sent before it is another's, or
// long ago: the first job is due at once.
func (s *Service) setLeading(leading bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading = leading
	s.schedule.last = lastJob{}
}

// makeJob builds and sends a job if one is due, and returns when to look again if there is no news.
func (s *Service) makeJob(ctx context.Context, ids *job.IDs) time.Duration {
	now := time.Now()
	if w, why := s.due(now); why != "" {
		if err := s.send(ctx, w, ids.Next(now), now); err == nil {
			s.sent(w, why, now)
		} else if ctx.Err() == nil {
			s.failed(w, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.schedule.untilRoutine(time.Now()), retryInterval)
}

// due returns what to make a job of now and why, or "" for no job.
func (s *Service) due(now time.Time) (work, reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	template, why := s.schedule.next(now)
	w := work{candidate: template, urgent: s.schedule.urgent}
	w.aux, w.rsk = s.merged.fresh(now)
	if why != "" {
		s.schedule.urgent = false
	}
	return w, why
}

// send gives up after the job interval: by then there is a better job to send.
func (s *Service) send(ctx context.Context, w work, id job.ID, now time.Time) error {
	j, err := s.builder.Load().build(w, id, now)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.JobInterval.Std())
	defer cancel()
	return s.bus.Write(ctx, s.cfg.Kafka.Topics.Job, bus.Message{Value: j.AppendTo(nil)})
}

func (s *Service) sent(w work, why reason, now time.Time) {
	s.mu.Lock()
	s.schedule.sent(w.candidate, now)
	s.lastJob, s.failure = time.Now(), nil
	s.mu.Unlock()
	s.metrics.jobs.WithLabelValues(string(why)).Inc()
	s.metrics.height.Set(float64(w.Height))
	s.metrics.templateAge.Observe(time.Since(w.created).Seconds())

	level := zerolog.InfoLevel
	if why == routine {
		level = zerolog.DebugLevel
	}
	s.log.WithLevel(level).Int32("height", w.Height).Stringer("prev_hash", w.PrevHash).Str("reason", string(why)).
		Int("transactions", w.Transactions).Msg("job sent")
}

func (s *Service) failed(w work, err error) {
	s.mu.Lock()
	s.schedule.urgent = s.schedule.urgent || w.urgent
	s.failure = err
	s.mu.Unlock()
	s.metrics.failed.Inc()
	s.log.Error().Err(err).Int32("height", w.Height).Msg("job not sent")
}
