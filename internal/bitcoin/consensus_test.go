package bitcoin_test

import (
	"testing"

	"github.com/btcsuite/btcd/blockchain"

	"btcpool/internal/bitcoin"
)

func TestConsensusAgainstBtcd(t *testing.T) {
	t.Parallel()
	if got := bitcoin.MaxFutureBlockTime.Seconds(); got != blockchain.MaxTimeOffsetSeconds {
		t.Errorf("MaxFutureBlockTime is %v s", got)
	}
	for _, name := range bitcoin.NetworkNames() {
		if p := network(t, name).Params; p.TargetTimespan != bitcoin.RetargetInterval*p.TargetTimePerBlock {
			t.Errorf("%s has another difficulty after %s of blocks of %s", name, p.TargetTimespan, p.TargetTimePerBlock)
		}
	}
}
