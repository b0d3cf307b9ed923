package handover

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

// What became of a solved share, as the label result.
const (
	resultTaken   = "taken"   // one blkmaker or more has it
	resultFailed  = "failed"  // given up: newer ones came, or the process stopped
	resultDropped = "dropped" // too many were waiting
)

type metrics struct {
	shares   *prometheus.CounterVec
	failures prometheus.Counter
	up       *prometheus.GaugeVec // by URL
}

func newMetrics(reg prometheus.Registerer) *metrics {
	set := telemetry.Metrics(reg, "handover")
	m := &metrics{
		shares:   set.Counters("solved_shares_total", "Solved shares given to the blkmakers directly, by what became of them.", "result"),
		up:       set.Gauges("up", "1 when the blkmaker would take a solved share directly, as asked every minute.", "url"),
		failures: set.Counter("failures_total", "Requests to a blkmaker that failed."),
	}
	for _, result := range []string{resultTaken, resultFailed, resultDropped} {
		m.shares.WithLabelValues(result)
	}
	return m
}
