package blkmaker

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
)

// block is a block as it goes to the nodes.
type block struct {
	header    wire.BlockHeader
	hash      chainhash.Hash
	height    int32
	rewardSat int64  // sum of the coinbase's outputs
	size      int    // in bytes, with witness
	subPool   string // whose coinbase it has; "": the pool's own, or nobody knows
	raw       []byte // complete, with witness; nil: out of reach
}

// bare returns all of a block that its solved share says, and its coinbase.
func bare(solved *share.Solved) (*block, *wire.MsgTx, error) {
	b := &block{height: solved.Height, hash: bitcoin.DoubleSHA256(solved.Header[:])}
	if err := b.header.Deserialize(bytes.NewReader(solved.Header[:])); err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	coinbase, err := parseCoinbase(solved.Coinbase)
	if err != nil {
		return nil, nil, fmt.Errorf("coinbase: %w", err)
	}
	for _, out := range coinbase.TxOut {
		b.rewardSat += out.Value
	}
	return b, coinbase, nil
}

// assemble makes a block of what a miner found, the job it worked on and the other transactions of the job's template.
// What could not be a block on any chain is an error.
func assemble(solved *share.Solved, j *job.StratumJob, txs []string) (*block, error) {
	b, coinbase, err := bare(solved)
	if err != nil {
		return nil, err
	}
	b.height, b.subPool = j.Height, j.SubPoolOf(solved.Coinbase)
	if b.header.PrevBlock != j.PrevHash {
		return nil, fmt.Errorf("header follows %s, its job %s", b.header.PrevBlock, j.PrevHash)
	}
	if b.header.Bits != j.Bits {
		return nil, fmt.Errorf("header has bits %08x, its job %08x", b.header.Bits, j.Bits)
	}
	target, err := bitcoin.TargetFromBits(j.Bits)
	if err != nil {
		return nil, err
	}
	if !target.Met(&b.hash) {
		return nil, fmt.Errorf("hash %s misses the target of bits %08x", b.hash, j.Bits)
	}
	if root := bitcoin.MerkleRoot(coinbase.TxHash(), j.MerkleBranch); b.header.MerkleRoot != root {
		return nil, fmt.Errorf("header has merkle root %s, coinbase and job give %s", b.header.MerkleRoot, root)
	}
	if depth := bits.Len(uint(len(txs))); depth != len(j.MerkleBranch) {
		return nil, fmt.Errorf("%d transactions do not fit a merkle branch of %d hashes", len(txs), len(j.MerkleBranch))
	}

	for _, out := range coinbase.TxOut {
		if isCommitment(out.PkScript) && !coinbase.HasWitness() {
			// The witness reserved value (BIP 141). Bitcoin Core adds it where it is missing, other nodes refuse the
			// block.
			coinbase.TxIn[0].Witness = wire.TxWitness{make([]byte, chainhash.HashSize)}
		}
	}
	count := uint64(1 + len(txs))
	size := wire.MaxBlockHeaderPayload + wire.VarIntSerializeSize(count) + coinbase.SerializeSize()
	for _, tx := range txs {
		size += len(tx)
	}
	raw := bytes.NewBuffer(make([]byte, 0, size))
	raw.Write(solved.Header[:])
	if err := errors.Join(wire.WriteVarInt(raw, 0, count), coinbase.Serialize(raw)); err != nil {
		return nil, err
	}
	for _, tx := range txs {
		raw.WriteString(tx)
	}
	b.raw, b.size = raw.Bytes(), raw.Len()
	return b, nil
}

// parseCoinbase reads a coinbase, with or without witness, and nothing else.
func parseCoinbase(raw []byte) (*wire.MsgTx, error) {
	var tx wire.MsgTx
	r := bytes.NewReader(raw)
	if err := tx.Deserialize(r); err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%d bytes behind it", r.Len())
	}
	if len(tx.TxIn) != 1 || tx.TxIn[0].PreviousOutPoint != (wire.OutPoint{Index: wire.MaxPrevOutIndex}) {
		return nil, errors.New("spends something")
	}
	return &tx, nil
}

// isCommitment tells whether an output commits to the witness data of the block (BIP 141).
func isCommitment(script []byte) bool {
	return len(script) >= 38 && bytes.HasPrefix(script, []byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed})
}
