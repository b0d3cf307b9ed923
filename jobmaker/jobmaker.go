// Package jobmaker is the service that turns raw block templates into Stratum
// jobs: it reads the raw template topic, decides by height, contents and age
// which template is best and when miners need a new job, and writes the job
// topic.
package jobmaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/service"
)

const (
	// The newest templates are enough to begin with: several, because the
	// last one can be of a node that lags behind.
	firstTemplates = 5
	warnSkew       = 3 * time.Second
	retryInterval  = time.Second // after a job that failed, or while there is no template
	logInterval    = 10 * time.Second
)

// Service is a jobmaker.
type Service struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	bus     *bus.Client
	builder builder

	// Owned by makeJobs.
	schedule         schedule
	ids              *job.IDs
	dropLog, skewLog rate.Sometimes

	started time.Time

	mu           sync.Mutex
	lastTemplate time.Time // when one was accepted
	lastJob      time.Time // when one was sent
}

// New returns a jobmaker; it connects to nothing.
func New(cfg Config, deps service.Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	script, err := cfg.payoutScript()
	if err != nil {
		return nil, err
	}
	client, err := bus.New(cfg.Kafka, deps)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg,
		log: deps.Log,
		bus: client,
		builder: builder{
			payoutScript: script,
			coinbaseText: cfg.CoinbaseText,
			blockVersion: cfg.BlockVersion,
		},
		schedule: schedule{
			interval:  cfg.JobInterval.Std(),
			life:      cfg.GBTLifetime.Std(),
			emptyLife: cfg.EmptyGBTLifetime.Std(),
			maxSkew:   cfg.MaxTemplateSkew.Std(),
		},
		ids:     job.NewIDs(uint8(cfg.ServerID)),
		dropLog: rate.Sometimes{Interval: logInterval},
		skewLog: rate.Sometimes{Interval: logInterval},
		started: time.Now(),
	}
	s.metrics = newMetrics(deps.Metrics, s.sinceLastJob)
	return s, nil
}

// Run makes jobs until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.bus.Close()
	messages := make(chan []byte)
	caughtUp := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.read(ctx, messages, func() { close(caughtUp) }) })
	g.Go(func() error { return s.makeJobs(ctx, messages, caughtUp) })
	return g.Wait()
}

// Ready returns nil while there are fresh templates and jobs made of them.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastTemplate.IsZero() {
		return errors.New("no template yet")
	}
	if age := time.Since(s.lastTemplate); age > s.cfg.GBTLifetime.Std() {
		return fmt.Errorf("no template for %s", age.Round(time.Second))
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
	if s.lastJob.IsZero() {
		return time.Since(s.started).Seconds()
	}
	return time.Since(s.lastJob).Seconds()
}

// read passes raw templates on.
func (s *Service) read(ctx context.Context, messages chan<- []byte, caughtUp func()) error {
	topics := s.cfg.Kafka.Topics
	if err := s.bus.EnsureTopics(ctx, topics.RawGBT, topics.Job); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return s.bus.Read(ctx, topics.RawGBT, bus.Last(firstTemplates), func(m bus.Message) error {
		select {
		case messages <- m.Value:
		case <-ctx.Done():
		}
		return nil
	}, bus.CaughtUp(caughtUp))
}

// makeJobs makes a job whenever one is due. It waits for the templates that
// were there before, or the first job might be for a block that is found.
func (s *Service) makeJobs(ctx context.Context, messages <-chan []byte, caughtUp <-chan struct{}) error {
	timer := time.NewTimer(retryInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case message := <-messages:
			s.take(message, time.Now(), caughtUp == nil)
		case <-caughtUp:
			caughtUp = nil
		case <-timer.C:
		}
		if caughtUp == nil {
			s.makeJob(ctx, time.Now())
		}
		timer.Reset(max(s.schedule.untilRoutine(time.Now()), retryInterval))
	}
}

// take takes in a message of the raw template topic; live says that it was not
// there before us.
func (s *Service) take(message []byte, now time.Time, live bool) {
	r, err := s.judge(message, now, live)
	s.metrics.templates.WithLabelValues(string(r)).Inc()
	switch r {
	case accepted:
		s.mu.Lock()
		s.lastTemplate = now
		s.mu.Unlock()
	case duplicate: // as it should be with several gbtmakers
	default:
		s.dropLog.Do(func() { s.log.Warn().Err(err).Str("result", string(r)).Msg("template dropped") })
	}
}

func (s *Service) judge(message []byte, now time.Time, live bool) (result, error) {
	raw, err := job.ParseRawGBT(message)
	if err != nil {
		return invalid, err
	}
	created := time.Unix(int64(raw.CreatedAt), 0)
	age := now.Sub(created)
	if r := s.schedule.admit(raw.Hash, created, now); r != accepted {
		return r, fmt.Errorf("made %s ago", age.Round(time.Second))
	}
	if live && age.Abs() >= warnSkew {
		s.skewLog.Do(func() { s.log.Warn().Dur("age_ms", age).Msg("template is late, or clocks differ") })
	}
	template, err := job.ParseTemplate(raw.Response)
	if err != nil {
		return invalid, err
	}
	r := s.schedule.add(candidate{Template: template, hash: raw.Hash, created: created}, now)
	if r != accepted {
		return r, fmt.Errorf("height %d", template.Height)
	}
	return accepted, nil
}

// makeJob builds and sends a job if one is due.
func (s *Service) makeJob(ctx context.Context, now time.Time) {
	template, why := s.schedule.next(now)
	if why == "" {
		return
	}
	if err := s.send(ctx, template, now); err != nil {
		if ctx.Err() == nil {
			s.metrics.failed.Inc()
			s.log.Error().Err(err).Int32("height", template.Height).Msg("job not sent")
		}
		return
	}
	s.schedule.sent(template, now)
	s.mu.Lock()
	s.lastJob = time.Now()
	s.mu.Unlock()
	s.metrics.jobs.WithLabelValues(string(why)).Inc()
	s.metrics.height.Set(float64(template.Height))
	s.metrics.templateAge.Observe(time.Since(template.created).Seconds())

	level := zerolog.InfoLevel
	if why == routine {
		level = zerolog.DebugLevel
	}
	s.log.WithLevel(level).Int32("height", template.Height).Str("reason", string(why)).
		Int("transactions", len(template.TxIDs)).Msg("job sent")
}

// send gives up after the job interval: by then there is a better job to send.
func (s *Service) send(ctx context.Context, template candidate, now time.Time) error {
	j, err := s.builder.build(template.Template, template.hash, s.ids.Next(now), now)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.JobInterval.Std())
	defer cancel()
	return s.bus.Write(ctx, s.cfg.Kafka.Topics.Job, bus.Message{Value: j.AppendTo(nil)})
}
