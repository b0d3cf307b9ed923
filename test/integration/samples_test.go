//go:build integration

package integration

import (
	"testing"
	"time"

	"btcpool/test/integration/rig"
)

// TestSamples mines through every service as it is shipped: from the files in configs/, run as deploy/systemd says.
func TestSamples(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.StartSamples(t, dir, kafka, db, node)

	var acks []rig.Ack
	for _, user := range []string{"alice.rig1", "bob.rig2"} {
		miner := pool.StartMiner(t, dir, user, "-user", user, "-password", "d=0.0001", "-threads", "1", "-shares", "5")
		if code := miner.Wait(3 * time.Minute); code != 0 {
			t.Fatalf("%s ended with code %d", user, code)
		}
		acks = append(acks, miner.Acks()...)
	}
	pool.WaitLogged(t, acks, 0)
	checkBlocks(t, node, pool, db)
	pool.WaitStatistics(t, db)
	checkWorkers(t, pool)
	checkDashboard(t, pool)

	for _, service := range rig.Services {
		if code, err := pool.Service(service).Stop(); err != nil || code != 0 {
			t.Errorf("SIGTERM: %s ended with code %d, %v", service, code, err)
		}
	}
}
