package registry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are labelled by path.
type metrics struct {
	id, leader, connected, confirmed *prometheus.GaugeVec
	expiries, losses                 *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	factory := promauto.With(reg)
	gauge := func(name, help string) *prometheus.GaugeVec {
		return factory.NewGaugeVec(prometheus.GaugeOpts{Name: "btcpool_registry_" + name, Help: help}, []string{"path"})
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: "btcpool_registry_" + name, Help: help}, []string{"path"})
	}
	return &metrics{
		id:        gauge("id", "The leased id; 0: none."),
		leader:    gauge("leader", "1 while this process leads."),
		connected: gauge("connected", "1 while there is a ZooKeeper session with a connection."),
		confirmed: gauge("confirmed_timestamp_seconds", "When ZooKeeper last confirmed what is held."),
		expiries:  counter("session_expiries_total", "Sessions that ZooKeeper ended."),
		losses:    counter("losses_total", "Ids and leads lost, or given up because they might be."),
	}
}
