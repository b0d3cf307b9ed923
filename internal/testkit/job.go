package testkit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
)

// Job returns a job on the block prev, with the time of its making. No node knows of it.
func Job(ids *job.IDs, prev byte, height int32) *job.StratumJob {
	now := time.Now()
	return &job.StratumJob{
		ID:           ids.Next(now),
		GBTHash:      strings.Repeat("ab", 32),
		PrevHash:     chainhash.Hash{0: prev, 31: 1},
		Height:       height,
		Coinbase1:    bytes.Repeat([]byte{0x11}, 60),
		Coinbase2:    bytes.Repeat([]byte{0x22}, 120),
		MerkleBranch: []chainhash.Hash{{1}, {2}, {3}},
		Version:      0x20000000,
		Bits:         0x1d00ffff,
		Time:         uint32(now.Unix()),
		MinTime:      uint32(now.Unix()) - 3600,
	}
}

// JobOf makes the messages of a node's template: what gbtmaker sends, and a job for anybody's coins whose coinbase
// commits to aux and has more outputs.
func JobOf(tb testing.TB, ids *job.IDs, template json.RawMessage, aux []byte, more ...wire.TxOut) (job.RawGBT, *job.StratumJob) {
	tb.Helper()
	t, err := job.ParseTemplate(template)
	if err != nil {
		tb.Fatal(err)
	}
	outputs := []wire.TxOut{{Value: t.CoinbaseValue, PkScript: []byte{0x51}}}
	if t.WitnessCommitment != nil {
		outputs = append(outputs, wire.TxOut{PkScript: t.WitnessCommitment})
	}
	now := time.Now()
	coinbase1, coinbase2, err := bitcoin.Coinbase{
		Height: t.Height, Time: now.UnixNano(), Text: "/test/", Aux: aux, Outputs: append(outputs, more...), ExtranonceSize: job.ExtranonceSize,
	}.Build()
	if err != nil {
		tb.Fatal(err)
	}
	raw := job.NewRawGBT(template, now)
	return raw, &job.StratumJob{
		ID: ids.Next(now), GBTHash: raw.Hash, PrevHash: t.PrevHash, Height: t.Height,
		Coinbase1: coinbase1, Coinbase2: coinbase2, MerkleBranch: t.MerkleBranch, Version: t.Version,
		Bits: t.Bits, Time: t.CurTime, MinTime: t.MinTime, CoinbaseValue: t.CoinbaseValue, WitnessCommitment: t.WitnessCommitment,
	}
}

// Solve returns a solved share of a job that is easy.
func Solve(tb interface{ Fatal(...any) }, j *job.StratumJob) *share.Solved {
	coinbase := append(append(bytes.Clone(j.Coinbase1), make([]byte, job.ExtranonceSize)...), j.Coinbase2...)
	header := wire.BlockHeader{
		Version: j.Version, PrevBlock: j.PrevHash, Bits: j.Bits, Timestamp: time.Unix(int64(j.Time), 0),
		MerkleRoot: bitcoin.MerkleRoot(bitcoin.DoubleSHA256(coinbase), j.MerkleBranch),
	}
	target, err := bitcoin.TargetFromBits(j.Bits)
	if err != nil {
		tb.Fatal(err)
	}
	for hash := header.BlockHash(); !target.Met(&hash); hash = header.BlockHash() {
		header.Nonce++
	}
	var raw bytes.Buffer
	if err := header.Serialize(&raw); err != nil {
		tb.Fatal(err)
	}
	return &share.Solved{
		JobID: uint64(j.ID), WorkerID: 5, UserID: 7, Height: j.Height, Header: [80]byte(raw.Bytes()), WorkerName: "alice.rig", Coinbase: coinbase,
	}
}
