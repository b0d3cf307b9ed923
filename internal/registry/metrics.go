package registry

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

// metrics are labelled by path.
type metrics struct {
	id, leader, connected, confirmed *prometheus.GaugeVec
	expiries, losses                 *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	set := telemetry.Metrics(reg, "registry")
	return &metrics{
		id:        set.Gauges("id", "The leased id; 0: none.", "path"),
		leader:    set.Gauges("leader", "1 while this process leads.", "path"),
		connected: set.Gauges("connected", "1 while there is a ZooKeeper session with a connection.", "path"),
		confirmed: set.Gauges("confirmed_timestamp_seconds", "When ZooKeeper last confirmed what is held.", "path"),
		expiries:  set.Counters("session_expiries_total", "Sessions that ZooKeeper ended.", "path"),
		losses:    set.Counters("losses_total", "Ids and leads lost, or given up because they might be.", "path"),
	}
}
