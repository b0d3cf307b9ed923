package sserver

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

type metrics struct {
	sessions      [phases]level
	refused       *prometheus.CounterVec // reason
	disconnected  *prometheus.CounterVec // reason
	panics        prometheus.Counter
	loginsRefused *prometheus.CounterVec // reason
	resumed       prometheus.Counter
	bans          *prometheus.CounterVec // reason
	badLines      prometheus.Counter
	framesIgnored *prometheus.CounterVec // reason
	pauses        prometheus.Counter
	bytesIn       *prometheus.CounterVec // listener
	bytesOut      *prometheus.CounterVec // listener

	shares        map[share.Status]*atomic.Int64 // judged; all of share.Statuses
	miners        *prometheus.GaugeVec
	rejectsUnsaid prometheus.Counter
	solved        prometheus.Counter
	solvedMerged  *prometheus.CounterVec // chain
	shareSeconds  prometheus.Histogram

	jobs             *prometheus.CounterVec // result
	broadcastSeconds prometheus.Histogram
	jobHeight        prometheus.Gauge
	diffChanges      prometheus.Counter
	eventsDropped    prometheus.Counter

	adminRequests *prometheus.CounterVec // code
	commands      *prometheus.CounterVec // result
	notices       *prometheus.CounterVec // result
}

// level is a gauge that the server reads itself, too.
type level struct{ atomic.Int64 }

func (l *level) Inc() { l.Add(1) }
func (l *level) Dec() { l.Add(-1) }

func newMetrics(reg prometheus.Registerer, jobAge func() time.Duration) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "btcpool_sserver_" + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "btcpool_sserver_" + name, Help: help}, []string{label})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "btcpool_sserver_" + name, Help: help,
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		})
	}
	m := &metrics{
		refused:       counters("connections_refused_total", "Connections closed before they became sessions.", "reason"),
		disconnected:  counters("disconnects_total", "Sessions that this side ended.", "reason"),
		panics:        counter("panics_total", "Sessions that ended by a fault of the program."),
		loginsRefused: counters("logins_refused_total", "Authorizations refused.", "reason"),
		resumed:       counter("sessions_resumed_total", "Sessions that took up where one left that had ended."),
		bans:          counters("bans_total", "Addresses banned.", "reason"),
		badLines:      counter("bad_lines_total", "Lines that were no requests, and malformed frames."),
		framesIgnored: counters("frames_ignored_total", "Frames of agents that had no effect.", "reason"),
		pauses:        counter("pauses_total", "Times that a connection was made to wait because it sends too much."),
		bytesIn:       counters("received_bytes_total", "Bytes from miners.", "listener"),
		bytesOut:      counters("sent_bytes_total", "Bytes to miners, those included that were still queued at the end.", "listener"),

		rejectsUnsaid: counter("rejects_unlogged_total", "Rejected shares kept out of the share log because the miner sends too many."),
		solved:        counter("solved_total", "Shares that solve a block."),
		solvedMerged:  counters("solved_merged_total", "Shares that solve a block of another chain.", "chain"),
		shareSeconds:  seconds("answer_seconds", "From reading shares to answering them, durability included."),

		jobs:             counters("jobs_total", "Jobs received.", "result"),
		broadcastSeconds: seconds("broadcast_seconds", "From the start of a round to its last notification, for each loop's part of the miners."),
		jobHeight: f.NewGauge(prometheus.GaugeOpts{
			Name: "btcpool_sserver_job_height",
			Help: "Height of the latest job sent.",
		}),
		diffChanges:   counter("difficulty_changes_total", "Changes of a miner's difficulty."),
		eventsDropped: counter("events_dropped_total", "Events that Kafka could not take in time."),

		adminRequests: counters("admin_requests_total", "Requests of the admin API, by HTTP status.", "code"),
		commands:      counters("management_commands_total", "Messages of the management topic.", "result"),
		notices:       counters("management_replies_total", "Replies to management commands, and notifications.", "result"),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "btcpool_sserver_job_age_seconds", Help: "Age of the latest job sent."},
		func() float64 { return jobAge().Seconds() })
	m.miners = f.NewGaugeVec(prometheus.GaugeOpts{Name: "btcpool_sserver_miners", Help: "Miners with a job, those of agents included, by difficulty."}, []string{"difficulty"})
	for p := range phases {
		f.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "btcpool_sserver_sessions", Help: "Connections by state.",
			ConstLabels: prometheus.Labels{"state": p.String()},
		}, func() float64 { return float64(m.sessions[p].Load()) })
	}
	m.shares = make(map[share.Status]*atomic.Int64)
	byLabel := make(map[string][]*atomic.Int64)
	for _, s := range share.Statuses() {
		m.shares[s] = new(atomic.Int64)
		byLabel[s.Label()] = append(byLabel[s.Label()], m.shares[s])
	}
	for label, counts := range byLabel {
		f.NewCounterFunc(prometheus.CounterOpts{
			Name: "btcpool_sserver_shares_total", Help: "Shares judged, by Stratum code; 0 is accepted, stale is accepted though late.",
			ConstLabels: prometheus.Labels{"code": label},
		}, func() (sum float64) {
			for _, n := range counts {
				sum += float64(n.Load())
			}
			return sum
		})
	}
	return m
}

// spread is how many miners have which difficulty, from bitcoin.MinDifficulty on.
type spread [bitcoin.MaxDifficulty - bitcoin.MinDifficulty + 1]int32

func (s *spread) add(m *miner) { s[m.announced()-bitcoin.MinDifficulty]++ }

// spread shows now in place of before, which becomes now.
func (m *metrics) spread(before, now *spread) {
	for i, n := range now {
		if n == before[i] {
			continue
		}
		d := bitcoin.MinDifficulty + bitcoin.Difficulty(i)
		m.miners.WithLabelValues(string(d.AppendTo(nil))).Add(float64(n - before[i]))
	}
	*before = *now
}

func (m *metrics) judged(s share.Status) { m.shares[s.Known()].Add(1) }
