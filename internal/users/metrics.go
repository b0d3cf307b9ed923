package users

import (
	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/telemetry"
)

type metrics struct {
	known    *prometheus.GaugeVec   // list
	readings *prometheus.CounterVec // list, result
}

func newMetrics(reg prometheus.Registerer, service string) *metrics {
	set := telemetry.Metrics(reg, service)
	return &metrics{
		known:    set.Gauges("users", "Users known, by list.", "list"),
		readings: set.Counters("user_readings_total", "Readings of the users' source, of new users and of all.", "list", "result"),
	}
}
