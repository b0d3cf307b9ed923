package switchapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

// Labels: client and chain are names of the configuration, path is one of the API's, source and reason are of the
// program.
type metrics struct {
	requests      *prometheus.CounterVec
	strangers     prometheus.Counter
	changes       *prometheus.CounterVec
	writes        *prometheus.CounterVec
	invalid       *prometheus.CounterVec
	pulls         *prometheus.CounterVec
	lastPull      *prometheus.GaugeVec
	requested     prometheus.Gauge
	registrations *prometheus.CounterVec
	decisions     *prometheus.CounterVec
	share         *prometheus.GaugeVec
	commands      prometheus.Counter
	unsent        prometheus.Counter
	lastCommand   prometheus.Gauge
	responses     *prometheus.CounterVec
	unlogged      prometheus.Counter
	damaged       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	set := telemetry.Metrics(reg, "switchapi")
	return &metrics{
		requests:      set.Counters("requests_total", "Requests of clients, by path and HTTP status.", "path", "code"),
		strangers:     set.Counter("unauthorized_total", "Requests without a token of ours."),
		changes:       set.Counters("changes_total", "Users that clients wanted changed, by what the answer said: written, accepted or refused.", "client", "state"),
		writes:        set.Counters("node_writes_total", "Users' nodes looked at, by what was done: created, changed, same, nothing or failed.", "result"),
		invalid:       set.Counters("invalid_total", "What others said and could not be read, or not be used.", "what"),
		pulls:         set.Counters("pulls_total", "Readings of the user system's maps, of quotes, hashrates, and requests for users.", "source", "result"),
		lastPull:      set.Gauges("last_pull_timestamp_seconds", "When a source was last read.", "source"),
		requested:     set.Gauge("registration_requests", "Users that servers wait for."),
		registrations: set.Counters("registrations_total", "Requests for users, by what became of them: registered, refused, late, or failed for now.", "result"),
		decisions:     set.Counters("decisions_total", "Decisions on users in auto mode, by reason.", "reason"),
		share:         set.Gauges("auto_share", "Part of the users in auto mode that is to mine a chain, 0 to 1.", "chain"),
		commands:      set.Counter("commands_total", "Commands sent to servers."),
		unsent:        set.Counter("commands_unsent_total", "Commands that Kafka did not take in time."),
		lastCommand:   set.Gauge("last_command_timestamp_seconds", "When servers were last commanded."),
		responses:     set.Counters("responses_total", "What servers said to commands: done or not_done, which is also what they say to a command that changes nothing.", "result"),
		unlogged:      set.Counter("unlogged_total", "Lines that could not be written to the audit log or the log of decisions."),
		damaged:       set.Counter("journal_damaged_total", "Journals with records that could not be read, so that accepted switches may be lost."),
	}
}

// watchWaiting has the waiting changes show as gauges.
func watchWaiting(reg prometheus.Registerer, w *waiting) {
	set := telemetry.Metrics(reg, "switchapi")
	set.GaugeFunc("accepted", "Users whose accepted switch is not in ZooKeeper yet.", func() float64 {
		accepted, _, _ := w.counts(time.Now())
		return float64(accepted)
	})
	set.GaugeFunc("chores", "Users whose node is still to be compared with lists and maps.", func() float64 {
		_, chores, _ := w.counts(time.Now())
		return float64(chores)
	})
	set.GaugeFunc("oldest_due_seconds", "For how long the switch has been due that waits for the longest.", func() float64 {
		_, _, since := w.counts(time.Now())
		if since.IsZero() {
			return 0
		}
		return time.Since(since).Seconds()
	})
}
