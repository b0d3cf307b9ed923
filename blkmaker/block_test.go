package blkmaker

import (
	"bytes"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

const easyBits = 0x207fffff

// solve mines a block on the transactions as a miner of the pool would.
func solve(t interface{ Fatal(...any) }, txs []*wire.MsgTx, commit bool) (*share.Solved, *job.StratumJob, []string) {
	txids := make([]chainhash.Hash, len(txs))
	wtxids := make([]chainhash.Hash, len(txs))
	raw := make([]string, len(txs))
	for i, tx := range txs {
		txids[i], wtxids[i] = tx.TxHash(), tx.WitnessHash()
		var data strings.Builder
		if err := tx.Serialize(&data); err != nil {
			t.Fatal(err)
		}
		raw[i] = data.String()
	}
	outputs := []wire.TxOut{{Value: 50e8, PkScript: []byte{0x51}}}
	if commit {
		outputs = append(outputs, wire.TxOut{PkScript: bitcoin.WitnessCommitment(wtxids)})
	}
	now := time.Now()
	coinbase1, coinbase2, err := bitcoin.Coinbase{
		Height: 700, Time: now.Unix(), Text: "/test/", Outputs: outputs, ExtranonceSize: job.ExtranonceSize,
	}.Build()
	if err != nil {
		t.Fatal(err)
	}
	j := &job.StratumJob{
		ID: 1, PrevHash: chainhash.Hash{1, 2, 3}, Height: 700, Coinbase1: coinbase1, Coinbase2: coinbase2,
		MerkleBranch: bitcoin.MerkleBranch(txids), Version: 0x20000000, Bits: easyBits, Time: uint32(now.Unix()),
	}
	return testkit.Solve(t, j), j, raw
}

// drawTx makes a transaction that is sane, though it spends what is not there.
func drawTx(t *rapid.T, i int, witness bool) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	script := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "script")
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: bitcoin.DoubleSHA256(fmt.Append(nil, i))}, nil, nil))
	if witness && rapid.Bool().Draw(t, "has witness") {
		tx.TxIn[0].Witness = wire.TxWitness{script, {1}}
	}
	tx.AddTxOut(wire.NewTxOut(rapid.Int64Range(0, 1e8).Draw(t, "value"), append([]byte{0x6a}, script...)))
	return tx
}

// What assemble makes of any template passes the checks of a node.
func TestAssembledBlocksAreSane(t *testing.T) {
	t.Parallel()
	limit := blockchain.CompactToBig(easyBits)
	rapid.Check(t, func(t *rapid.T) {
		witness := rapid.Bool().Draw(t, "segwit")
		txs := make([]*wire.MsgTx, rapid.OneOf(rapid.IntRange(0, 10), rapid.IntRange(0, 700)).Draw(t, "transactions"))
		for i := range txs {
			txs[i] = drawTx(t, i, witness)
		}
		solved, j, raw := solve(t, txs, witness)
		b, err := assemble(solved, j, raw)
		if err != nil {
			t.Fatal(err)
		}
		checkSane(t, b, limit, txs)
		if b.rewardSat != 50e8 || b.height != 700 {
			t.Fatalf("reward %d at height %d", b.rewardSat, b.height)
		}
	})
}

func checkSane(t interface{ Fatal(...any) }, b *block, limit *big.Int, txs []*wire.MsgTx) {
	parsed, err := btcutil.NewBlockFromBytes(b.raw)
	if err != nil {
		t.Fatal(err)
	}
	if size := parsed.MsgBlock().SerializeSize(); size != len(b.raw) {
		t.Fatal("block of", size, "bytes among", len(b.raw))
	}
	if err := blockchain.CheckBlockSanity(parsed, limit, blockchain.NewMedianTime()); err != nil {
		t.Fatal(err)
	}
	if err := blockchain.ValidateWitnessCommitment(parsed); err != nil {
		t.Fatal(err)
	}
	if *parsed.Hash() != b.hash {
		t.Fatal("hash", b.hash, "is not that of", parsed.Hash())
	}
	got := parsed.MsgBlock().Transactions[1:]
	if len(got) != len(txs) {
		t.Fatal(len(got), "transactions instead of", len(txs))
	}
	for i := range got {
		if got[i].WitnessHash() != txs[i].WitnessHash() {
			t.Fatal("transaction", i, "differs")
		}
	}
}

func TestAssembleRefuses(t *testing.T) {
	t.Parallel()
	tx := wire.NewMsgTx(2)
	tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: 5}, nil, nil))
	tx.AddTxOut(wire.NewTxOut(1, nil))
	for _, test := range []struct {
		name    string
		spoil   func(*share.Solved, *job.StratumJob)
		drop    bool // of the template's only transaction
		wantErr string
	}{
		{name: "other parent", spoil: func(_ *share.Solved, j *job.StratumJob) { j.PrevHash[0]++ }, wantErr: "its job"},
		{name: "other bits", spoil: func(_ *share.Solved, j *job.StratumJob) { j.Bits-- }, wantErr: "has bits 207fffff"},
		{name: "too hard", spoil: func(s *share.Solved, j *job.StratumJob) {
			j.Bits = 0x1d00ffff
			copy(s.Header[72:], []byte{0xff, 0xff, 0x00, 0x1d})
		}, wantErr: "misses the target"},
		{name: "impossible bits", spoil: func(s *share.Solved, j *job.StratumJob) {
			j.Bits = 0
			clear(s.Header[72:76])
		}, wantErr: "bits"},
		{name: "other coinbase", spoil: func(s *share.Solved, _ *job.StratumJob) { s.Coinbase[60]++ }, wantErr: "merkle root"},
		{name: "other branch", spoil: func(_ *share.Solved, j *job.StratumJob) { j.MerkleBranch[0][0]++ }, wantErr: "merkle root"},
		{name: "cut coinbase", spoil: func(s *share.Solved, _ *job.StratumJob) { s.Coinbase = s.Coinbase[:50] }, wantErr: "coinbase: "},
		{name: "longer coinbase", spoil: func(s *share.Solved, _ *job.StratumJob) { s.Coinbase = append(s.Coinbase, 0) }, wantErr: "1 bytes behind it"},
		{name: "no coinbase", spoil: func(s *share.Solved, _ *job.StratumJob) { s.Coinbase[10]++ }, wantErr: "spends something"},
		{name: "other template", drop: true, wantErr: "0 transactions do not fit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			solved, j, raw := solve(t, []*wire.MsgTx{tx}, false)
			if test.spoil != nil {
				test.spoil(solved, j)
			}
			if test.drop {
				raw = nil
			}
			b, err := assemble(solved, j, raw)
			if b != nil || err == nil || !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("%v, %v, want %q", b, err, test.wantErr)
			}
		})
	}
}

// A block of a client with a pool of its own has that client's bytes where all others have zeros, and is as good for whose
// coinbase it has.
func TestAssembleGrandPool(t *testing.T) {
	t.Parallel()
	grand, coinbase2, err := bitcoin.Coinbase{
		Height: 700, Text: "/test/", Outputs: []wire.TxOut{{Value: 50e8, PkScript: []byte{0x51}}}, ExtranonceSize: job.GrandPrefixSize + job.ExtranonceSize,
	}.Build()
	must(t, err)
	_, j, txs := solve(t, nil, false)
	j.Coinbase2 = coinbase2
	// The test's extranonce of 16 bytes: the session's four, the client's, and all others'.
	of := j.With(job.SubPool{Coinbase1: append(slices.Clone(grand), 1, 2, 3, 4), Coinbase2: j.Coinbase2})
	solved := testkit.Solve(t, of)
	j.Coinbase1, j.GrandCoinbase1 = append(slices.Clone(grand), make([]byte, job.GrandPrefixSize)...), grand
	foreign := j.With(job.SubPool{Coinbase1: j.Coinbase1, GrandCoinbase1: grand, Coinbase2: append([]byte{0}, coinbase2[1:]...)})
	foreign.SubPools = map[string]job.SubPool{"farm": j.Own()}
	for want, j := range map[string]*job.StratumJob{"": j, "farm": foreign} {
		b, err := assemble(solved, j, txs)
		if err != nil {
			t.Fatal(err)
		}
		if b.subPool != want {
			t.Errorf("block of sub-pool %q, want %q", b.subPool, want)
		}
	}
}

// A coinbase that comes with its witness keeps it.
func TestAssembleKeepsWitness(t *testing.T) {
	t.Parallel()
	solved, j, raw := solve(t, nil, true)
	want, err := assemble(solved, j, raw)
	if err != nil {
		t.Fatal(err)
	}
	solved.Coinbase = want.raw[81:]
	got, err := assemble(solved, j, raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.raw, want.raw) {
		t.Errorf("%x\nwant\n%x", got.raw, want.raw)
	}
}

func FuzzAssemble(f *testing.F) {
	solved, j, raw := solve(f, nil, true)
	f.Add(solved.AppendTo(nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		solved, err := share.ParseSolved(msg)
		if err != nil {
			return
		}
		b, err := assemble(&solved, j, raw)
		if err != nil {
			return
		}
		parsed, err := btcutil.NewBlockFromBytes(b.raw)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parsed.Bytes(); err != nil || !bytes.Equal(again, b.raw) {
			t.Fatalf("%x is not stable: %v", b.raw, err)
		}
		if root := blockchain.CalcMerkleRoot(parsed.Transactions(), false); root != parsed.MsgBlock().Header.MerkleRoot {
			t.Fatalf("merkle root %s is not that of the header", root)
		}
	})
}

// BenchmarkAssemble takes a template of 3,000 transactions and 1.5 MB.
func BenchmarkAssemble(b *testing.B) {
	var txs []*wire.MsgTx
	for i := range 3000 {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Hash: bitcoin.DoubleSHA256(fmt.Append(nil, i))}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(1, make([]byte, 440)))
		txs = append(txs, tx)
	}
	solved, j, raw := solve(b, txs, true)
	b.ReportAllocs()
	for b.Loop() {
		made, err := assemble(solved, j, raw)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(made.raw)))
	}
}
