package auxmaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

// Labels: chain is a name of the configuration, topic is aux or rsk.
type metrics struct {
	blocks     *prometheus.CounterVec
	failures   *prometheus.CounterVec
	up         *prometheus.GaugeVec
	height     *prometheus.GaugeVec
	rpcSeconds *prometheus.HistogramVec
	messages   *prometheus.CounterVec
	unwritten  *prometheus.CounterVec
	lastTime   *prometheus.GaugeVec
	missed     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := telemetry.Metrics(reg, "auxmaker")
	return &metrics{
		blocks:   m.Counters("blocks_total", "Blocks that a chain's node asked to be mined.", "chain"),
		failures: m.Counters("failures_total", "Work of a chain that could not be had or not be used: rpc, answer or slot.", "chain", "reason"),
		up:       m.Gauges("chain_up", "1 while a chain is part of the work.", "chain"),
		height:   m.Gauges("chain_height_blocks", "Height of the block that a chain's node wants mined.", "chain"),
		rpcSeconds: m.Histograms("rpc_seconds", "How long a node took to answer with work.",
			prometheus.ExponentialBuckets(0.001, 2, 15), "chain"), // 1 ms to 16 s
		messages:  m.Counters("messages_total", "Messages written.", "topic"),
		unwritten: m.Counters("messages_unwritten_total", "Messages that Kafka did not take in time.", "topic"),
		lastTime:  m.Gauges("last_message_timestamp_seconds", "Unix time at which the last message was written.", "topic"),
		missed:    m.Counters("zmq_missed_total", "ZeroMQ messages that a node sent and that did not arrive.", "chain"),
	}
}
