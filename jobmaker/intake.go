package jobmaker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
)

const (
	// The newest messages are enough to begin with. Several templates, because the last one can be of a node that lags
	// behind.
	firstTemplates = 5
	firstWorks     = 1
	// warnSkew is the age from which on a template is worth a line in the log.
	warnSkew    = 3 * time.Second
	logInterval = 10 * time.Second
)

// A source is a topic that jobs are made of.
type source struct {
	topic   string
	first   int // how many of the newest messages are read to begin with
	take    func(message []byte, now time.Time) (result, error)
	results *prometheus.CounterVec // counts what take returns
	options []bus.ReadOption
}

// sources returns the topics that are configured.
func (s *Service) sources() []source {
	topics := s.cfg.Kafka.Topics
	works := func(kind string) *prometheus.CounterVec {
		return s.metrics.works.MustCurryWith(prometheus.Labels{"kind": kind})
	}
	caughtUp := bus.CaughtUp(func() { close(s.caughtUp) })
	all := []source{
		{topics.RawGBT, firstTemplates, s.takeTemplate, s.metrics.templates, []bus.ReadOption{caughtUp}},
		{job.LightTopic(topics.RawGBT), firstTemplates, s.takeLight, s.metrics.templates, nil},
		{topics.AuxWork, firstWorks, s.takeWork(s.merged.addAux), works("aux"), nil},
		{topics.RSKWork, firstWorks, s.takeWork(s.merged.addRSK), works("rsk"), nil},
	}
	return slices.DeleteFunc(all, func(from source) bool { return from.topic == "" })
}

// read takes in the last messages of a topic, and those to come.
func (s *Service) read(ctx context.Context, from source) error {
	return s.bus.Read(ctx, from.topic, bus.Last(from.first), func(m bus.Message) error {
		r, err := from.take(m.Value, time.Now())
		from.results.WithLabelValues(string(r)).Inc()
		// With several gbtmakers or auxmakers duplicates are as they should be.
		if r != accepted && r != duplicate {
			s.dropLog.Do(func() {
				s.log.Warn().Err(err).Str("topic", from.topic).Str("result", string(r)).Msg("message dropped")
			})
		}
		s.news.Ring()
		return nil
	}, from.options...)
}

// takeTemplate takes in a message of the raw template topic. It is a duplicate when the light one has come before it.
func (s *Service) takeTemplate(message []byte, now time.Time) (result, error) {
	raw, err := job.ParseRawGBT(message)
	if err != nil {
		return invalid, err
	}
	return s.judge(raw, nil, now)
}

// takeLight takes in a message of the light template topic.
func (s *Service) takeLight(message []byte, now time.Time) (result, error) {
	light, err := job.ParseLightGBT(message)
	if err != nil {
		return invalid, err
	}
	return s.judge(job.RawGBT{CreatedAt: light.CreatedAt, Hash: light.Hash, Left: light.Left, Work: light.Work}, light.Template, now)
}

// judge takes in a template unless something is wrong with it. When it is nil it is read from raw's response, once the
// rest of raw says that it can be of use.
func (s *Service) judge(raw job.RawGBT, template *job.Template, now time.Time) (result, error) {
	created := time.Unix(int64(raw.CreatedAt), 0)
	age := now.Sub(created)
	s.mu.Lock()
	created, r := s.schedule.admit(raw.Hash, created, now)
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
	if s.network.EasyBlocks() && template.Bits == s.network.Params.PowLimitBits {
		template.MinTime = max(template.MinTime, template.CurTime) // an earlier block would not be easy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r = s.schedule.add(candidate{
		Template: template, hash: raw.Hash, created: created, fromPool: raw.FromPool != "", left: raw.Left, work: raw.Work,
	}, now)
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

// takeWork returns what takes in the work of one kind of other chains.
func (s *Service) takeWork(add func([]byte, time.Time) (result, bool, error)) func([]byte, time.Time) (result, error) {
	return func(message []byte, now time.Time) (result, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		r, urgent, err := add(message, now)
		s.schedule.urgent = s.schedule.urgent || urgent
		return r, err
	}
}
