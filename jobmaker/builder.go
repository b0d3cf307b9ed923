package jobmaker

import (
	"math"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// builder turns templates into jobs.
type builder struct {
	payoutScript []byte
	coinbaseText string
	blockVersion int32 // 0: the template's
}

// build returns the job with the given id on a template, which is named hash.
func (b builder) build(t *job.Template, hash string, id job.ID, now time.Time) (*job.StratumJob, error) {
	coinbase := b.coinbase(t, now)
	coinbase1, coinbase2, err := coinbase.Build()
	if err != nil && len(coinbase.Aux) > 0 {
		coinbase.Aux = nil // only recommended (BIP 22), while the text is known to fit
		coinbase1, coinbase2, err = coinbase.Build()
	}
	if err != nil {
		return nil, err
	}
	version := b.blockVersion
	if version == 0 {
		version = t.Version
	}
	return &job.StratumJob{
		ID:                id,
		GBTHash:           hash,
		PrevHash:          t.PrevHash,
		Height:            t.Height,
		Coinbase1:         coinbase1,
		Coinbase2:         coinbase2,
		MerkleBranch:      bitcoin.MerkleBranch(t.TxIDs),
		Version:           version,
		Bits:              t.Bits,
		Time:              t.CurTime,
		MinTime:           t.MinTime,
		CoinbaseValue:     t.CoinbaseValue,
		WitnessCommitment: t.WitnessCommitment,
	}, nil
}

func (b builder) coinbase(t *job.Template, now time.Time) bitcoin.Coinbase {
	outputs := []wire.TxOut{{Value: t.CoinbaseValue, PkScript: b.payoutScript}}
	if t.WitnessCommitment != nil {
		outputs = append(outputs, wire.TxOut{PkScript: t.WitnessCommitment})
	}
	return bitcoin.Coinbase{
		Height:         t.Height,
		Time:           now.Unix(),
		Aux:            t.CoinbaseAux,
		Text:           b.coinbaseText,
		Outputs:        outputs,
		ExtranonceSize: job.ExtranonceSize,
	}
}

// checkCoinbaseText returns an error for a text that would not fit into the
// coinbase of every block to come.
func checkCoinbaseText(text string) error {
	last := job.Template{Height: math.MaxInt32}
	_, _, err := builder{coinbaseText: text}.coinbase(&last, time.Unix(math.MaxUint32, 0)).Build()
	return err
}
