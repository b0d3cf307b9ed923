package sserver

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"btcpool/internal/share"
)

// Whatever the verdict is, it is counted, under one of a few labels.
func TestEveryVerdictIsCounted(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	m := newChainMetrics(reg, &chain{jobs: newJobBook(DefaultConfig())})
	for _, s := range []share.Status{
		share.StatusAccept, share.StatusAcceptStale, share.StatusDuplicate, share.StatusStale, share.StatusStale,
		-1 << 31, -1, 0, 1, 19, 38, 63, 64, 400, 1422486894, 1<<31 - 1,
	} {
		m.judged(s)
	}
	const want = `
# HELP btcpool_sserver_shares_total Shares judged, by Stratum code; 0 is accepted, stale is accepted though late.
# TYPE btcpool_sserver_shares_total counter
btcpool_sserver_shares_total{code="0"} 1
btcpool_sserver_shares_total{code="21"} 0
btcpool_sserver_shares_total{code="22"} 1
btcpool_sserver_shares_total{code="23"} 0
btcpool_sserver_shares_total{code="24"} 0
btcpool_sserver_shares_total{code="25"} 0
btcpool_sserver_shares_total{code="26"} 0
btcpool_sserver_shares_total{code="27"} 0
btcpool_sserver_shares_total{code="28"} 0
btcpool_sserver_shares_total{code="29"} 0
btcpool_sserver_shares_total{code="30"} 0
btcpool_sserver_shares_total{code="31"} 0
btcpool_sserver_shares_total{code="32"} 0
btcpool_sserver_shares_total{code="33"} 0
btcpool_sserver_shares_total{code="34"} 0
btcpool_sserver_shares_total{code="35"} 0
btcpool_sserver_shares_total{code="36"} 0
btcpool_sserver_shares_total{code="37"} 2
btcpool_sserver_shares_total{code="other"} 11
btcpool_sserver_shares_total{code="stale"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "btcpool_sserver_shares_total"); err != nil {
		t.Error(err)
	}
}
