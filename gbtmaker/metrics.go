package gbtmaker

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	templates    *prometheus.CounterVec
	unchanged    *prometheus.CounterVec
	failures     *prometheus.CounterVec
	rpcSeconds   prometheus.Histogram
	height       prometheus.Gauge
	transactions prometheus.Gauge
	bytes        prometheus.Gauge
	lastTime     prometheus.Gauge
	missed       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	counter := func(name, label, help string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: "btcpool_gbtmaker_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return factory.NewGauge(prometheus.GaugeOpts{Name: "btcpool_gbtmaker_" + name, Help: help})
	}
	return &metrics{
		templates: counter("templates_total", "trigger", "Templates written to the topic, by what asked for them."),
		unchanged: counter("templates_unchanged_total", "trigger", "Templates not written because the last one was the same but for its time."),
		failures:  counter("failures_total", "reason", "Templates that could not be had or not be used: rpc, chain, template or kafka."),
		rpcSeconds: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "btcpool_gbtmaker_rpc_seconds",
			Help:    "How long the node took for getblocktemplate, long polls aside.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15), // 1 ms to 16 s
		}),
		height:       gauge("template_height_blocks", "Height of the block that the last template is for."),
		transactions: gauge("template_transactions", "Transactions in the last template."),
		bytes:        gauge("template_bytes", "Size of the node's answer with the last template."),
		lastTime:     gauge("last_template_timestamp_seconds", "Unix time at which the last template was written."),
		missed: factory.NewCounter(prometheus.CounterOpts{
			Name: "btcpool_gbtmaker_zmq_missed_total",
			Help: "ZeroMQ messages that the node sent and that did not arrive.",
		}),
	}
}
