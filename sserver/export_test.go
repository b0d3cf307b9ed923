package sserver

import (
	"context"
	"math"
	"time"

	"btcpool/internal/chainwatch"
	"btcpool/internal/job"
	"btcpool/internal/upgrade"
	"btcpool/internal/userchain"
	"btcpool/sserver/operator"
)

// MaxWorkers is how many may be authorized on one connection.
const MaxWorkers = maxWorkers

// TakeJob handles j as if it had come from Kafka.
func (s *Service) TakeJob(j *job.StratumJob) { s.chains[0].takeJob(j.AppendTo(nil), time.Now()) }

// TakeJobOf is TakeJob, for one of several chains.
func (s *Service) TakeJobOf(chain int, j *job.StratumJob) {
	s.chains[chain].takeJob(j.AppendTo(nil), time.Now())
}

// SwitchAuto has users in auto mode mine something else.
func (s *Service) SwitchAuto(id string, shares userchain.Shares) (operator.Switched, error) {
	return operated{s}.SwitchAuto(id, shares)
}

// SetSubPool has a user's sessions work for a sub-pool, as if its node said so.
func (s *Service) SetSubPool(user, name string) {
	ctx := context.Background()
	_ = s.visit(ctx, s.allSessions(ctx), func(session *session) {
		if session.Workers[0].UserName == user && session.takeSubPool(name) {
			session.newWork(time.Now())
		}
	})
}

// Mined returns what a user mined last.
func (s *Service) Mined(user string) string { return s.board.nodes.Mined(user) }

// TellNode has a user's node say something else.
func (s *Service) TellNode(user, chain string) {
	is := chainwatch.Answer{Known: true, Value: userchain.Value{Chain: chain}}
	s.board.nodes.Remember([]chainwatch.Memory{{User: user, Answer: is, Read: time.Now()}})
	s.board.changed(user, is, time.Now())
}

// SettingsSaying is what s would tell a new process if it were a program of these versions.
func (s *Service) SettingsSaying(newest, oldest uint32) []byte {
	v := s.settings()
	v.newest, v.oldest = newest, oldest
	w := upgrade.NewWriter(0, time.Now(), nil)
	v.code(w)
	return w.Bytes()
}

// Serving reports whether sessions are served, or can be.
func (s *Service) Serving() bool { return s.inTerm.Load() }

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
func (s *Service) Epoch() uint32 { return s.epoch() }

// SetEpoch begins another.
func (s *Service) SetEpoch(epoch uint32) error { return s.setEpoch(epoch) }

// Hearing returns the sessions' difficulties in the order in which each loop tells them of a job.
func (s *Service) Hearing() (all [][]float64) {
	for _, l := range s.loops {
		told := make(chan []float64)
		l.Post(func() {
			var order []float64
			for i := range l.sessions {
				order = append(order, l.sessions[len(l.sessions)-1-i].Miner.announced().Float())
			}
			told <- order
		})
		all = append(all, <-told)
	}
	return all
}

// GiveIDs gives and takes back so many session ids.
func (s *Service) GiveIDs(n int) {
	now := time.Now()
	for range n {
		id, _ := s.ids.get(now)
		s.ids.put(id, now)
	}
}

// HoldAnswer has all loops have an answer that waits for a disk that never says a word.
func (s *Service) HoldAnswer() {
	s.onLoops(func(l *loop) { l.held = append(l.held, heldAnswer{session: new(session), seq: math.MaxUint64}) })
}

// Unnoted returns how many sessions have gone ahead and are others now without that it was noted.
func (s *Service) Unnoted() (n int) {
	for _, l := range s.loops {
		_ = l.Call(context.Background(), func() {
			for _, a := range l.ahead {
				for i, one := range a.sessions {
					if one != nil && !one.over && !one.since && a.sum(one) != a.sums[i] {
						n++
					}
				}
			}
		})
	}
	return n
}

// StateVersion is the newest that there is.
const StateVersion = stateVersion

// What the messages to a new process are.
const (
	MessageShared   = messageShared
	MessageSessions = messageSessions
	MessageEnd      = messageEnd
	MessageMade     = messageMade
)
