package main

import (
	"math"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"

	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/miner"
)

// TestBitsBySpeed sets the difficulty for machines of all speeds: the first block takes more than 30 s in less than one
// of 1,000 runs, as long as the miner gets most of the speed that was measured.
func TestBitsBySpeed(t *testing.T) {
	t.Parallel()
	for _, speed := range []float64{50e3, 1e6, 7e6, 300e6, 1e10} {
		target := blockchain.CompactToBig(regnode.BitsFor(speed * blockTime.Seconds()))
		hashes, _ := new(big.Rat).SetFrac(new(big.Int).Lsh(big.NewInt(1), 256), target).Float64()
		seconds := hashes / speed
		if late := math.Exp(-30 / (seconds * 1.05)); late > 1.0/1000 {
			t.Errorf("%g H/s: a block in %.2f s on average, in more than 30 s in %.5f of all runs", speed, seconds, late)
		}
		if shares := hashes / (sharesOf(regnode.BitsFor(speed*blockTime.Seconds())) * (1 << 32)); shares < 7 || shares > 9 {
			t.Errorf("%g H/s: %.1f shares a block", speed, shares)
		}
		if math.Abs(seconds/blockTime.Seconds()-1) > 0.01 {
			t.Errorf("%g H/s: a block in %.2f s", speed, seconds)
		}
	}
}

// TestBitsStay has a chain that was begun go on with its difficulty, whatever the machine does now.
func TestBitsStay(t *testing.T) {
	t.Parallel()
	cfg := defaultConfig()
	cfg.Data = t.TempDir()
	if speed := miner.Speed(1, 10*time.Millisecond); speed < 1000 || speed > 1e12 {
		t.Errorf("measured %g H/s", speed)
	}
	first := cfg.bits()
	for _, bits := range []string{"chain-1d1fffff", "lost+found"} {
		if err := os.MkdirAll(filepath.Join(cfg.path("chain"), bits), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := cfg.bits(); got != regnode.DefaultBits || first == 0 {
		t.Errorf("got %08x, want that of the chain which is there; %08x before", got, first)
	}
}
