package telemetry_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"btcpool/internal/telemetry"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	var lines bytes.Buffer
	deps := telemetry.Deps{Log: zerolog.New(&lines), Metrics: reg}.For("pool").For("sserver")
	m := telemetry.Metrics(deps.Metrics, "sserver")
	m.Counter("solved_total", "Blocks.").Inc()
	m.Counters("rejects_total", "Rejects.", "reason").WithLabelValues("stale").Add(2)
	m.Gauge("height", "Height.").Set(3)
	m.Gauges("miners", "Miners.", "difficulty").WithLabelValues("1").Set(4)
	m.GaugeFunc("age_seconds", "Age.", func() float64 { return 5 })
	m.Histogram("sync_seconds", "Sync.", []float64{1}).Observe(0.5)
	m.Histograms("write_seconds", "Write.", []float64{1}, "topic").WithLabelValues("t").Observe(2)
	want := `
# HELP btcpool_sserver_age_seconds Age.
# TYPE btcpool_sserver_age_seconds gauge
btcpool_sserver_age_seconds{service="sserver"} 5
# HELP btcpool_sserver_height Height.
# TYPE btcpool_sserver_height gauge
btcpool_sserver_height{service="sserver"} 3
# HELP btcpool_sserver_miners Miners.
# TYPE btcpool_sserver_miners gauge
btcpool_sserver_miners{difficulty="1",service="sserver"} 4
# HELP btcpool_sserver_rejects_total Rejects.
# TYPE btcpool_sserver_rejects_total counter
btcpool_sserver_rejects_total{reason="stale",service="sserver"} 2
# HELP btcpool_sserver_solved_total Blocks.
# TYPE btcpool_sserver_solved_total counter
btcpool_sserver_solved_total{service="sserver"} 1
# HELP btcpool_sserver_sync_seconds Sync.
# TYPE btcpool_sserver_sync_seconds histogram
btcpool_sserver_sync_seconds_bucket{service="sserver",le="1"} 1
btcpool_sserver_sync_seconds_bucket{service="sserver",le="+Inf"} 1
btcpool_sserver_sync_seconds_sum{service="sserver"} 0.5
btcpool_sserver_sync_seconds_count{service="sserver"} 1
# HELP btcpool_sserver_write_seconds Write.
# TYPE btcpool_sserver_write_seconds histogram
btcpool_sserver_write_seconds_bucket{service="sserver",topic="t",le="1"} 0
btcpool_sserver_write_seconds_bucket{service="sserver",topic="t",le="+Inf"} 1
btcpool_sserver_write_seconds_sum{service="sserver",topic="t"} 2
btcpool_sserver_write_seconds_count{service="sserver",topic="t"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	telemetry.Metrics(nil, "sserver").Counter("solved_total", "Blocks.").Inc() // not registered, and no fault
}
