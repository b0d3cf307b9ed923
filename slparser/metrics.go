package slparser

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	shares       prometheus.Counter
	dropped      *prometheus.CounterVec // reason: malformed, invalid, other_user
	readErrors   prometheus.Counter
	damages      prometheus.Counter
	damaged      prometheus.Gauge
	torn         prometheus.Gauge
	lateFiles    prometheus.Counter
	daysWaiting  prometheus.Gauge
	daysShort    prometheus.Gauge
	rows         prometheus.Counter
	flushErrors  prometheus.Counter
	flushSeconds prometheus.Histogram
	requests     prometheus.Counter
	newest       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	set := telemetry.Metrics(reg, "slparser")
	m := &metrics{
		shares:      set.Counter("shares_total", "Shares counted; after a start those of the whole day again."),
		dropped:     set.Counters("shares_dropped_total", "Records not counted.", "reason"),
		readErrors:  set.Counter("read_errors_total", "Attempts to read a file that went wrong."),
		damages:     set.Counter("damages_total", "Stretches of files that were left out because they are damaged."),
		damaged:     set.Gauge("damaged_bytes", "Bytes of files that were left out because they are damaged."),
		torn:        set.Gauge("torn_bytes", "Bytes at the ends of files that are no whole flush."),
		lateFiles:   set.Counter("late_files_total", "Files of past days that held more than was counted, and were counted again."),
		daysWaiting: set.Gauge("days_waiting", "Days whose files hold more than was counted, and wait for others to be done."),
		daysShort:   set.Gauge("days_short", "Days of which the database has more than their files hold."),
		rows:        set.Counter("rows_written_total", "Rows of statistics written."),
		flushErrors: set.Counter("flush_failures_total", "Writes to the database that went wrong and are repeated."),
		flushSeconds: set.Histogram("flush_seconds", "Duration of one write of all that changed.",
			prometheus.ExponentialBuckets(0.001, 4, 8)), // 1 ms to 16 s
		requests: set.Counter("http_requests_total", "Answered requests."),
		newest:   set.Gauge("newest_share_timestamp_seconds", "Time of the newest share counted."),
	}
	for _, reason := range []string{"malformed", "invalid", "other_user"} { // so that the first one is an increase
		m.dropped.WithLabelValues(reason)
	}
	return m
}
