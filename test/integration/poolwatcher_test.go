//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/miner/pooltest"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestOtherPoolLies has another pool name a block that there is not: miners get a job on it at once, and one on the
// chain of our own node when the template's life is over, which sserver takes as soon as it goes back at all, after
// max_job_delay. The pool is not believed again for that height.
func TestOtherPoolLies(t *testing.T) {
	t.Parallel()
	conns := make(chan *pooltest.Conn, 10)
	notify := func(c *pooltest.Conn, block chainhash.Hash, height int32) {
		coinbase1, coinbase2, err := bitcoin.Coinbase{
			Height: height, Time: time.Now().Unix(), ExtranonceSize: 8, Outputs: []wire.TxOut{{Value: 1, PkScript: []byte{0x51}}},
		}.Build()
		if err != nil {
			t.Error(err)
		}
		c.SendJob(&job.StratumJob{
			PrevHash: block, Coinbase1: coinbase1, Coinbase2: coinbase2, Version: 0x20000000, Bits: 0x207fffff, Time: uint32(time.Now().Unix()),
		}, uint64(height))
	}
	other := (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method != "mining.authorize" {
			return false
		}
		c.Reply(req, "true", "null")
		notify(c, *chaincfg.RegressionNetParams.GenesisHash, 1)
		conns <- c
		return true
	}}).Start(t)

	dir := t.TempDir()
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, Watched: other.Addr()}.Start(t, dir)
	has := func(service, metric string, want int) {
		t.Helper()
		testkit.Until(t, testkit.Patience, fmt.Sprintf("%s is %d", metric, want), func(ctx context.Context) error {
			page, err := pool.Metrics(ctx, service)
			if err == nil && !strings.Contains(page, fmt.Sprintf("\n%s %d\n", metric, want)) {
				err = errors.New("is not")
			}
			return err
		})
	}
	const height = `btcpool_sserver_job_height{service="sserver"}`
	has("sserver", height, 1)

	conn := <-conns
	said := time.Now()
	notify(conn, chainhash.Hash{1}, 2)
	has("sserver", height, 2)
	t.Logf("miners follow after %v", time.Since(said).Round(time.Millisecond))
	has("jobmaker", `btcpool_jobmaker_jobs_total{reason="refuted",service="jobmaker"}`, 1)
	has("sserver", height, 1)
	t.Logf("miners are back after %v", time.Since(said).Round(time.Millisecond))
	notify(conn, chainhash.Hash{2}, 2)
	has("jobmaker", `btcpool_jobmaker_templates_total{result="other_pool",service="jobmaker"}`, 1)
}
