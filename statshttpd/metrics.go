package statshttpd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	shares       *prometheus.CounterVec // result: accepted, stale, rejected
	dropped      *prometheus.CounterVec // reason: malformed, invalid, duplicate, other_user, old, future, workers_full
	events       *prometheus.CounterVec // result: ok, malformed
	jobs         *prometheus.CounterVec // result: ok, malformed
	flushes      *prometheus.CounterVec // result: ok, failed
	flushSeconds prometheus.Histogram
	redis        *prometheus.CounterVec // result: ok, failed
	purged       prometheus.Counter
	minutesLost  prometheus.Counter
	hoursFailed  prometheus.Counter

	checkpoints       *prometheus.CounterVec // result: ok, failed
	checkpointsUnused *prometheus.CounterVec // reason: damaged, foreign, age, moved, unreadable
	checkpointBytes   prometheus.Gauge

	crowdedOut    prometheus.Counter
	requests      *prometheus.CounterVec // handler, code
	answerSeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, b *board) *metrics {
	set := telemetry.Metrics(reg, "statshttpd")
	seconds := prometheus.ExponentialBuckets(0.001, 4, 8) // 1 ms to 16 s
	set.GaugeFunc("pool_hashrate_hashes_per_second", "Accepted work of the last 5 minutes, per second.", func() float64 {
		b.mu.RLock()
		defer b.mu.RUnlock()
		return b.pool.rate(time.Now().Unix(), fiveMinutes).HashesPerSecond
	})
	set.GaugeFunc("workers_online", "Workers with a recent sign of life that had a share.", func() float64 { return float64(b.count(time.Now()).Online) })
	set.GaugeFunc("workers_waiting", "Workers with a recent sign of life that had no share.", func() float64 { return float64(b.count(time.Now()).Waiting) })
	set.CounterFunc("waiting_given_up_total", "Workers without a share that were forgotten because others came.", func() float64 {
		b.mu.RLock()
		defer b.mu.RUnlock()
		return float64(b.givenUp)
	})
	m := &metrics{
		shares:       set.Counters("shares_total", "Shares counted, by verdict.", "result"),
		dropped:      set.Counters("shares_dropped_total", "Shares not counted, or (workers_full) not for their worker.", "reason"),
		events:       set.Counters("events_total", "Common events read.", "result"),
		jobs:         set.Counters("jobs_total", "Stratum jobs read.", "result"),
		flushes:      set.Counters("flushes_total", "Writes of all workers to the database.", "result"),
		flushSeconds: set.Histogram("flush_seconds", "Duration of one write of all workers.", seconds),
		redis:        set.Counters("redis_writes_total", "Writes of all workers to Redis.", "result"),
		purged:       set.Counter("workers_purged_total", "Rows of workers deleted that had no share for long, or never."),
		crowdedOut:   set.Counter("http_connections_crowded_out_total", "Connections closed because max_connections others were open."),
		minutesLost:  set.Counter("minutes_lost_total", "Hours whose minutes were given up because the database was away."),
		hoursFailed:  set.Counter("hours_failed_total", "Readings of the tables' hours, for the rate of a day, that failed and were tried again."),

		checkpoints:       set.Counters("checkpoints_total", "Checkpoints of what is counted.", "result"),
		checkpointsUnused: set.Counters("checkpoints_unused_total", "Starts that could not use their checkpoint, and counted an hour of shares.", "reason"),
		checkpointBytes:   set.Gauge("checkpoint_bytes", "Size of the last checkpoint."),

		requests:      set.Counters("http_requests_total", "Answered requests.", "handler", "code"),
		answerSeconds: set.Histogram("http_request_seconds", "Time to answer one request, but for those that listen to events.", seconds),
	}
	for _, reason := range []string{"malformed", "invalid"} { // so that the first one is an increase
		m.dropped.WithLabelValues(reason)
	}
	m.checkpoints.WithLabelValues("failed")
	return m
}
