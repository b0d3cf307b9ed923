package jobmaker

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// The block that a miner and blkmaker make of a job is sane to btcd, whatever
// the template holds.
func TestBuildAgainstBtcd(t *testing.T) {
	t.Parallel()
	b := builder{payoutScript: []byte{0x51}, coinbaseText: "/test/"}
	rapid.Check(t, func(t *rapid.T) {
		var (
			txs           []*wire.MsgTx
			txids, wtxids []chainhash.Hash
		)
		for i := range rapid.IntRange(0, 30).Draw(t, "transactions") {
			tx := wire.NewMsgTx(2)
			tx.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{1}, uint32(i)), nil, nil))
			if rapid.Bool().Draw(t, "witness") {
				tx.TxIn[0].Witness = wire.TxWitness{{1}}
			}
			tx.AddTxOut(wire.NewTxOut(1, []byte{0x51}))
			txs = append(txs, tx)
			txids, wtxids = append(txids, tx.TxHash()), append(wtxids, tx.WitnessHash())
		}
		template := &job.Template{
			Height:            rapid.Int32Range(1, 1<<31-1).Draw(t, "height"),
			PrevHash:          chainhash.Hash{2},
			Bits:              0x207fffff,
			CurTime:           1_700_000_000,
			Version:           0x20000000,
			CoinbaseValue:     50e8,
			TxIDs:             txids,
			WitnessCommitment: bitcoin.WitnessCommitment(wtxids),
			CoinbaseAux:       rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "aux"),
		}
		j, err := b.build(template, strings.Repeat("00", 32), 1, time.Unix(1_700_000_001, 0))
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err := job.ParseStratumJob(j.AppendTo(nil)); err != nil || parsed.Height != j.Height {
			t.Fatalf("the job is not valid: %v", err)
		}

		coinbase := slices.Concat(j.Coinbase1, make([]byte, job.ExtranonceSize), j.Coinbase2)
		var coinbaseTx wire.MsgTx
		if err := coinbaseTx.Deserialize(bytes.NewReader(coinbase)); err != nil {
			t.Fatal(err)
		}
		block := wire.MsgBlock{
			Header: wire.BlockHeader{
				Version: j.Version, PrevBlock: j.PrevHash, Bits: j.Bits, Timestamp: time.Unix(int64(j.Time), 0),
				MerkleRoot: bitcoin.MerkleRoot(bitcoin.DoubleSHA256(coinbase), j.MerkleBranch),
			},
			Transactions: append([]*wire.MsgTx{&coinbaseTx}, txs...),
		}
		coinbaseTx.TxIn[0].Witness = wire.TxWitness{make([]byte, 32)}
		target, err := bitcoin.TargetFromBits(j.Bits)
		if err != nil {
			t.Fatal(err)
		}
		for hash := block.Header.BlockHash(); !target.Met(&hash); hash = block.Header.BlockHash() {
			block.Header.Nonce++
		}
		full := btcutil.NewBlock(&block)
		if err := blockchain.CheckBlockSanity(full, chaincfg.RegressionNetParams.PowLimit, blockchain.NewMedianTime()); err != nil {
			t.Fatal(err)
		}
		if err := blockchain.ValidateWitnessCommitment(full); err != nil {
			t.Fatal(err)
		}
		if height, err := blockchain.ExtractCoinbaseHeight(btcutil.NewTx(&coinbaseTx)); err != nil || height != j.Height {
			t.Fatalf("height %d, want %d: %v", height, j.Height, err)
		}
	})
}

func TestBuild(t *testing.T) {
	t.Parallel()
	template := func() *job.Template {
		return &job.Template{
			Height: 100, Bits: 0x207fffff, CurTime: 2000, MinTime: 1000, Version: 0x20000000, CoinbaseValue: 50e8,
			CoinbaseAux: []byte("<aux>"),
		}
	}
	now := time.Unix(3000, 0)

	j, err := builder{coinbaseText: "/text/"}.build(template(), "hash", 7, now)
	if err != nil {
		t.Fatal(err)
	}
	if j.ID != 7 || j.GBTHash != "hash" || j.Time != 2000 || j.MinTime != 1000 || j.Version != 0x20000000 || len(j.MerkleBranch) != 0 {
		t.Errorf("job %+v", j)
	}
	if !bytes.HasSuffix(j.Coinbase1, []byte("<aux>/text/")) {
		t.Errorf("coinbase1 is %q", j.Coinbase1)
	}

	j, err = builder{blockVersion: 4}.build(template(), "hash", 7, now)
	if err != nil || j.Version != 4 {
		t.Errorf("version %d, want 4: %v", j.Version, err)
	}

	text := strings.Repeat("x", 77)
	crowded := template()
	crowded.CoinbaseAux = []byte(strings.Repeat("a", 20))
	j, err = builder{coinbaseText: text}.build(crowded, "hash", 7, now)
	if err != nil || !bytes.HasSuffix(j.Coinbase1, []byte(text)) || bytes.Contains(j.Coinbase1, []byte("aa")) {
		t.Errorf("coinbaseaux does not give way to the text: %q, %v", j.Coinbase1, err)
	}

	text += strings.Repeat("x", 20)
	if j, err = (builder{coinbaseText: text}).build(template(), "hash", 7, now); err == nil {
		t.Errorf("an oversized coinbase is built: %q", j.Coinbase1)
	}
}
