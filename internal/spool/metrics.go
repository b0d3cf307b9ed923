package spool

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	appended, sent, full             prometheus.Counter
	writeErrors, sendErrors, corrupt prometheus.Counter
	syncSeconds                      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, name string, s *Spool) *metrics {
	factory := promauto.With(prometheus.WrapRegistererWith(prometheus.Labels{"spool": name}, reg))
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: "btcpool_spool_" + name, Help: help})
	}
	gauge := func(name, help string, value func() float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: "btcpool_spool_" + name, Help: help}, value)
	}
	gauge("depth_records", "Records that have not been sent yet.", func() float64 {
		records, _ := s.Depth()
		return float64(records)
	})
	gauge("depth_bytes", "Size of the records that have not been sent yet.", func() float64 {
		_, bytes := s.Depth()
		return float64(bytes)
	})
	gauge("oldest_seconds", "For how long the oldest record has been waiting to be sent.", func() float64 {
		return s.oldestAge(time.Now()).Seconds()
	})
	return &metrics{
		appended:    counter("appended_total", "Records taken."),
		sent:        counter("sent_total", "Records sent and acknowledged, repetitions included."),
		full:        counter("full_total", "Records refused because the spool was full."),
		writeErrors: counter("write_errors_total", "Writes that the disk refused."),
		sendErrors:  counter("send_errors_total", "Batches that were not acknowledged and sent again."),
		corrupt:     counter("corrupt_total", "Segments of which the rest was skipped after a corrupt record."),
		syncSeconds: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "btcpool_spool_sync_seconds",
			Help:    "Time to bring one group of records to disk.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18), // 50 µs to 6.5 s
		}),
	}
}
