package jobmaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	templates   *prometheus.CounterVec // by result
	works       *prometheus.CounterVec // by kind of chain and result
	jobs        *prometheus.CounterVec // by reason
	failed      prometheus.Counter
	updates     *prometheus.CounterVec // of sub-pools, by name and result
	height      prometheus.Gauge
	templateAge prometheus.Histogram
}

// newMetrics registers the metrics; the functions are called for each scrape.
func newMetrics(reg prometheus.Registerer, sinceLastJob, partedSince func() float64) *metrics {
	set := telemetry.Metrics(reg, "jobmaker")
	m := &metrics{
		templates: set.Counters("templates_total", "Raw and light templates received, by what became of them.", "result"),
		works: set.Counters("merged_mining_works_total",
			"Works of chains that are mined along, by kind of chain and what became of them.", "kind", "result"),
		jobs:   set.Counters("jobs_total", "Jobs sent, by reason.", "reason"),
		failed: set.Counter("jobs_failed_total", "Jobs that could not be built or sent."),
		updates: set.Counters("sub_pool_updates_total",
			"Updates of sub-pools through ZooKeeper, by sub-pool and whether they were accepted or refused.", "sub_pool", "result"),
		height: set.Gauge("height", "Height of the last job."),
		templateAge: set.Histogram("template_age_seconds", "Age of the template when its job was sent.",
			[]float64{.1, .25, .5, 1, 2, 5, 10, 20, 60, 120}),
	}
	set.GaugeFunc("since_last_job_seconds",
		"Time since the last job was sent, or since the start before the first; 0 while another jobmaker leads.", sinceLastJob)
	set.GaugeFunc("templates_disagree_since_block",
		"Height of the first block known to be another in templates of some nodes than in those that jobs are made of; 0: none in the last 2 minutes.", partedSince)
	for _, r := range []result{accepted, invalid, duplicate, skewed, wrongNetwork, farFuture, lowHeight, lessWork, wrongBits, otherBranch, otherPool} {
		m.templates.WithLabelValues(string(r))
	}
	for _, kind := range []string{"aux", "rsk"} {
		for _, r := range []result{accepted, invalid, duplicate, skewed} {
			m.works.WithLabelValues(kind, string(r))
		}
	}
	for _, r := range []reason{newHeight, newBranch, moreWork, nowFull, newBits, refuted, abandoned, otherChains, routine} {
		m.jobs.WithLabelValues(string(r))
	}
	return m
}
