package blkmaker

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"btcpool/internal/store"
)

// What became of a solved share, as the label result.
const (
	resultAccepted  = "accepted"  // a node has the block
	resultRejected  = "rejected"  // every node refused it
	resultUndecided = "undecided" // buried before any node had it on its chain
	resultInvalid   = "invalid"   // no block can be made of it
	resultUnknown   = "unknown"   // its job or template never came
)

type metrics struct {
	solved      *prometheus.CounterVec
	submissions *prometheus.CounterVec
	prepare     prometheus.Histogram
	submit      *prometheus.HistogramVec
	blocks      *prometheus.GaugeVec
	invalid     *prometheus.CounterVec
	arrivals    *prometheus.CounterVec
	merged      *prometheus.CounterVec
	diskErrors  prometheus.Counter

	templates, jobs, templateBytes prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, nodes int) *metrics {
	factory := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return factory.NewGauge(prometheus.GaugeOpts{Name: "btcpool_blkmaker_" + name, Help: help})
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: "btcpool_blkmaker_" + name, Help: help}, labels)
	}
	m := &metrics{
		solved:      counter("solved_shares_total", "Solved shares by what became of them.", "result"),
		submissions: counter("submissions_total", "Answers to submitblock by node, counted from 0 as configured.", "node", "verdict"),
		prepare: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "btcpool_blkmaker_prepare_seconds",
			Help:    "From the arrival of a solved share until its block leaves for the nodes.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
		}),
		submit: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "btcpool_blkmaker_submit_seconds",
			Help:    "From a block's leaving for a node until the node's answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18), // 0.5 ms to 65 s
		}, []string{"node"}),
		blocks: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "btcpool_blkmaker_blocks", Help: "Blocks in the database by state.",
		}, []string{"state"}),
		arrivals: counter("arrivals_total", "Solved shares by what they solve and the way on which they came first.", "kind", "way"),
		merged:   counter("merged_blocks_total", "Blocks of other chains by what their nodes said.", "kind", "result"),
		diskErrors: factory.NewCounter(prometheus.CounterOpts{
			Name: "btcpool_blkmaker_disk_errors_total", Help: "Failures to write what a restart would need to data_dir.",
		}),
		invalid:       counter("invalid_messages_total", "Messages that could not be read, by topic.", "topic"),
		templates:     gauge("cached_templates", "Templates kept."),
		jobs:          gauge("cached_jobs", "Jobs kept."),
		templateBytes: gauge("cached_transaction_bytes", "Bytes of transactions kept; templates share those they have in common."),
	}
	for _, result := range []string{resultAccepted, resultRejected, resultUndecided, resultInvalid, resultUnknown} {
		m.solved.WithLabelValues(result)
	}
	m.arrivals.WithLabelValues(string(kindBlock), wayDirect)
	for _, kind := range []kind{kindBlock, kindAux, kindRSK} {
		m.arrivals.WithLabelValues(string(kind), wayKafka)
	}
	for _, kind := range []kind{kindAux, kindRSK} {
		for _, result := range []string{resultAccepted, resultRejected, resultUndecided, resultUnknown, resultInvalid} {
			m.merged.WithLabelValues(string(kind), result)
		}
	}
	for node := range nodes {
		for _, verdict := range []string{verdictAccepted, verdictDuplicate, verdictInconclusive, verdictRejected, verdictError} {
			m.submissions.WithLabelValues(strconv.Itoa(node), verdict)
		}
	}
	return m
}

// The ways of a solved share, as the label way.
const (
	wayDirect = "direct"
	wayKafka  = "kafka"
)

// setBlocks shows the database's counts.
func (m *metrics) setBlocks(counts map[store.BlockState]int64) {
	for _, state := range []store.BlockState{store.Submitted, store.Accepted, store.Confirmed, store.Orphaned, store.Rejected} {
		m.blocks.WithLabelValues(string(state)).Set(float64(counts[state]))
	}
}
