package agentproxy

import (
	"time"

	"github.com/rs/zerolog"
)

const (
	// workedShares is how many shares show that a machine works, and how often it should send one.
	workedShares = 10
	// silentIntervals of that without a share are no chance any more: it happens once in 500 million times.
	silentIntervals = 20
)

// record is what is remembered of a machine that has left.
type record struct {
	worked
	reconnected time.Time // when it was asked to connect again
}

// worked is what is known of a machine's work before its login, or before it left.
type worked struct {
	last time.Time // its last share; zero: it has not worked
	rate float64   // its hashrate then
}

// worked returns what is known of the miner's work by now.
func (m *miner) worked() worked {
	c := &m.counts
	var w worked
	if m.before != nil {
		w = m.before.worked
	}
	if !c.lastShare.IsZero() {
		w.last = c.lastShare
	}
	if time := c.lastShare.Sub(c.since).Seconds(); c.accepted+c.easy >= workedShares && time > 0 {
		// The meter is too high right after a share that is a rare one.
		w.rate = min(c.work/time, c.hashes.perSecond(c.hashes.at))
	}
	if w.rate <= 0 {
		return worked{}
	}
	return w
}

// fallSilent notes that a miner which has worked sends no shares any more, although it could.
func (m *miner) fallSilent() {
	s := m.svc
	least := s.cfg.SilentAfter.Std()
	since := m.counts.lastShare
	if m.linked.After(since) {
		since = m.linked
	}
	if m.silent || m.link == nil || least <= 0 || s.now.Sub(since) <= least {
		return
	}
	w := m.worked()
	interval := time.Duration(min(m.told*(1<<32)/w.rate, 1e6) * float64(time.Second))
	if w.last.IsZero() || s.now.Sub(since) <= silentIntervals*interval {
		return
	}
	m.silent = true
	s.silent++
	s.silences.say(s, func(e *zerolog.Event) { m.identify(e, w).Msg("machine is silent") })
}

// works notes that a miner has sent a share.
func (m *miner) works() {
	if !m.silent {
		return
	}
	s := m.svc
	m.silent = false
	s.silent--
	s.returns.say(s, func(e *zerolog.Event) { m.identify(e, m.worked()).Msg("machine works again") })
}

func (m *miner) identify(e *zerolog.Event, w worked) *zerolog.Event {
	return e.Str("account", m.goal.account()).Str("worker", m.worker).Stringer("ip", m.ip).
		Time("last_share", w.last).Float64("difficulty", m.told).Float64("hashrate", w.rate)
}

// missing notes machines that have left long ago, and worked before.
func (s *Service) missing() {
	if s.cfg.SilentAfter == 0 {
		s.forgetSilence()
	}
	missing := 0
	for i := range s.gone.workers {
		w := &s.gone.workers[i]
		if !w.Silent && w.record != nil && w.record.rate > 0 && s.cfg.SilentAfter > 0 && s.now.Sub(w.left) > s.cfg.SilentAfter.Std() {
			w.Silent = true
			s.silences.say(s, func(e *zerolog.Event) {
				e.Str("account", w.Account).Str("worker", w.Name).Str("ip", w.IP).Time("last_share", w.record.last).
					Float64("difficulty", w.Difficulty).Float64("hashrate", w.record.rate).Msg("machine has left and not come back")
			})
		}
		if w.Silent {
			missing++
		}
	}
	s.metrics.silent.WithLabelValues("connected").Set(float64(s.silent))
	s.metrics.silent.WithLabelValues("gone").Set(float64(missing))
}

// forgetSilence is for when nobody is to be told any more.
func (s *Service) forgetSilence() {
	s.silent = 0
	for _, m := range s.miners {
		m.silent = false
	}
	for i := range s.gone.workers {
		s.gone.workers[i].Silent = false
	}
}

const (
	// maxTold machines are named in the log within a toldWindow. Of more there is one line: when power or a pool is away, all
	// machines are silent.
	maxTold    = 20
	toldWindow = time.Minute
)

// fewLines logs what may happen to one machine or to all.
type fewLines struct {
	what  string // has happened
	began time.Time
	lines int
	more  int
}

func (f *fewLines) say(s *Service, line func(*zerolog.Event)) {
	f.sum(s)
	switch {
	case f.lines == 0:
		f.began, f.lines = s.now, 1
	case f.lines < maxTold:
		f.lines++
	default:
		f.more++
		return
	}
	line(s.log.Warn())
}

// sum says how many there were beyond those that were named, at the end of a window.
func (f *fewLines) sum(s *Service) {
	if s.now.Sub(f.began) < toldWindow {
		return
	}
	if f.more > 0 {
		s.log.Warn().Int("machines", f.more).Str("what", f.what).Msg("more machines than are named")
	}
	f.lines, f.more = 0, 0
}
