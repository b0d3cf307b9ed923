package gbtmaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
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
	onlyLessWork prometheus.Gauge

	// By node.
	up         *prometheus.GaugeVec
	used       *prometheus.GaugeVec
	nodeHeight *prometheus.GaugeVec
	disagrees  *prometheus.GaugeVec
	latency    *prometheus.GaugeVec
	rpcSeconds *prometheus.HistogramVec
	zmqUp      *prometheus.GaugeVec
	missed     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := telemetry.Metrics(reg, "gbtmaker")
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15) // 1 ms to 16 s
	return &metrics{
		templates:    m.Counters("templates_total", "Templates written to the topic, by what asked for them.", "trigger"),
		unchanged:    m.Counters("templates_unchanged_total", "Templates not written because the last one was the same but for its time.", "trigger"),
		failures:     m.Counters("failures_total", "Templates that could not be had or not be used: rpc, chain, template, bits, time, lag, branch or kafka.", "reason"),
		writeSeconds: m.Histogram("write_seconds", "From the node's answer to its light template in the topic.", seconds),
		height:       m.Gauge("template_height_blocks", "Height of the block that the last template is for."),
		transactions: m.Gauge("template_transactions", "Transactions in the last template."),
		bytes:        m.Gauge("template_bytes", "Size of the node's answer with the last template."),
		lastTime:     m.Gauge("last_template_timestamp_seconds", "Unix time at which the last template was written."),
		onlyLessWork: m.Gauge("only_less_work", "1 while nodes answer, but none of them has as much work as the last template, so that none is followed."),

		up:         m.Gauges("node_up", "1 while the node can be used: it answers, is on the network, and not behind.", "node"),
		used:       m.Gauges("node_used", "1 for the node that the last template is from.", "node"),
		nodeHeight: m.Gauges("node_height_blocks", "Height of the node's newest block.", "node"),
		disagrees:  m.Gauges("node_disagrees_since_block", "Height of the first block that the node and the one in use do not have in common; 0: one follows the other.", "node"),
		latency:    m.Gauges("node_latency_seconds", "How long the node took for the last getblockchaininfo.", "node"),
		rpcSeconds: m.Histograms("rpc_seconds", "How long the node took for getblocktemplate, long polls aside.", seconds, "node"),
		zmqUp:      m.Gauges("node_zmq_up", "1 while the node's blocks are subscribed to.", "node"),
		missed:     m.Counters("zmq_missed_total", "ZeroMQ messages that the node sent and that did not arrive.", "node"),
	}
}
