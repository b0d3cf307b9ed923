package sharelogger

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	written   prometheus.Counter
	dropped   *prometheus.CounterVec // reason: malformed, invalid, repeated
	failures  prometheus.Counter
	gaps      prometheus.Gauge
	commits   *prometheus.CounterVec // result: ok, failed, conflict
	flushTime prometheus.Histogram
	lag       prometheus.Gauge
	pending   prometheus.Gauge

	sealed, archived, removed     prometheus.Counter
	sealFailures, archiveFailures prometheus.Counter
	unsealed                      prometheus.Gauge
	sealTime                      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	set := telemetry.Metrics(reg, "sharelogger")
	m := &metrics{
		written: set.Counter("shares_written_total", "Shares on disk."),
		dropped: set.Counters("shares_dropped_total",
			"Messages not written: malformed, invalid, or repeated (delivered before, or on disk since before a restart).", "reason"),
		failures: set.Counter("file_errors_total", "Attempts to use the files that went wrong."),
		gaps: set.Gauge("file_gaps",
			"How often since the start a day's file lacked shares that had been written: somebody cut, replaced or removed it."),
		commits: set.Counters("group_commits_total",
			"Offsets left in the consumer group: ok, failed, or conflict when somebody else has left others since.", "result"),
		flushTime: set.Histogram("flush_seconds", "Duration of a flush, the disk's part included.",
			prometheus.ExponentialBuckets(0.001, 4, 8)), // 1 ms to 16 s
		lag:     set.Gauge("lag_seconds", "Age of the newest share when it was read from the topic."),
		pending: set.Gauge("pending_bytes", "Records waiting for the next flush."),

		sealed:          set.Counter("days_sealed_total", "Days sealed, those sealed again for late shares among them."),
		archived:        set.Counter("days_archived_total", "Sealed days found in the archive, or copied there and read back."),
		removed:         set.Counter("sources_removed_total", "Days' files removed because the sealed day was verified."),
		sealFailures:    set.Counter("seal_errors_total", "Attempts to seal a day that went wrong."),
		archiveFailures: set.Counter("archive_errors_total", "Attempts to copy a sealed day to the archive that went wrong."),
		unsealed: set.Gauge("days_unsealed",
			"Past days that are due to be sealed, archived or removed, and could not be: the log says why."),
		sealTime: set.Histogram("seal_seconds", "Duration of sealing a day.", prometheus.ExponentialBuckets(0.1, 4, 8)), // 0.1 s to 27 min
	}
	for _, reason := range []string{"malformed", "invalid", "repeated"} { // so that the first one is an increase
		m.dropped.WithLabelValues(reason)
	}
	return m
}
