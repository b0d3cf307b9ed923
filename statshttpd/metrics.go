package statshttpd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	shares        *prometheus.CounterVec // result: accepted, stale, rejected
	dropped       *prometheus.CounterVec // reason: malformed, invalid, duplicate, old, future, workers_full
	events        *prometheus.CounterVec // result: ok, malformed, workers_full
	jobs          *prometheus.CounterVec // result: ok, malformed
	flushes       *prometheus.CounterVec // result: ok, failed
	flushSeconds  prometheus.Histogram
	requests      *prometheus.CounterVec // handler, code
	answerSeconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, b *board) *metrics {
	const namespace, subsystem = "btcpool", "statshttpd"
	factory := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, f func() float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, f)
	}
	seconds := func(name, help string) prometheus.Histogram {
		return factory.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		})
	}
	gauge("pool_hashrate_hashes_per_second", "Accepted work of the last 5 minutes, per second.", func() float64 {
		return b.poolView(time.Now()).Rate5m.HashesPerSecond
	})
	gauge("workers_online", "Workers with a recent sign of life.", func() float64 { return float64(b.poolView(time.Now()).Online) })
	return &metrics{
		shares:        counter("shares_total", "Shares counted, by verdict.", "result"),
		dropped:       counter("shares_dropped_total", "Shares not counted, or (workers_full) not for their worker.", "reason"),
		events:        counter("events_total", "Common events read.", "result"),
		jobs:          counter("jobs_total", "Stratum jobs read.", "result"),
		flushes:       counter("flushes_total", "Writes of all workers to the database.", "result"),
		flushSeconds:  seconds("flush_seconds", "Duration of one write of all workers."),
		requests:      counter("http_requests_total", "Answered requests.", "handler", "code"),
		answerSeconds: seconds("http_request_seconds", "Time to answer one request of the API."),
	}
}
