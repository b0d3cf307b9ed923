package poolwatcher

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	factory := promauto.With(reg)
	name := func(thing string) string { return "btcpool_poolwatcher_" + thing }
	m := &metrics{
		connected: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: name("connected"), Help: "1 while a pool is watched.",
		}, []string{"pool"}),
		jobs: factory.NewCounterVec(prometheus.CounterOpts{
			Name: name("jobs_total"), Help: "Jobs of other pools, by what became of them.",
		}, []string{"pool", "verdict"}),
		templates: factory.NewCounterVec(prometheus.CounterOpts{
			Name: name("templates_total"), Help: "Empty templates written, by the pool that named the block.",
		}, []string{"pool"}),
		unwritten: factory.NewCounter(prometheus.CounterOpts{
			Name: name("templates_unwritten_total"), Help: "Empty templates that Kafka did not take in time.",
		}),
		lead: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    name("lead_seconds"),
			Help:    "From an empty template to the first job with transactions on the same block.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2, 5, 10, 20},
		}),
		invalid: factory.NewCounter(prometheus.CounterOpts{
			Name: name("invalid_messages_total"), Help: "Jobs of our own that could not be read.",
		}),
		refuted: factory.NewCounterVec(prometheus.CounterOpts{
			Name: name("refuted_total"), Help: "Empty templates whose block our nodes did not follow, by the pool that named it.",
		}, []string{"pool"}),
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
