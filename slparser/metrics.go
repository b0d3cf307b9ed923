package slparser

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	shares       prometheus.Counter
	dropped      *prometheus.CounterVec // reason: malformed, invalid
	readErrors   prometheus.Counter
	rows         prometheus.Counter
	flushErrors  prometheus.Counter
	flushSeconds prometheus.Histogram
	requests     prometheus.Counter
	newest       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const namespace, subsystem = "btcpool", "slparser"
	factory := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	return &metrics{
		shares: counter("shares_total", "Shares counted; after a start those of the whole day again."),
		dropped: factory.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "shares_dropped_total", Help: "Records not counted.",
		}, []string{"reason"}),
		readErrors:  counter("read_errors_total", "Attempts to read a file that went wrong."),
		rows:        counter("rows_written_total", "Rows of statistics written."),
		flushErrors: counter("flush_failures_total", "Writes to the database that went wrong and are repeated."),
		flushSeconds: factory.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "flush_seconds", Help: "Duration of one write of all that changed.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8), // 1 ms to 16 s
		}),
		requests: counter("http_requests_total", "Answered requests."),
		newest: factory.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "newest_share_timestamp_seconds", Help: "Time of the newest share counted.",
		}),
	}
}
