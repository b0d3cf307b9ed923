package bitcoin_test

import (
	"math"
	"math/big"
	"slices"
	"testing"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
)

func bigTarget(t bitcoin.Target) *big.Int {
	slices.Reverse(t[:])
	return new(big.Int).SetBytes(t[:])
}

// drawHash draws numbers of every length, so that comparisons and roundings meet all of their cases.
func drawHash(t *rapid.T, label string) chainhash.Hash {
	var h chainhash.Hash
	copy(h[:], rapid.SliceOfN(rapid.Byte(), 0, len(h)).Draw(t, label))
	return h
}

func TestTargetMet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hash, target := drawHash(t, "hash"), bitcoin.Target(drawHash(t, "target"))
		want := bigTarget(bitcoin.Target(hash)).Cmp(bigTarget(target)) <= 0
		if got := target.Met(&hash); got != want {
			t.Fatalf("Met = %v, want %v", got, want)
		}
		if own := chainhash.Hash(target); !target.Met(&own) {
			t.Fatal("a target does not meet itself")
		}
	})
}

func TestTargetFromBits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		bits       uint32
		difficulty float64 // 0: an error
	}{
		{"genesis", 0x1d00ffff, 1},
		{"block 100000", 0x1b04864c, 14484.162361225399},
		{"regtest", 0x207fffff, 4.6565423739069247e-10},
		{"smallest", 0x01010000, math.Ldexp(0xffff, 208)},
		{"mantissa below the point", 0x02000100, math.Ldexp(0xffff, 208)},
		{"largest", 0x2100ffff, math.Ldexp(0xffff, 208-240) / 0xffff},
		{"zero", 0, 0},
		{"zero mantissa", 0x1d000000, 0},
		{"shifted to zero", 0x01003456, 0},
		{"negative", 0x1d80ffff, 0},
		{"one bit too long", 0x21010000, 0},
		{"far too long", 0xff7fffff, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target, err := bitcoin.TargetFromBits(tt.bits)
			if (err != nil) != (tt.difficulty == 0) {
				t.Fatalf("error: %v", err)
			}
			if got := target.Difficulty(); err == nil && math.Abs(got/tt.difficulty-1) > 1e-15 {
				t.Errorf("difficulty = %v, want %v", got, tt.difficulty)
			}
		})
	}
}

func TestTargetFromBitsAgainstBtcd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.Uint32().Draw(t, "mantissa")&0x00ffffff | rapid.Uint32Range(0, 0x24).Draw(t, "size")<<24
		want := blockchain.CompactToBig(bits)
		got, err := bitcoin.TargetFromBits(bits)
		if valid := want.Sign() > 0 && want.BitLen() <= 256; valid != (err == nil) {
			t.Fatalf("%08x: %x, error %v", bits, want, err)
		} else if valid && bigTarget(got).Cmp(want) != 0 {
			t.Fatalf("%08x: %x, want %x", bits, got, want)
		} else if valid && got.Bits() != blockchain.BigToCompact(want) {
			t.Fatalf("%08x becomes %08x", bits, got.Bits())
		}
	})
}

func TestBitsAgainstBtcd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hash := drawHash(t, "hash")
		if got, want := bitcoin.BitsOfHash(&hash), blockchain.BigToCompact(blockchain.HashToBig(&hash)); got != want {
			t.Fatalf("BitsOfHash(%s) = %08x, want %08x", hash, got, want)
		}
	})
}

func TestTargetDifficultyAgainstBig(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		target := bitcoin.Target(drawHash(t, "target"))
		if target == (bitcoin.Target{}) {
			if !math.IsInf(target.Difficulty(), 1) {
				t.Fatal("difficulty of zero is finite")
			}
			return
		}
		one := new(big.Float).SetMantExp(big.NewFloat(0xffff), 208)
		want, _ := one.Quo(one, new(big.Float).SetInt(bigTarget(target))).Float64()
		if got := target.Difficulty(); math.Abs(got/want-1) > math.Ldexp(1, -51) {
			t.Fatalf("difficulty of %x = %v, want %v", target, got, want)
		}
	})
}

func TestGenesisBlocksMeetTheirTarget(t *testing.T) {
	t.Parallel()
	for _, p := range []*chaincfg.Params{&chaincfg.MainNetParams, &chaincfg.TestNet4Params, &chaincfg.SigNetParams} {
		target, err := bitcoin.TargetFromBits(p.GenesisBlock.Header.Bits)
		if err != nil {
			t.Fatal(err)
		}
		if !target.Met(p.GenesisHash) {
			t.Errorf("%s: the genesis block misses its target", p.Name)
		}
		reached, err := bitcoin.TargetFromBits(bitcoin.BitsOfHash(p.GenesisHash))
		if err != nil || reached.Met(p.GenesisHash) && reached != bitcoin.Target(*p.GenesisHash) {
			t.Errorf("%s: compact form %x of %s is not cut off (%v)", p.Name, reached, p.GenesisHash, err)
		}
	}
}

func BenchmarkTargetMet(b *testing.B) {
	hash, target := *chaincfg.MainNetParams.GenesisHash, bitcoin.Difficulty(14).Target()
	b.ReportAllocs()
	for b.Loop() {
		target.Met(&hash)
	}
}

func TestTargetWork(t *testing.T) {
	t.Parallel()
	for bits, want := range map[uint32]bitcoin.Work{
		0x1d00ffff: {Lo: 0x100010001}, // mainnet's chainwork of block 0
		0x207fffff: {Lo: 2},           // regtest's
		0x17021fff: {Hi: 0x7878, Lo: 0xb129bcc858d6c065},
		0x03000001: {Hi: 1<<64 - 1, Lo: 1<<64 - 1},
	} {
		target, err := bitcoin.TargetFromBits(bits)
		if err != nil {
			t.Fatal(err)
		}
		if got := target.Work(); got != want {
			t.Errorf("%08x: work %x %x", bits, got.Hi, got.Lo)
		}
	}
}
