package auxmaker

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	factory := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: "btcpool_auxmaker_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return factory.NewGaugeVec(prometheus.GaugeOpts{Name: "btcpool_auxmaker_" + name, Help: help}, labels)
	}
	return &metrics{
		blocks:   counter("blocks_total", "Blocks that a chain's node asked to be mined.", "chain"),
		failures: counter("failures_total", "Work of a chain that could not be had or not be used: rpc, answer or slot.", "chain", "reason"),
		up:       gauge("chain_up", "1 while a chain is part of the work.", "chain"),
		height:   gauge("chain_height_blocks", "Height of the block that a chain's node wants mined.", "chain"),
		rpcSeconds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "btcpool_auxmaker_rpc_seconds",
			Help:    "How long a node took to answer with work.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15), // 1 ms to 16 s
		}, []string{"chain"}),
		messages:  counter("messages_total", "Messages written.", "topic"),
		unwritten: counter("messages_unwritten_total", "Messages that Kafka did not take in time.", "topic"),
		lastTime:  gauge("last_message_timestamp_seconds", "Unix time at which the last message was written.", "topic"),
		missed:    counter("zmq_missed_total", "ZeroMQ messages that a node sent and that did not arrive.", "chain"),
	}
}
