package sserver

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/telemetry"
)

type metrics struct {
	sessions      [phases]atomic.Int64
	refused       *prometheus.CounterVec // reason
	disconnected  *prometheus.CounterVec // reason
	panics        prometheus.Counter
	loginsRefused *prometheus.CounterVec // reason
	misnamed      *prometheus.CounterVec // credited
	resumed       prometheus.Counter
	bans          *prometheus.CounterVec // reason
	culprits      *prometheus.CounterVec // kind
	badLines      prometheus.Counter
	framesIgnored *prometheus.CounterVec // reason
	framesCut     prometheus.Counter
	pauses        prometheus.Counter
	bytesIn       *prometheus.CounterVec // listener
	bytesOut      *prometheus.CounterVec // listener

	solvedMerged *prometheus.CounterVec // chain
	shareSeconds prometheus.Histogram
	diffChanges  prometheus.Counter
}

var buckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}

func newMetrics(reg prometheus.Registerer, twins *twins) *metrics {
	set := telemetry.Metrics(reg, "sserver")
	m := &metrics{
		refused:       set.Counters("connections_refused_total", "Connections closed before they became sessions.", "reason"),
		disconnected:  set.Counters("disconnects_total", "Sessions that this side ended.", "reason"),
		panics:        set.Counter("panics_total", "Sessions that ended by a fault of the program."),
		loginsRefused: set.Counters("logins_refused_total", "Authorizations refused.", "reason"),
		misnamed:      set.Counters("shares_misnamed_total", "Shares for a worker that had not logged in on their connection, by who is credited: the worker, which is logged in by it, another one of its account, or nobody.", "credited"),
		resumed:       set.Counter("sessions_resumed_total", "Sessions that took up where one left that had ended."),
		bans:          set.Counters("bans_total", "Addresses banned.", "reason"),
		culprits:      set.Counters("culprits_total", "Sessions ended, workers and agents' miners refused for a while, for bad logins or shares, without a ban of their address.", "kind"),
		badLines:      set.Counter("bad_lines_total", "Lines that were no requests, and malformed frames."),
		framesIgnored: set.Counters("frames_ignored_total", "Frames of agents that had no effect.", "reason"),
		framesCut:     set.Counter("frames_cut_total", "Frames of agents longer than any needs to be, which were skipped, or cut if they register a miner."),
		pauses:        set.Counter("pauses_total", "Times that a connection was made to wait because it sends too much."),
		bytesIn:       set.Counters("received_bytes_total", "Bytes from miners.", "listener"),
		bytesOut:      set.Counters("sent_bytes_total", "Bytes to miners, those included that were still queued at the end.", "listener"),

		solvedMerged: set.Counters("solved_merged_total", "Shares that solve a block of another chain.", "chain"),
		shareSeconds: set.Histogram("answer_seconds", "From reading shares to answering them, durability included.", buckets),
		diffChanges:  set.Counter("difficulty_changes_total", "Changes of a miner's difficulty."),
	}
	set.GaugeFunc("twins", "Other processes that serve under this server's id.", func() float64 {
		all, _ := twins.count()
		return float64(all)
	})
	for p := range phases {
		telemetry.Metrics(labelled(reg, "state", p.String()), "sserver").GaugeFunc("sessions", "Connections by state.",
			func() float64 { return float64(m.sessions[p].Load()) })
	}
	return m
}

// chainMetrics are those of one chain.
type chainMetrics struct {
	shares        map[share.Status]*atomic.Int64 // judged; all of share.Statuses
	miners        *prometheus.GaugeVec
	rejectsUnsaid prometheus.Counter
	solved        prometheus.Counter

	jobs             *prometheus.CounterVec // result
	noSubPool        *prometheus.CounterVec // of
	noGrand          prometheus.Counter
	broadcastSeconds prometheus.Histogram
	jobHeight        prometheus.Gauge
	eventsDropped    prometheus.Counter
}

func newChainMetrics(reg prometheus.Registerer, c *chain) *chainMetrics {
	set := telemetry.Metrics(reg, "sserver")
	m := &chainMetrics{
		miners:        set.Gauges("miners", "Miners with a job, those of agents included, by difficulty.", "difficulty"),
		rejectsUnsaid: set.Counter("rejects_unlogged_total", "Rejected shares kept out of the share log because the miner sends too many."),
		solved:        set.Counter("solved_total", "Shares that solve a block."),

		jobs:             set.Counters("jobs_total", "Jobs received.", "result"),
		noGrand:          set.Counter("grand_coinbase_missing_total", "Jobs that clients with a pool of their own were not sent, as they have no room for them."),
		noSubPool:        set.Counters("sub_pool_missing_total", "Jobs without the coinbase of the sub-pool that it was to be, so that miners work for another: received, of the server's sub-pool, and sent, of a user's.", "of"),
		broadcastSeconds: set.Histogram("broadcast_seconds", "From the start of a round to its last notification, for each loop's part of the miners.", buckets),
		jobHeight:        set.Gauge("job_height", "Height of the latest job sent."),
		eventsDropped:    set.Counter("events_dropped_total", "Events that Kafka could not take in time."),
	}
	set.GaugeFunc("job_age_seconds", "Age of the latest job sent.", func() float64 { return c.jobAge().Seconds() })
	if c.name != "" {
		set.GaugeFunc("chain_sessions", "Sessions that are logged in and work on the chain.", func() float64 { return float64(c.miners.Load()) })
		set.GaugeFunc("chain_ready", "Whether a chain can be mined.", func() float64 {
			if c.err() != nil {
				return 0
			}
			return 1
		})
	}
	m.shares = make(map[share.Status]*atomic.Int64)
	byLabel := make(map[string][]*atomic.Int64)
	for _, s := range share.Statuses() {
		m.shares[s] = new(atomic.Int64)
		byLabel[s.Label()] = append(byLabel[s.Label()], m.shares[s])
	}
	for label, counts := range byLabel {
		telemetry.Metrics(labelled(reg, "code", label), "sserver").CounterFunc("shares_total",
			"Shares judged, by Stratum code; 0 is accepted, stale is accepted though late.",
			func() (sum float64) {
				for _, n := range counts {
					sum += float64(n.Load())
				}
				return sum
			})
	}
	return m
}

func labelled(reg prometheus.Registerer, name, value string) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{name: value}, reg)
}

// spread is how many miners have which difficulty, from bitcoin.MinDifficulty on.
type spread [bitcoin.MaxDifficulty - bitcoin.MinDifficulty + 1]int32

func (s *spread) add(m *miner) { s[m.announced()-bitcoin.MinDifficulty]++ }

// spread shows now in place of before, which becomes now.
func (m *chainMetrics) spread(before, now *spread) {
	for i, n := range now {
		if n == before[i] {
			continue
		}
		d := bitcoin.MinDifficulty + bitcoin.Difficulty(i)
		m.miners.WithLabelValues(string(d.AppendTo(nil))).Add(float64(n - before[i]))
	}
	*before = *now
}

func (m *chainMetrics) judged(s share.Status) { m.shares[s.Known()].Add(1) }
