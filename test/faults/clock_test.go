//go:build integration

package faults

import (
	"fmt"
	"testing"
	"time"

	"btcpool/test/integration/rig"
)

// TestWrongClocks sets clocks wrong and leaves them so: miners come to work on new blocks all the same, and when the
// clocks are set right nothing is lost or there twice.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	miner := w.pool.StartMiner(t, w.dir, "miner", "-user", "carol.rig", "-password", "d=0.00001", "-threads", "1", "-rate", "2", "-reconnect")
	for _, wrong := range []fault{
		{target: "jobmaker", step: -time.Hour},
		{target: "sserver", step: time.Hour},
		{target: "gbtmaker", step: -time.Hour},
		{target: everybody, step: 2 * time.Hour}, // more than Kafka believes
	} {
		name := fmt.Sprintf("clock of %s %v", wrong.target, wrong.step)
		w.grows("before: "+name, 2)
		right := w.stepClock(wrong)
		began := time.Now()
		w.grows(name, 5)
		t.Logf("%s: 5 blocks within %v", name, time.Since(began).Round(time.Second))
		if wrong.target == everybody {
			has(t, w.pool, "sserver", `btcpool_bus_write_timeless_total{service="sserver",topic="BtcShare"}`, 1)
		}
		right()
	}
	for _, service := range rig.Services {
		w.ready(service)
	}
	w.grows("with right clocks", 3)
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Fatalf("minersim ended with code %d, %v", code, err)
	}
	w.ledger.Add(miner.Acks(), miner.Report().Unanswered)
	w.settle("wrong clocks")
	t.Log(w.ledger.String())
}
