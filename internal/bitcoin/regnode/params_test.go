package regnode

import (
	"testing"

	"github.com/btcsuite/btcd/blockchain"
)

// TestRewardsStay has a chain that ran for a day pay as much as at its beginning.
func TestRewardsStay(t *testing.T) {
	t.Parallel()
	params, err := chainParams(DefaultBits)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := blockchain.CalcBlockSubsidy(20_000, params), blockchain.CalcBlockSubsidy(1, params); got != want {
		t.Errorf("a reward of %d satoshi, want %d", got, want)
	}
}
