package chainwatch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct{ reads *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer, w *Watcher) *metrics {
	set := telemetry.Metrics(reg, "chainwatch")
	set.GaugeFunc("users", "Users whose chain is known.", func() float64 {
		w.mu.Lock()
		defer w.mu.Unlock()
		return float64(len(w.users))
	})
	set.GaugeFunc("watches", "Nodes that ZooKeeper tells of.", func() float64 { return float64(w.nodes.Watches()) })
	set.GaugeFunc("connected", "1 while ZooKeeper says what users mine; 0: what is remembered goes on.", func() float64 {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.silent() {
			return 0
		}
		return 1
	})
	set.GaugeFunc("snapshot_age_seconds", "How old the file is that users' chains are remembered by; 0: there is none.", func() float64 {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.saved.IsZero() {
			return 0
		}
		return time.Since(w.saved).Seconds()
	})
	return &metrics{reads: set.Counters("reads_total", "Users' nodes read, by result: ok, missing, invalid or failed.", "result")}
}
