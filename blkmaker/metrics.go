package blkmaker

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/store"
	"btcpool/internal/telemetry"
)

// What became of a solved share, as the label result.
const (
	resultAccepted  = "accepted"  // a node has the block
	resultRejected  = "rejected"  // every node refused it
	resultUndecided = "undecided" // given up before any node had it on its chain
	resultInvalid   = "invalid"   // no block can be made of it
	resultUnknown   = "unknown"   // its job or template never came
	resultRecorded  = "recorded"  // submitted by an earlier run, and now in the database, too
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
	resubmitted prometheus.Counter

	templates, jobs, templateBytes prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, nodes int) *metrics {
	set := telemetry.Metrics(reg, "blkmaker")
	m := &metrics{
		solved:      set.Counters("solved_shares_total", "Solved shares by what became of them.", "result"),
		submissions: set.Counters("submissions_total", "Answers to submitblock by node, counted from 0 as configured.", "node", "verdict"),
		prepare: set.Histogram("prepare_seconds", "From the arrival of a solved share until its block leaves for the nodes.",
			prometheus.ExponentialBuckets(0.0005, 2, 16)), // 0.5 ms to 16 s
		submit: set.Histograms("submit_seconds", "From a block's leaving for a node until the node's answer.",
			prometheus.ExponentialBuckets(0.0005, 2, 18), "node"), // 0.5 ms to 65 s
		blocks:        set.Gauges("blocks", "Blocks in the database by state.", "state"),
		arrivals:      set.Counters("arrivals_total", "Solved shares by what they solve and the way on which they came first.", "kind", "way"),
		merged:        set.Counters("merged_blocks_total", "Blocks of other chains by what their nodes said.", "kind", "result"),
		diskErrors:    set.Counter("disk_errors_total", "Failures to write what a restart would need to data_dir."),
		resubmitted:   set.Counter("resubmitted_blocks_total", "Blocks submitted again because no node knew them any more."),
		invalid:       set.Counters("invalid_messages_total", "Messages that could not be read, by topic.", "topic"),
		templates:     set.Gauge("cached_templates", "Templates kept."),
		jobs:          set.Gauge("cached_jobs", "Jobs kept."),
		templateBytes: set.Gauge("cached_transaction_bytes", "Bytes of transactions kept; templates share those they have in common."),
	}
	m.arrivals.WithLabelValues(string(kindBlock), wayDirect)
	for _, kind := range []kind{kindBlock, kindAux, kindRSK} {
		m.arrivals.WithLabelValues(string(kind), wayKafka)
	}
	for _, result := range []string{resultAccepted, resultRejected, resultUndecided, resultInvalid, resultUnknown, resultRecorded} {
		m.solved.WithLabelValues(result)
		m.merged.WithLabelValues(string(kindAux), result)
		m.merged.WithLabelValues(string(kindRSK), result)
	}
	for node := range nodes {
		for _, verdict := range []string{verdictAccepted, verdictDuplicate, verdictInconclusive, verdictRejected, verdictError} {
			m.submissions.WithLabelValues(strconv.Itoa(node), verdict)
		}
	}
	return m
}

// watchShares shows how many solved shares there are in room and waiting.
func (m *metrics) watchShares(reg prometheus.Registerer, room, waiting chan struct{}) {
	set := telemetry.Metrics(reg, "blkmaker")
	set.GaugeFunc("solving", "Solved shares that are being worked on; no more are taken at 1000.", func() float64 { return float64(len(room)) })
	set.GaugeFunc("waiting", "Solved shares that wait for their jobs and templates.", func() float64 { return float64(len(waiting)) })
}

// watchJournal shows of how many solved shares the database lacks what was made.
func (m *metrics) watchJournal(reg prometheus.Registerer, j *journal) {
	telemetry.Metrics(reg, "blkmaker").GaugeFunc("blocks_without_row",
		"Solved shares whose blocks are made, and submitted, while the database does not have them yet.",
		func() float64 { return float64(j.unwritten()) })
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
