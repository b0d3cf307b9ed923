package poolwatcher

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

func TestCoinbaseHeight(t *testing.T) {
	t.Parallel()
	const head = "02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff"
	for text, want := range map[string]int32{
		head + "35" + "0340d10c" + "04": 840000,
		head + "05" + "5104":            1,
		head + "05" + "6004":            16,
		head + "05" + "0111":            17,
		head + "05" + "028000":          128,
		head + "05" + "04ffffff7f":      1<<31 - 1,
	} {
		in, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := coinbaseHeight(in); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", head, head + "05", head + "05" + "0340d1", head + "05" + "00", head + "05" + "0180", head + "05" + "04ffffffff",
		head + "05" + "050000000001", "0200000002" + head[10:] + "350340d10c",
	} {
		in, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := coinbaseHeight(in); err == nil {
			t.Errorf("%s: %d", text, got)
		}
	}
}

func coinbaseFor(height int32) ([]byte, error) {
	coinbase1, _, err := bitcoin.Coinbase{
		Height: height, Time: 1713571767, ExtranonceSize: 12, Outputs: []wire.TxOut{{Value: 1, PkScript: []byte{0x51}}},
	}.Build()
	return coinbase1, err
}

// What our own coinbases say is read back; whatever else comes is refused or a
// height that there can be.
func FuzzCoinbaseHeight(f *testing.F) {
	for _, height := range []int32{1, 16, 17, 127, 128, 840000, 1<<31 - 1} {
		coinbase1, err := coinbaseFor(height)
		if err != nil {
			f.Fatal(err)
		}
		if got, err := coinbaseHeight(coinbase1); err != nil || got != height {
			f.Errorf("%d is read as %d, %v", height, got, err)
		}
		f.Add(coinbase1)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		height, err := coinbaseHeight(in)
		if err == nil && height < 0 {
			t.Errorf("height %d", height)
		}
		if err != nil || height == 0 {
			return
		}
		again, err := coinbaseFor(height)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := coinbaseHeight(again); err != nil || got != height {
			t.Errorf("%d is read as %d, %v", height, got, err)
		}
	})
}

func TestEmptyTemplate(t *testing.T) {
	t.Parallel()
	network, err := bitcoin.NetworkByName("mainnet")
	if err != nil {
		t.Fatal(err)
	}
	own := &job.StratumJob{Version: 0x20000000}
	block := chainhash.Hash{'b'}
	for name, tt := range map[string]struct {
		theirs, want int64
	}{
		"our clock":                     {now.Unix() - 5, now.Unix()},
		"theirs, which the chain needs": {now.Unix() + 5, now.Unix() + 5},
	} {
		text, err := emptyTemplate(network, sighting{claim{block, 840001, 0x17034219, uint32(tt.theirs)}, own, now}, now.Add(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		got, err := job.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Empty() || got.WitnessCommitment != nil || got.CheckNetwork(network) != nil {
			t.Errorf("%s: %+v", name, got)
		}
		type values struct {
			Height, Version  int32
			PrevHash         chainhash.Hash
			Bits             uint32
			CurTime, MinTime int64
			Reward           int64
		}
		want := values{840001, 0x20000000, block, 0x17034219, tt.want, tt.want, 312500000}
		have := values{got.Height, got.Version, got.PrevHash, got.Bits, int64(got.CurTime), int64(got.MinTime), got.CoinbaseValue}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if txs, err := job.TemplateTransactions(text); err != nil || len(txs) != 0 { // blkmaker's part
			t.Errorf("%s: %d transactions, %v", name, len(txs), err)
		}
		if bytes.Contains(text, []byte("default_witness_commitment")) {
			t.Error("a commitment to nothing")
		}
	}
}
