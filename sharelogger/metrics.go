package sharelogger

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	written   prometheus.Counter
	dropped   *prometheus.CounterVec // reason: malformed, invalid, repeated
	failures  prometheus.Counter
	flushTime prometheus.Histogram
	lag       prometheus.Gauge
	pending   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const namespace, subsystem = "btcpool", "sharelogger"
	factory := promauto.With(reg)
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	return &metrics{
		written: factory.NewCounter(prometheus.CounterOpts(opts("shares_written_total", "Shares on disk."))),
		dropped: factory.NewCounterVec(prometheus.CounterOpts(opts("shares_dropped_total",
			"Messages not written: malformed, invalid, or repeated (delivered before, or on disk since before a restart).")), []string{"reason"}),
		failures: factory.NewCounter(prometheus.CounterOpts(opts("file_errors_total", "Attempts to use the files that went wrong."))),
		flushTime: factory.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "flush_seconds",
			Help:    "Duration of a flush, the disk's part included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8), // 1 ms to 16 s
		}),
		lag:     factory.NewGauge(prometheus.GaugeOpts(opts("lag_seconds", "Age of the newest share when it was read from the topic."))),
		pending: factory.NewGauge(prometheus.GaugeOpts(opts("pending_bytes", "Records waiting for the next flush."))),
	}
}
