//go:build integration

package integration

import (
	"context"
	"fmt"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestSingle mines on a real node with the whole pool in one process, killed and started again once.
func TestSingle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.StartSingle(t, dir, node, nil)
	miner := pool.StartMiner(t, dir, "miner", "-user", "dave.rig", "-threads", "1", "-reconnect", "-shares", "6")

	height := func(ctx context.Context) (height int, err error) {
		err = node.Call(ctx, "getblockcount", &height)
		return height, err
	}
	testkit.Until(t, testkit.Patience, "a block is found", func(ctx context.Context) error {
		got, err := height(ctx)
		if err == nil && got == 0 {
			err = fmt.Errorf("height %d", got)
		}
		return err
	})
	pool.Service("btcpool").Kill()
	pool.Service("btcpool").Start()
	pool.WaitReady(t, "btcpool")
	if code := miner.Wait(3 * time.Minute); code != 0 {
		t.Errorf("minersim ended with code %d", code)
	}
	pool.WaitLogged(t, miner.Acks(), miner.Report().Unanswered)
	testkit.Until(t, testkit.Patience, "the API shows the chain's blocks", func(ctx context.Context) error {
		want, err := height(ctx)
		if err != nil {
			return err
		}
		var answer struct{ Blocks []struct{ Height int } }
		if err := pool.Get(ctx, "/api/v1/blocks?limit=200", &answer); err != nil {
			return err
		}
		heights := map[int]bool{}
		for _, b := range answer.Blocks {
			heights[b.Height] = true
		}
		if len(heights) != want {
			return fmt.Errorf("blocks at %d heights, the chain has %d", len(heights), want)
		}
		return nil
	})
}
