package gbtmaker

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	templates    *prometheus.CounterVec
	unchanged    *prometheus.CounterVec
	failures     *prometheus.CounterVec
	writeSeconds prometheus.Histogram
	height       prometheus.Gauge
	transactions prometheus.Gauge
	bytes        prometheus.Gauge
	lastTime     prometheus.Gauge

	// By node.
	up         *prometheus.GaugeVec
	used       *prometheus.GaugeVec
	nodeHeight *prometheus.GaugeVec
	latency    *prometheus.GaugeVec
	rpcSeconds *prometheus.HistogramVec
	zmqUp      *prometheus.GaugeVec
	missed     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	counter := func(name, label, help string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: "btcpool_gbtmaker_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return factory.NewGauge(prometheus.GaugeOpts{Name: "btcpool_gbtmaker_" + name, Help: help})
	}
	byNode := func(name, help string) *prometheus.GaugeVec {
		return factory.NewGaugeVec(prometheus.GaugeOpts{Name: "btcpool_gbtmaker_" + name, Help: help}, []string{"node"})
	}
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15) // 1 ms to 16 s
	return &metrics{
		templates: counter("templates_total", "trigger", "Templates written to the topic, by what asked for them."),
		unchanged: counter("templates_unchanged_total", "trigger", "Templates not written because the last one was the same but for its time."),
		failures:  counter("failures_total", "reason", "Templates that could not be had or not be used: rpc, chain, template, bits, time, lag or kafka."),
		writeSeconds: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "btcpool_gbtmaker_write_seconds",
			Help:    "From the node's answer to its template in the topic.",
			Buckets: seconds,
		}),
		height:       gauge("template_height_blocks", "Height of the block that the last template is for."),
		transactions: gauge("template_transactions", "Transactions in the last template."),
		bytes:        gauge("template_bytes", "Size of the node's answer with the last template."),
		lastTime:     gauge("last_template_timestamp_seconds", "Unix time at which the last template was written."),

		up:         byNode("node_up", "1 while the node can be used: it answers, is on the network, and not behind."),
		used:       byNode("node_used", "1 for the node that the last template is from."),
		nodeHeight: byNode("node_height_blocks", "Height of the node's newest block."),
		latency:    byNode("node_latency_seconds", "How long the node took for the last getblockchaininfo."),
		rpcSeconds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "btcpool_gbtmaker_rpc_seconds",
			Help:    "How long the node took for getblocktemplate, long polls aside.",
			Buckets: seconds,
		}, []string{"node"}),
		zmqUp:  byNode("node_zmq_up", "1 while the node's blocks are subscribed to."),
		missed: counter("zmq_missed_total", "node", "ZeroMQ messages that the node sent and that did not arrive."),
	}
}
