package jobmaker

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/auxwork"
	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// builder turns templates into jobs.
type builder struct {
	coinbase     coinbase
	subPools     map[string]coinbase
	blockVersion int32 // 0: the template's
	lockToHeight bool  // bitcoin.Coinbase.LockToHeight
	grandPool    bool  // there is room for job.GrandPrefixSize
}

// coinbase is what is the pool's own in a coinbase.
type coinbase struct {
	text    string
	payouts []payout
}

// payout is a part of the reward.
type payout struct {
	script      []byte
	basisPoints int64
}

const allBasisPoints = 100_00

// work is what a job is made of.
type work struct {
	candidate
	aux    *auxwork.Aux // nil: none
	rsk    *auxwork.RSK // nil: none
	urgent bool         // the two works above ask for a job at once
}

// build returns the job with the given id.
func (b builder) build(w work, id job.ID, now time.Time) (*job.StratumJob, error) {
	j := &job.StratumJob{
		ID:                id,
		GBTHash:           w.hash,
		PrevHash:          w.PrevHash,
		Height:            w.Height,
		MerkleBranch:      w.MerkleBranch,
		Version:           cmp.Or(b.blockVersion, w.Version),
		Bits:              w.Bits,
		Time:              max(w.CurTime, w.MinTime),
		MinTime:           w.MinTime,
		CoinbaseValue:     w.CoinbaseValue,
		WitnessCommitment: w.WitnessCommitment,
		MergedMiningClean: w.urgent,
		Left:              w.left,
	}
	if w.aux != nil {
		j.Aux = auxOfJob(w.aux)
	}
	if w.rsk != nil {
		j.RSK = rskOfJob(w.rsk)
	}
	parts, err := b.parts(b.coinbase, w, now)
	if err != nil {
		return nil, err
	}
	j.Coinbase1, j.Coinbase2, j.GrandCoinbase1 = parts.Coinbase1, parts.Coinbase2, parts.GrandCoinbase1
	if len(b.subPools) > 0 {
		j.SubPools = make(map[string]job.SubPool, len(b.subPools))
	}
	for name, c := range b.subPools {
		if j.SubPools[name], err = b.parts(c, w, now); err != nil {
			return nil, fmt.Errorf("sub-pool %s: %w", name, err)
		}
		if err := checkWeight(w, j.SubPools[name]); err != nil {
			return nil, fmt.Errorf("sub-pool %s: %w", name, err)
		}
	}
	return j, checkWeight(w, parts)
}

// checkWeight returns an error for blocks that nodes would refuse for their weight (BIP 141): the node has left too
// little room for the coinbase.
func checkWeight(w work, parts job.SubPool) error {
	const (
		maxWeight = 4_000_000
		header    = 4 * (80 + 3) // with the number of transactions
		witness   = 2 + 34       // marker and flag, the coinbase's reserved value
	)
	coinbase := 4*(len(parts.Coinbase1)+job.ExtranonceSize+len(parts.Coinbase2)) + witness
	if weight := w.Weight + header + coinbase; w.Weight > 0 && weight > maxWeight {
		return fmt.Errorf("block would have %d weight units of %d, %d in its coinbase: raise the node's blockreservedweight or lower its blockmaxweight", weight, maxWeight, coinbase)
	}
	return nil
}

// parts builds a coinbase.
func (b builder) parts(c coinbase, w work, now time.Time) (job.SubPool, error) {
	tx := bitcoin.Coinbase{
		Height:         w.Height,
		Time:           now.Unix(),
		Aux:            w.CoinbaseAux,
		Text:           c.text,
		Outputs:        c.outputs(w.CoinbaseValue),
		ExtranonceSize: job.ExtranonceSize,
		LockToHeight:   b.lockToHeight,
	}
	if b.grandPool {
		tx.ExtranonceSize += job.GrandPrefixSize
	}
	if w.aux != nil {
		tx.MergedMining = bitcoin.AuxPoWCommitment(w.aux.Hash, w.aux.MerkleSize, w.aux.MerkleNonce)
	}
	if w.WitnessCommitment != nil {
		tx.Outputs = append(tx.Outputs, wire.TxOut{PkScript: w.WitnessCommitment})
	}
	if w.rsk != nil {
		tx.Outputs = append(tx.Outputs, wire.TxOut{PkScript: bitcoin.RSKCommitmentScript(w.rsk.BlockHash)})
	}
	coinbase1, coinbase2, err := tx.Build()
	if err != nil && len(tx.Aux) > 0 {
		tx.Aux = nil // only recommended (BIP 22), while the text is known to fit
		coinbase1, coinbase2, err = tx.Build()
	}
	if err != nil {
		return job.SubPool{}, err
	}
	parts := job.SubPool{Coinbase1: coinbase1, Coinbase2: coinbase2}
	if b.grandPool {
		parts.GrandCoinbase1 = coinbase1
		parts.Coinbase1 = append(coinbase1[:len(coinbase1):len(coinbase1)], make([]byte, job.GrandPrefixSize)...)
	}
	return parts, nil
}

// outputs shares out value; the first payout also gets what does not divide.
func (c coinbase) outputs(value int64) []wire.TxOut {
	outputs := make([]wire.TxOut, len(c.payouts))
	rest := value
	for i, p := range c.payouts {
		// By parts, as the product could exceed 63 bits.
		share := value/allBasisPoints*p.basisPoints + value%allBasisPoints*p.basisPoints/allBasisPoints
		outputs[i] = wire.TxOut{Value: share, PkScript: p.script}
		rest -= share
	}
	outputs[0].Value += rest
	return outputs
}

// longest returns the size in bytes of the longest transaction that c can become in the blocks to come, without
// witness, or why it cannot be built.
func (b builder) longest(c coinbase, withAux, withRSK bool) (int, error) {
	w := work{candidate: candidate{Template: &job.Template{
		Height:            math.MaxInt32,
		WitnessCommitment: bitcoin.WitnessCommitmentScript(chainhash.Hash{}),
	}}}
	if withAux {
		w.aux = &auxwork.Aux{}
	}
	if withRSK {
		w.rsk = &auxwork.RSK{}
	}
	parts, err := b.parts(c, w, time.Unix(math.MaxUint32, 0))
	return len(parts.Coinbase1) + job.ExtranonceSize + len(parts.Coinbase2), err
}
