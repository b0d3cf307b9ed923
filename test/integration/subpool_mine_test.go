//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestMineForSubPool mines for a sub-pool: the node's blocks pay to it and bear its text, and shares, rows and the API say
// whose they are.
func TestMineForSubPool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	guests, err := address.NewAddressWitnessPubKeyHash(bytes.Repeat([]byte{7}, 20), &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	script, err := txscript.PayToAddrScript(guests)
	if err != nil {
		t.Fatal(err)
	}
	kafka, db, node := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir), rig.StartBtcd(t, dir, rig.PayoutAddress)
	pool := rig.Setup{Kafka: kafka, DB: db, Nodes: []rig.Node{node.Node()}, SubPool: guests.EncodeAddress()}.Start(t, dir)
	miner := pool.StartMiner(t, dir, "alice", "-user", "alice.rig", "-threads", "1", "-shares", "5")
	if code := miner.Wait(3 * time.Minute); code != 0 {
		t.Fatalf("the miner ended with code %d", code)
	}
	acks := miner.Acks()
	pool.WaitLogged(t, acks, 0)
	for _, s := range pool.ReadLog(t) {
		if s.ExtUserID != -5 {
			t.Errorf("a share of the external user %d", s.ExtUserID)
		}
	}

	conn := db.Open(t)
	testkit.Until(t, testkit.Patience, "all blocks of the chain have rows of the sub-pool", func(ctx context.Context) error {
		var tip, rows, others int
		if err := node.Call(ctx, "getblockcount", &tip); err != nil {
			return err
		}
		if err := conn.QueryRowContext(ctx, "SELECT COUNT(*), COALESCE(SUM(sub_pool <> 'guests'), 0) FROM found_blocks").Scan(&rows, &others); err != nil {
			return err
		}
		if others > 0 {
			t.Fatalf("%d of %d blocks are of others", others, rows)
		}
		if tip == 0 || rows < tip {
			return fmt.Errorf("height %d, %d rows", tip, rows)
		}
		for height := 1; height <= tip; height++ {
			coinbase := coinbaseOf(t, node, height)
			if out := coinbase.TxOut[0]; !bytes.Equal(out.PkScript, script) || out.Value != 50e8 {
				t.Fatalf("block %d pays %d to %x", height, out.Value, out.PkScript)
			}
			if text := coinbase.TxIn[0].SignatureScript; !bytes.Contains(text, []byte("/guests/")) {
				t.Fatalf("block %d says %q", height, text)
			}
		}
		return nil
	})
	var page struct {
		Blocks []struct {
			SubPool string `json:"sub_pool"`
		} `json:"blocks"`
	}
	text, err := scrape(t.Context(), pool.HTTP+"/api/v1/blocks")
	if err == nil {
		err = json.Unmarshal([]byte(text), &page)
	}
	if err != nil || len(page.Blocks) == 0 || page.Blocks[0].SubPool != "guests" {
		t.Errorf("the API says %.300s, %v", text, err)
	}
}

// coinbaseOf returns the first transaction of the node's block at a height.
func coinbaseOf(t *testing.T, node *rig.Btcd, height int) *wire.MsgTx {
	t.Helper()
	var hash, text string
	if err := node.Call(t.Context(), "getblockhash", &hash, height); err != nil {
		t.Fatal(err)
	}
	if err := node.Call(t.Context(), "getblock", &text, hash, 0); err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var block wire.MsgBlock
	if err := block.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return block.Transactions[0]
}
