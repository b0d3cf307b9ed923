// Package jobmaker is the service that turns raw block templates into Stratum
// jobs: it reads the raw template topic and the light one ahead of it, decides by
// height, contents and age which template is best and when miners need a new job,
// and writes the job topic. The work of chains that are mined along comes from topics of its own.
//
// Of the jobmakers that share a lock in ZooKeeper one makes jobs; the others
// read along and begin within 5 s of its death.
package jobmaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	"btcpool/internal/service"
)

const (
	// The newest templates are enough to begin with: several, because the
	// last one can be of a node that lags behind.
	firstTemplates = 5
	firstWorks     = 1 // of other chains
	warnSkew       = 3 * time.Second
	retryInterval  = time.Second // after a job that failed, or while there is no template
	logInterval    = 10 * time.Second
)

// Service is a jobmaker.
type Service struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *metrics
	bus      *bus.Client
	registry *registry.Registry
	network  bitcoin.Network
	builder  atomic.Pointer[builder] // another one after each update of a sub-pool
	started  time.Time

	dropLog, skewLog rate.Sometimes

	caughtUp chan struct{} // closed when the templates are known that were there before us
	news     chan struct{} // something was taken in; holds one

	mu           sync.Mutex
	schedule     schedule
	merged       mergedMining
	leading      bool      // jobs are ours to make
	lastTemplate time.Time // when one was accepted
	lastJob      time.Time // when one was sent
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
	client, err := bus.New(cfg.Kafka, deps)
	if err != nil {
		return nil, err
	}
	reg, err := registry.New(cfg.ZooKeeper, deps)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg:      cfg,
		log:      deps.Log,
		bus:      client,
		registry: reg,
		network:  network,
		started:  time.Now(),
		dropLog:  rate.Sometimes{Interval: logInterval},
		skewLog:  rate.Sometimes{Interval: logInterval},
		caughtUp: make(chan struct{}),
		news:     make(chan struct{}, 1),
		schedule: schedule{
			interval:  cfg.JobInterval.Std(),
			life:      cfg.GBTLifetime.Std(),
			emptyLife: cfg.EmptyGBTLifetime.Std(),
			maxSkew:   cfg.MaxTemplateSkew.Std(),
		},
		merged: mergedMining{auxNotify: cfg.AuxNotify, rskNotify: cfg.RSKNotify},
	}
	s.builder.Store(&builder)
	s.metrics = newMetrics(deps.Metrics, s.sinceLastJob)
	return s, nil
}

// Run makes jobs until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.bus.Close()
	topics := s.cfg.Kafka.Topics
	light := job.LightTopic(topics.RawGBT)
	all := []string{topics.RawGBT, light, topics.Job, topics.AuxWork, topics.RSKWork}
	all = slices.DeleteFunc(all, func(topic string) bool { return topic == "" })
	if err := s.bus.EnsureTopics(ctx, all...); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.read(ctx, topics.RawGBT, firstTemplates, s.takeTemplate, bus.CaughtUp(func() { close(s.caughtUp) }))
	})
	g.Go(func() error { return s.read(ctx, light, firstTemplates, s.takeLight) })
	if topics.AuxWork != "" {
		g.Go(func() error { return s.read(ctx, topics.AuxWork, firstWorks, s.takeAux) })
	}
	if topics.RSKWork != "" {
		g.Go(func() error { return s.read(ctx, topics.RSKWork, firstWorks, s.takeRSK) })
	}
	g.Go(func() error { return s.watchSubPools(ctx) })
	g.Go(func() error { return s.lead(ctx) })
	return g.Wait()
}

// Ready returns nil while there are fresh templates and, if it is our turn,
// jobs made of them.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastTemplate.IsZero() {
		return errors.New("no template yet")
	}
	if age := time.Since(s.lastTemplate); age > s.cfg.GBTLifetime.Std() {
		return fmt.Errorf("no template for %s", age.Round(time.Second))
	}
	if s.standingBy() {
		return nil
	}
	if s.lastJob.IsZero() {
		return errors.New("no job sent yet")
	}
	if age := time.Since(s.lastJob); age > 2*s.cfg.JobInterval.Std() {
		return fmt.Errorf("no job sent for %s", age.Round(time.Second))
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

func (s *Service) standingBy() bool { return s.cfg.LeaderLockPath != "" && !s.leading }

// read passes the last messages of topic, and those to come, to take.
func (s *Service) read(ctx context.Context, topic string, last int, take func(message []byte, now time.Time), opts ...bus.ReadOption) error {
	return s.bus.Read(ctx, topic, bus.Last(last), func(m bus.Message) error {
		take(m.Value, time.Now())
		select {
		case s.news <- struct{}{}:
		default: // there are some already
		}
		return nil
	}, opts...)
}

// takeTemplate takes in a message of the raw template topic. It is a duplicate
// when the light one has come before it.
func (s *Service) takeTemplate(message []byte, now time.Time) {
	raw, err := job.ParseRawGBT(message)
	r := invalid
	if err == nil {
		r, err = s.judge(raw, nil, now)
	}
	s.judged(s.cfg.Kafka.Topics.RawGBT, r, err)
}

// takeLight takes in a message of the light template topic.
func (s *Service) takeLight(message []byte, now time.Time) {
	light, err := job.ParseLightGBT(message)
	r := invalid
	if err == nil {
		r, err = s.judge(job.RawGBT{CreatedAt: light.CreatedAt, Hash: light.Hash}, light.Template, now)
	}
	s.judged(job.LightTopic(s.cfg.Kafka.Topics.RawGBT), r, err)
}

func (s *Service) judged(topic string, r result, err error) {
	s.metrics.templates.WithLabelValues(string(r)).Inc()
	s.drop(topic, r, err)
}

// judge takes in a template unless something is wrong with it. When it is nil it
// is read from raw's response, once the rest of raw says that it can be of use.
func (s *Service) judge(raw job.RawGBT, template *job.Template, now time.Time) (result, error) {
	created := time.Unix(int64(raw.CreatedAt), 0)
	age := now.Sub(created)
	s.mu.Lock()
	r := s.schedule.admit(raw.Hash, created, now)
	s.mu.Unlock()
	if r != accepted {
		return r, fmt.Errorf("made %s ago", age.Round(time.Second))
	}
	if age.Abs() >= warnSkew && s.isCaughtUp() {
		s.skewLog.Do(func() { s.log.Warn().Dur("age_ms", age).Msg("template is late, or clocks differ") })
	}
	if template == nil {
		var err error
		if template, err = job.ParseTemplate(raw.Response); err != nil {
			return invalid, err
		}
	}
	if err := template.CheckNetwork(s.network); err != nil {
		return wrongNetwork, err
	}
	if ahead := time.Unix(int64(max(template.CurTime, template.MinTime)), 0).Sub(now); ahead > bitcoin.MaxFutureBlockTime {
		return farFuture, fmt.Errorf("time is %s ahead of ours", ahead.Round(time.Second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r = s.schedule.add(candidate{Template: template, hash: raw.Hash, created: created, fromPool: raw.FromPool != ""}, now)
	if r != accepted {
		return r, fmt.Errorf("height %d on %s", template.Height, template.PrevHash)
	}
	s.lastTemplate = now
	return accepted, nil
}

// isCaughtUp reports whether what is read now was not there before us.
func (s *Service) isCaughtUp() bool {
	select {
	case <-s.caughtUp:
		return true
	default:
		return false
	}
}

func (s *Service) takeAux(message []byte, now time.Time) {
	s.takeWork(s.cfg.Kafka.Topics.AuxWork, "aux", (*mergedMining).addAux, message, now)
}

func (s *Service) takeRSK(message []byte, now time.Time) {
	s.takeWork(s.cfg.Kafka.Topics.RSKWork, "rsk", (*mergedMining).addRSK, message, now)
}

func (s *Service) takeWork(topic, kind string, add func(*mergedMining, []byte, time.Time) (result, bool, error), message []byte, now time.Time) {
	s.mu.Lock()
	r, urgent, err := add(&s.merged, message, now)
	s.schedule.urgent = s.schedule.urgent || urgent
	s.mu.Unlock()
	s.metrics.works.WithLabelValues(kind, string(r)).Inc()
	s.drop(topic, r, err)
}

// drop says why a message of topic was not taken, if it was not.
func (s *Service) drop(topic string, r result, err error) {
	switch r {
	case accepted:
	case duplicate: // as it should be with several gbtmakers or auxmakers
	default:
		s.dropLog.Do(func() {
			s.log.Warn().Err(err).Str("topic", topic).Str("result", string(r)).Msg("message dropped")
		})
	}
}

// lead makes jobs whenever it is our turn, until ctx ends.
func (s *Service) lead(ctx context.Context) error {
	for {
		err := s.registry.Lease(ctx, s.cfg.IDLeasePath, uint8(s.cfg.ServerID), func(ctx context.Context, id uint8) error {
			ids := job.NewIDs(id)
			return s.registry.Lead(ctx, s.cfg.LeaderLockPath, func(ctx context.Context) error {
				s.makeJobs(ctx, ids)
				return nil
			})
		})
		if !errors.Is(err, registry.ErrLost) {
			return err
		}
		s.log.Warn().Err(err).Msg("id lost")
	}
}

// makeJobs makes a job whenever one is due, until ctx ends. It waits for the
// templates that were there before, or the first job might be for a block that
// is found.
func (s *Service) makeJobs(ctx context.Context, ids *job.IDs) {
	s.setLeading(true)
	defer s.setLeading(false)
	select {
	case <-s.caughtUp:
	case <-ctx.Done():
		return
	}
	for {
		timer := time.NewTimer(s.makeJob(ctx, ids))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.news:
			timer.Stop()
		case <-timer.C:
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

// makeJob builds and sends a job if one is due, and returns when to look again
// if there is no news.
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
	s.lastJob = time.Now()
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
	s.mu.Unlock()
	s.metrics.failed.Inc()
	s.log.Error().Err(err).Int32("height", w.Height).Msg("job not sent")
}
