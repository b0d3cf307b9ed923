package bitcoin_test

import (
	"crypto/sha256"
	"testing"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
)

func mustHash(t testing.TB, display string) chainhash.Hash {
	t.Helper()
	h, err := chainhash.NewHashFromStrStrict(display)
	if err != nil {
		t.Fatal(err)
	}
	return *h
}

func TestMerkleMainnetBlock100000(t *testing.T) {
	t.Parallel()
	coinbase := mustHash(t, "8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87")
	others := []chainhash.Hash{
		mustHash(t, "fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4"),
		mustHash(t, "6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4"),
		mustHash(t, "e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d"),
	}
	got := bitcoin.MerkleRoot(coinbase, bitcoin.MerkleBranch(others))
	if want := mustHash(t, "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766"); got != want {
		t.Errorf("merkle root %s, want %s", got, want)
	}
}

// randomBlock draws a block of a coinbase and some other transactions, a few of them with a witness.
func randomBlock(t *rapid.T) (txs []*btcutil.Tx, txids, wtxids []chainhash.Hash) {
	n := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(253, 260)).Draw(t, "transactions")
	seed := rapid.Uint32().Draw(t, "seed")
	for i := range n + 1 {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(&wire.OutPoint{Index: seed + uint32(i)}, nil, nil))
		tx.AddTxOut(wire.NewTxOut(int64(i), nil))
		if i == 0 {
			tx.TxIn[0] = wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), []byte{1, 2}, wire.TxWitness{make([]byte, 32)})
		} else if seed>>(i%32)&1 == 1 {
			tx.TxIn[0].Witness = wire.TxWitness{{byte(i)}}
		}
		txs = append(txs, btcutil.NewTx(tx))
		if i > 0 {
			txids = append(txids, tx.TxHash())
			wtxids = append(wtxids, tx.WitnessHash())
		}
	}
	return txs, txids, wtxids
}

func TestMerkleAgainstBtcd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		txs, txids, _ := randomBlock(t)
		before := append([]chainhash.Hash(nil), txids...)
		got := bitcoin.MerkleRoot(*txs[0].Hash(), bitcoin.MerkleBranch(txids))
		if want := blockchain.CalcMerkleRoot(txs, false); got != want {
			t.Fatalf("merkle root %s, want %s", got, want)
		}
		if diff := cmp.Diff(before, txids); diff != "" {
			t.Fatalf("MerkleBranch changed its argument:\n%s", diff)
		}
	})
}

func TestWitnessCommitmentAgainstBtcd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		txs, _, wtxids := randomBlock(t)
		script := bitcoin.WitnessCommitment(wtxids)
		if len(script) != 38 {
			t.Fatalf("script of %d bytes", len(script))
		}
		block := &wire.MsgBlock{}
		txs[0].MsgTx().AddTxOut(wire.NewTxOut(0, script))
		for _, tx := range txs {
			block.Transactions = append(block.Transactions, tx.MsgTx())
		}
		if err := blockchain.ValidateWitnessCommitment(btcutil.NewBlock(block)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	header := make([]byte, 80)
	branch := make([]chainhash.Hash, 12)
	target := bitcoin.Difficulty(14).Target()
	for name, f := range map[string]func(){
		"DoubleSHA256": func() { bitcoin.DoubleSHA256(header) },
		"MerkleRoot":   func() { bitcoin.MerkleRoot(chainhash.Hash{}, branch) },
		"Target.Met": func() {
			hash := chainhash.Hash(bitcoin.DoubleSHA256(header))
			target.Met(&hash)
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// A pair is hashed by three compressions: two for its 64 bytes and the padding, one for the second round.
const compressionsPerPair = 3

func BenchmarkMerkleRoot12(b *testing.B) {
	branch := make([]chainhash.Hash, 12)
	b.ReportAllocs()
	for b.Loop() {
		bitcoin.MerkleRoot(chainhash.Hash{}, branch)
	}
}

// The limit of BenchmarkMerkleRoot12: as many compressions in one go.
func BenchmarkMerkleRoot12Limit(b *testing.B) {
	data := make([]byte, (12*compressionsPerPair-1)*sha256.BlockSize) // and one of padding
	b.ReportAllocs()
	for b.Loop() {
		sha256.Sum256(data)
	}
}

func BenchmarkMerkleBranch3500(b *testing.B) {
	txids := make([]chainhash.Hash, 3500)
	b.ReportAllocs()
	for b.Loop() {
		bitcoin.MerkleBranch(txids)
	}
}

// The limit of BenchmarkMerkleBranch3500, which hashes as many pairs.
func BenchmarkMerkleBranch3500Limit(b *testing.B) {
	data := make([]byte, (3495*compressionsPerPair-1)*sha256.BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		sha256.Sum256(data)
	}
}
