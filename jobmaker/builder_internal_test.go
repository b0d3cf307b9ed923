package jobmaker

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// single pays everything to anyone.
func single(text string) coinbase {
	return coinbase{text: text, payouts: []payout{{[]byte{0x51}, allBasisPoints}}}
}

func fixedWork(aux string) work {
	return work{candidate: candidate{hash: "hash", Template: &job.Template{
		Height: 100, Bits: 0x207fffff, CurTime: 2000, MinTime: 1000, Version: 0x20000000, CoinbaseValue: 50e8,
		CoinbaseAux: []byte(aux),
	}}}
}

// response is what a node whose next block is at height and holds txs answers to getblocktemplate.
func response(height int32, txs []*wire.MsgTx, aux []byte) []byte {
	var list bytes.Buffer
	wtxids := make([]chainhash.Hash, len(txs))
	witness := false
	for i, tx := range txs {
		if i > 0 {
			list.WriteByte(',')
		}
		list.WriteString(`{"data":"`)
		_ = tx.Serialize(hexWriter{&list})
		txid := tx.TxHash()
		wtxids[i] = tx.WitnessHash()
		witness = witness || txid != wtxids[i]
		fmt.Fprintf(&list, `","txid":"%s","hash":"%s","depends":[],"fee":1,"sigops":0,"weight":400}`, txid, wtxids[i])
	}
	commitment := ""
	if witness {
		commitment = fmt.Sprintf(`"default_witness_commitment":"%x",`, bitcoin.WitnessCommitment(wtxids))
	}
	return fmt.Appendf(nil, `{"result":{"version":536870912,"rules":["csv","!segwit"],"previousblockhash":"%064x",`+
		`"transactions":[%s],"coinbaseaux":{"flags":"%x"},"coinbasevalue":5000000123,%s"mintime":1699990000,`+
		`"curtime":1700000000,"bits":"207fffff","height":%d},"error":null,"id":1}`, 2, &list, aux, commitment, height)
}

type hexWriter struct{ w io.Writer }

func (h hexWriter) Write(b []byte) (int, error) { return fmt.Fprint(h.w, hex.EncodeToString(b)) }

func transactions(n int, witness func(i int) bool) []*wire.MsgTx {
	txs := make([]*wire.MsgTx, n)
	for i := range txs {
		tx := wire.NewMsgTx(2)
		tx.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{1}, uint32(i)), nil, nil))
		if witness(i) {
			tx.TxIn[0].Witness = wire.TxWitness{{1}}
		}
		tx.AddTxOut(wire.NewTxOut(1, []byte{0x51}))
		txs[i] = tx
	}
	return txs
}

// The block that a miner and blkmaker make of a job is sane to btcd, whatever the template, the configuration and the
// chains mined along are.
func TestBuildAgainstBtcd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := builder{
			coinbase: coinbase{text: "/test/", payouts: []payout{{[]byte{0x51}, 3333}, {[]byte{0x52}, 6667}}},
			subPools: map[string]coinbase{
				"a": {text: "/a/", payouts: []payout{{[]byte{0x51}, 1}, {[]byte{0x52}, 9998}, {[]byte{0x53}, 1}}},
			},
			lockToHeight: rapid.Bool().Draw(t, "lock"),
			grandPool:    rapid.Bool().Draw(t, "grand pool"),
		}
		witnessEach := rapid.IntRange(0, 3).Draw(t, "witness each") // 0: none has a witness
		txs := transactions(rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 5000)).Draw(t, "transactions"), func(i int) bool {
			return witnessEach > 0 && i%witnessEach == 0
		})
		height := rapid.Int32Range(1, 499_999_999).Draw(t, "height")
		aux := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "aux")
		template, err := job.ParseTemplate(response(height, txs, aux))
		if err != nil {
			t.Fatal(err)
		}
		w := work{candidate: candidate{Template: template, hash: strings.Repeat("00", 32)}}
		if rapid.Bool().Draw(t, "AuxPoW") {
			w.aux = &auxwork.Aux{Hash: chainhash.Hash{3}, Bits: 0x207fffff, MerkleSize: 1}
		}
		if rapid.Bool().Draw(t, "RSK") {
			w.rsk = &auxwork.RSK{BlockHash: auxwork.RSKHash{4}, Target: auxwork.RSKHash{5}, FeesForMiner: "0"}
		}

		built, err := b.build(w, 1, time.Unix(1_700_000_001, 0))
		if err != nil {
			t.Fatal(err)
		}
		j, err := job.ParseStratumJob(built.AppendTo(nil))
		if err != nil {
			t.Fatalf("the job is not valid: %v", err)
		}
		if diff := cmp.Diff(built, j); diff != "" {
			t.Fatalf("the job on the wire is another:\n%s", diff)
		}
		checkBlock(t, j, j.Coinbase1, j.Coinbase2, txs)
		checkBlock(t, j, j.SubPools["a"].Coinbase1, j.SubPools["a"].Coinbase2, txs)
	})
}

// checkBlock completes a block as sserver and blkmaker do.
func checkBlock(t *rapid.T, j *job.StratumJob, coinbase1, coinbase2 []byte, txs []*wire.MsgTx) {
	coinbase := slices.Concat(coinbase1, bytes.Repeat([]byte{0xee}, job.ExtranonceSize), coinbase2)
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
	if j.WitnessCommitment != nil {
		coinbaseTx.TxIn[0].Witness = wire.TxWitness{make([]byte, 32)}
	}
	target, err := bitcoin.TargetFromBits(j.Bits)
	if err != nil {
		t.Fatal(err)
	}
	for hash := block.Header.BlockHash(); !target.Met(&hash); hash = block.Header.BlockHash() {
		block.Header.Nonce++
	}
	full := btcutil.NewBlock(&block)
	if root := blockchain.CalcMerkleRoot(full.Transactions(), false); root != block.Header.MerkleRoot {
		t.Fatalf("merkle root %s, want %s", block.Header.MerkleRoot, root)
	}
	if err := blockchain.CheckBlockSanity(full, chaincfg.RegressionNetParams.PowLimit, blockchain.NewMedianTime()); err != nil {
		t.Fatal(err)
	}
	if err := blockchain.ValidateWitnessCommitment(full); err != nil {
		t.Fatal(err)
	}
	tx := full.Transactions()[0]
	if height, err := blockchain.ExtractCoinbaseHeight(tx); err != nil || height != j.Height {
		t.Fatalf("height %d, want %d: %v", height, j.Height, err)
	}
	if !blockchain.IsFinalizedTransaction(tx, j.Height, block.Header.Timestamp) {
		t.Fatalf("coinbase with lock time %d is not final at height %d", coinbaseTx.LockTime, j.Height)
	}
	var paid int64
	for _, out := range coinbaseTx.TxOut {
		paid += out.Value
	}
	if paid != j.CoinbaseValue {
		t.Fatalf("%d satoshi are paid, want %d", paid, j.CoinbaseValue)
	}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	now := time.Unix(3000, 0)
	j, err := builder{coinbase: single("/text/")}.build(fixedWork("<aux>"), 7, now)
	if err != nil {
		t.Fatal(err)
	}
	if j.ID != 7 || j.GBTHash != "hash" || j.Time != 2000 || j.MinTime != 1000 || j.Version != 0x20000000 || len(j.MerkleBranch) != 0 ||
		j.SubPools != nil || j.GrandCoinbase1 != nil || j.MergedMiningClean {
		t.Errorf("job %+v", j)
	}
	if !bytes.HasSuffix(j.Coinbase1, []byte("<aux>/text/")) {
		t.Errorf("coinbase1 is %q", j.Coinbase1)
	}
	if !bytes.HasPrefix(j.Coinbase2, []byte{0xff, 0xff, 0xff, 0xff}) || !bytes.HasSuffix(j.Coinbase2, make([]byte, 4)) {
		t.Errorf("coinbase2 is %x", j.Coinbase2)
	}

	j, err = builder{coinbase: single(""), blockVersion: 4}.build(fixedWork(""), 7, now)
	if err != nil || j.Version != 4 {
		t.Errorf("version %d, want 4: %v", j.Version, err)
	}

	j, err = builder{coinbase: single(""), lockToHeight: true}.build(fixedWork(""), 7, now)
	if err != nil || !bytes.HasPrefix(j.Coinbase2, []byte{0xfe, 0xff, 0xff, 0xff}) || !bytes.HasSuffix(j.Coinbase2, []byte{99, 0, 0, 0}) {
		t.Errorf("coinbase2 locked to the height is %x: %v", j.Coinbase2, err)
	}

	text := strings.Repeat("x", 77)
	j, err = builder{coinbase: single(text)}.build(fixedWork(strings.Repeat("a", 20)), 7, now)
	if err != nil || !bytes.HasSuffix(j.Coinbase1, []byte(text)) || bytes.Contains(j.Coinbase1, []byte("aa")) {
		t.Errorf("coinbaseaux does not give way to the text: %q, %v", j.Coinbase1, err)
	}

	text += strings.Repeat("x", 20)
	if j, err = (builder{coinbase: single(text)}).build(fixedWork(""), 7, now); err == nil {
		t.Errorf("an oversized coinbase is built: %q", j.Coinbase1)
	}
	if _, err = (builder{coinbase: single(""), subPools: map[string]coinbase{"sub": single(text)}}).build(fixedWork(""), 7, now); err == nil ||
		!strings.Contains(err.Error(), "sub-pool sub") {
		t.Errorf("an oversized coinbase of a sub-pool: %v", err)
	}
}

func TestBuildSubPools(t *testing.T) {
	t.Parallel()
	j, err := builder{coinbase: single("/main/"), subPools: map[string]coinbase{
		"sub": {text: "/sub/", payouts: []payout{{[]byte{0x52}, allBasisPoints}}},
	}}.build(fixedWork(""), 7, time.Unix(3000, 0))
	if err != nil {
		t.Fatal(err)
	}
	sub := j.SubPools["sub"]
	if len(j.SubPools) != 1 || !bytes.HasSuffix(sub.Coinbase1, []byte("/sub/")) || !bytes.Contains(sub.Coinbase2, []byte{1, 0x52}) {
		t.Errorf("sub-pools %q", j.SubPools)
	}
	if !bytes.HasSuffix(j.Coinbase1, []byte("/main/")) || !bytes.Contains(j.Coinbase2, []byte{1, 0x51}) {
		t.Errorf("coinbase %q, %q", j.Coinbase1, j.Coinbase2)
	}
}

// An ordinary miner has four zeros where a client with a pool of its own may write; the transaction is the same for
// both.
func TestBuildGrandPool(t *testing.T) {
	t.Parallel()
	j, err := builder{coinbase: single("/text/"), grandPool: true}.build(fixedWork(""), 7, time.Unix(3000, 0))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(j.Coinbase1, append(bytes.Clone(j.GrandCoinbase1), 0, 0, 0, 0)) || !bytes.HasSuffix(j.GrandCoinbase1, []byte("/text/")) {
		t.Errorf("coinbase1 %x, for a grand pool %x", j.Coinbase1, j.GrandCoinbase1)
	}
}

func TestBuildMergedMining(t *testing.T) {
	t.Parallel()
	w := fixedWork("")
	w.urgent = true
	w.aux = &auxwork.Aux{Hash: chainhash.Hash{31: 1}, Height: 5, Bits: 0x1d00ffff, MerkleSize: 4, MerkleNonce: 6, RPCAddr: "chain", RPCUserPass: "u:p"}
	w.rsk = &auxwork.RSK{BlockHash: auxwork.RSKHash{1}, Target: auxwork.RSKHash{2}, FeesForMiner: "21", RPCAddr: "rsk", RPCUserPass: "v:q"}
	j, err := builder{coinbase: single("/text/")}.build(w, 7, time.Unix(3000, 0))
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte("/text/"), bitcoin.AuxPoWCommitment(w.aux.Hash, 4, 6)...); !bytes.HasSuffix(j.Coinbase1, want) {
		t.Errorf("coinbase1 %x does not end in %x", j.Coinbase1, want)
	}
	// RSK's is the last output: nothing but the lock time follows.
	if want := append(bitcoin.RSKCommitmentScript(w.rsk.BlockHash), 0, 0, 0, 0); !bytes.HasSuffix(j.Coinbase2, want) {
		t.Errorf("coinbase2 %x does not end in %x", j.Coinbase2, want)
	}
	wantAux := job.AuxWork{BlockHash: "01" + strings.Repeat("00", 31), Bits: 0x1d00ffff, Height: 5, RPCAddr: "chain", RPCUserPass: "u:p"}
	wantRSK := job.RSKWork{
		BlockHash: "0x01" + strings.Repeat("00", 31), NetworkTarget: "0x02" + strings.Repeat("00", 31),
		FeesForMiner: "21", RPCAddr: "rsk", RPCUserPass: "v:q",
	}
	if diff := cmp.Diff(wantAux, j.Aux) + cmp.Diff(wantRSK, j.RSK); diff != "" {
		t.Error(diff)
	}
	if !j.MergedMiningClean {
		t.Error("the job is not urgent")
	}
}

func TestOutputs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := coinbase{}
		for left := int64(allBasisPoints); left > 0; {
			part := rapid.Int64Range(1, left).Draw(t, "part")
			c.payouts = append(c.payouts, payout{basisPoints: part})
			left -= part
		}
		value := rapid.Int64Range(0, btcutil.MaxSatoshi).Draw(t, "value")
		sum := int64(0)
		for i, out := range c.outputs(value) {
			exact := float64(value) * float64(c.payouts[i].basisPoints) / allBasisPoints
			if off := float64(out.Value) - exact; i > 0 && (off > 1 || off < -2) || i == 0 && (off < -2 || off > float64(len(c.payouts))+1) {
				t.Fatalf("output %d of %d is %d, exactly %f", i, value, out.Value, exact)
			}
			sum += out.Value
		}
		if sum != value {
			t.Fatalf("outputs add up to %d of %d", sum, value)
		}
	})
}

// What is found to fit at the start is never exceeded later.
func TestLongest(t *testing.T) {
	t.Parallel()
	b := builder{lockToHeight: true}
	size, err := b.longest(single("/text/"), true, true)
	if err != nil {
		t.Fatal(err)
	}
	w := fixedWork("")
	w.Height, w.CoinbaseValue, w.WitnessCommitment = math.MaxInt32, btcutil.MaxSatoshi, bitcoin.WitnessCommitment(nil)
	w.aux, w.rsk = &auxwork.Aux{MerkleSize: math.MaxUint32}, &auxwork.RSK{}
	j, err := builder{coinbase: single("/text/"), lockToHeight: true}.build(w, 1, time.Unix(math.MaxUint32, 0))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(j.Coinbase1) + job.ExtranonceSize + len(j.Coinbase2); got != size {
		t.Errorf("%d bytes, want %d", got, size)
	}
}

// A job has a time that its blocks may have, also when the node's mintime is later than its curtime.
func TestBuildTime(t *testing.T) {
	t.Parallel()
	w := fixedWork("")
	w.MinTime = w.CurTime + 1
	j, err := builder{coinbase: single("")}.build(w, 1, time.Unix(2000, 0))
	if err != nil || j.Time != j.MinTime || j.MinTime != w.MinTime {
		t.Errorf("time %d, earliest %d, %v", j.Time, j.MinTime, err)
	}
}

// A block that nodes would refuse for its weight is noticed when its job is made.
func TestBuildHeavy(t *testing.T) {
	t.Parallel()
	b := builder{coinbase: single("/test/")}
	b.coinbase.payouts[0].script = make([]byte, 100)
	const room = 2000 // bitcoind's smallest blockreservedweight
	for _, test := range []struct {
		weight, outputs int
		heavy           bool
	}{
		{4_000_000 - room, 1, false},
		{4_000_000 - room, 5, true},
		{0, 5, false}, // not known
		{3_992_000, 5, false},
	} {
		w := fixedWork("")
		w.Weight = test.weight
		b.coinbase.payouts = make([]payout, test.outputs)
		for i := range b.coinbase.payouts {
			b.coinbase.payouts[i] = payout{make([]byte, 100), int64(allBasisPoints / test.outputs)}
		}
		_, err := b.build(w, 1, time.Unix(2000, 0))
		if heavy := err != nil && strings.Contains(err.Error(), "blockreservedweight"); heavy != test.heavy {
			t.Errorf("%+v: %v", test, err)
		}
		b.subPools = map[string]coinbase{"sub": b.coinbase}
		b.coinbase = single("")
		if _, err := b.build(w, 1, time.Unix(2000, 0)); (err != nil) != test.heavy {
			t.Errorf("sub-pool, %+v: %v", test, err)
		}
		b.subPools = nil
	}
}
