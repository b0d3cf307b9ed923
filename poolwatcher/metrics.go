package poolwatcher

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

// The label pool is a name of the configuration.
type metrics struct {
	connected *prometheus.GaugeVec
	jobs      *prometheus.CounterVec
	templates *prometheus.CounterVec
	unwritten prometheus.Counter
	lead      prometheus.Histogram
	refuted   *prometheus.CounterVec
	invalid   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, pools []Pool) *metrics {
	set := telemetry.Metrics(reg, "poolwatcher")
	m := &metrics{
		connected: set.Gauges("connected", "1 while a pool is watched.", "pool"),
		jobs:      set.Counters("jobs_total", "Jobs of other pools, by what became of them.", "pool", "verdict"),
		templates: set.Counters("templates_total", "Empty templates written, by the pool that named the block.", "pool"),
		unwritten: set.Counter("templates_unwritten_total", "Empty templates that Kafka did not take in time."),
		lead: set.Histogram("lead_seconds", "From an empty template to the first job with transactions on the same block.",
			[]float64{.05, .1, .25, .5, 1, 2, 5, 10, 20}),
		refuted: set.Counters("refuted_total", "Empty templates whose block our nodes did not follow, by the pool that named it.", "pool"),
		invalid: set.Counter("invalid_messages_total", "Jobs of our own that could not be read."),
	}
	for _, p := range pools {
		m.connected.WithLabelValues(p.Name)
		m.templates.WithLabelValues(p.Name)
		m.refuted.WithLabelValues(p.Name)
		for _, v := range verdicts {
			m.jobs.WithLabelValues(p.Name, string(v))
		}
	}
	return m
}
