package handover

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What became of a solved share, as the label result.
const (
	resultTaken   = "taken"   // by one blkmaker or more
	resultFailed  = "failed"  // given up: newer ones came, or the process stopped
	resultDropped = "dropped" // too many were waiting
)

type metrics struct {
	shares   *prometheus.CounterVec
	failures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	m := &metrics{
		shares: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "btcpool_handover_solved_shares_total", Help: "Solved shares given to the blkmakers directly, by what became of them.",
		}, []string{"result"}),
		failures: factory.NewCounter(prometheus.CounterOpts{
			Name: "btcpool_handover_failures_total", Help: "Requests to a blkmaker that failed.",
		}),
	}
	for _, result := range []string{resultTaken, resultFailed, resultDropped} {
		m.shares.WithLabelValues(result)
	}
	return m
}
