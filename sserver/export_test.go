package sserver

import (
	"context"
	"time"

	"btcpool/internal/job"
)

// MaxWorkers is how many may be authorized on one connection.
const MaxWorkers = maxWorkers

// TakeJob handles j as if it had come from Kafka.
func (s *Service) TakeJob(j *job.StratumJob) { s.takeJob(j.AppendTo(nil), time.Now()) }

// Sessions returns the number of connections.
func (s *Service) Sessions() int { return int(s.open.Load()) }

// ForgetBadInputs has a window's time pass for what sessions have sent.
func (s *Service) ForgetBadInputs() {
	ctx := context.Background()
	_ = s.visit(ctx, s.allSessions(ctx), func(session *session) { session.BadSince = session.BadSince.Add(-badWindow) })
}

// Agents returns the software of all sessions.
func (s *Service) Agents() (agents []string) {
	for _, session := range s.allSessions(context.Background()) {
		asked := make(chan struct{})
		session.post(func() {
			agents = append(agents, session.Agent)
			close(asked)
		})
		<-asked
	}
	return agents
}

// StartDifficulty is that of miners who wish for none.
func (c Config) StartDifficulty() float64 { return c.startDifficulty() }

// Epoch is that of the shares that are taken now.
func (s *Service) Epoch() uint32 { return s.shares.Epoch() }

// SetEpoch begins another.
func (s *Service) SetEpoch(epoch uint32) error { return s.shares.SetEpoch(epoch) }
