package poolwatcher

import (
	"bytes"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

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
		text := emptyTemplate(network, sighting{claim{block, 840001, 0x17034219, uint32(tt.theirs)}, own, now}, now.Add(time.Millisecond))
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
		if height, txs, err := job.TemplateTransactions(text); err != nil || height != want.Height || len(txs) != 0 { // blkmaker's part
			t.Errorf("%s: %d transactions of height %d, %v", name, len(txs), height, err)
		}
		if bytes.Contains(text, []byte("default_witness_commitment")) {
			t.Error("a commitment to nothing")
		}
	}
}
