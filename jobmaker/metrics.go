package jobmaker

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	templates   *prometheus.CounterVec // by result
	works       *prometheus.CounterVec // by kind of chain and result
	jobs        *prometheus.CounterVec // by reason
	failed      prometheus.Counter
	updates     *prometheus.CounterVec // of sub-pools, by name and result
	height      prometheus.Gauge
	templateAge prometheus.Histogram
}

// newMetrics registers the metrics; sinceLastJob is called for each scrape.
func newMetrics(reg prometheus.Registerer, sinceLastJob func() float64) *metrics {
	m := &metrics{
		templates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "btcpool_jobmaker_templates_total",
			Help: "Raw and light templates received, by what became of them.",
		}, []string{"result"}),
		works: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "btcpool_jobmaker_merged_mining_works_total",
			Help: "Works of chains that are mined along, by kind of chain and what became of them.",
		}, []string{"kind", "result"}),
		jobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "btcpool_jobmaker_jobs_total",
			Help: "Jobs sent, by reason.",
		}, []string{"reason"}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "btcpool_jobmaker_jobs_failed_total",
			Help: "Jobs that could not be built or sent.",
		}),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "btcpool_jobmaker_sub_pool_updates_total",
			Help: "Updates of sub-pools through ZooKeeper, by sub-pool and whether they were accepted or refused.",
		}, []string{"sub_pool", "result"}),
		height: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "btcpool_jobmaker_height",
			Help: "Height of the last job.",
		}),
		templateAge: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "btcpool_jobmaker_template_age_seconds",
			Help:    "Age of the template when its job was sent.",
			Buckets: []float64{.1, .25, .5, 1, 2, 5, 10, 20, 60, 120},
		}),
	}
	reg.MustRegister(m.templates, m.works, m.jobs, m.failed, m.updates, m.height, m.templateAge,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "btcpool_jobmaker_since_last_job_seconds",
			Help: "Time since the last job was sent, or since the start before the first; 0 while another jobmaker leads.",
		}, sinceLastJob))
	for _, r := range []result{accepted, invalid, duplicate, skewed, wrongNetwork, farFuture, lowHeight, otherBranch, otherPool} {
		m.templates.WithLabelValues(string(r))
	}
	for _, kind := range []string{"aux", "rsk"} {
		for _, r := range []result{accepted, invalid, duplicate, skewed} {
			m.works.WithLabelValues(kind, string(r))
		}
	}
	for _, r := range []reason{newHeight, newBranch, nowFull, refuted, otherChains, routine} {
		m.jobs.WithLabelValues(string(r))
	}
	return m
}
