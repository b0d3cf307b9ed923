package bitcoin_test

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
)

func TestDifficultyAtLeast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		f    float64
		want bitcoin.Difficulty
	}{
		{1, 0},
		{1.0000001, 1},
		{2, 1},
		{0.5, -1},
		{0.3, -1},
		{0.25, -2},
		{16384, 14},
		{16385, 15},
		{16383.9, 14},
		{1e300, bitcoin.MaxDifficulty},
		{1 << 62, bitcoin.MaxDifficulty},
		{1e-300, bitcoin.MinDifficulty},
		{0, bitcoin.MinDifficulty},
		{-5, bitcoin.MinDifficulty},
		{math.NaN(), bitcoin.MinDifficulty},
		{math.Inf(1), bitcoin.MinDifficulty},
		{math.Inf(-1), bitcoin.MinDifficulty},
		{math.SmallestNonzeroFloat64, bitcoin.MinDifficulty},
	} {
		if got := bitcoin.DifficultyAtLeast(tt.f); got != tt.want {
			t.Errorf("DifficultyAtLeast(%g) = 2^%d, want 2^%d", tt.f, int(got), int(tt.want))
		}
	}
}

// The result is the smallest power of two that is not below the number.
func TestDifficultyAtLeastIsLeast(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float64Range(bitcoin.MinDifficulty.Float(), bitcoin.MaxDifficulty.Float()).Draw(t, "f")
		d := bitcoin.DifficultyAtLeast(f)
		if d.Float() < f || d > bitcoin.MinDifficulty && d.Float()/2 >= f {
			t.Fatalf("DifficultyAtLeast(%g) = %v", f, d)
		}
	})
}

func TestDifficultyText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		d       bitcoin.Difficulty
		want    string
		integer uint64
	}{
		{0, "1", 1},
		{14, "16384", 16384},
		{-1, "0.5", 1},
		{-3, "0.125", 1},
		{bitcoin.MaxDifficulty, "4611686018427387904", 1 << 62},
		{bitcoin.MinDifficulty, "0.00000000023283064365386962890625", 1},
	} {
		if got := tt.d.String(); got != tt.want {
			t.Errorf("2^%d is written %s, want %s", int(tt.d), got, tt.want)
		}
		if got := tt.d.Integer(); got != tt.integer {
			t.Errorf("(2^%d).Integer() = %d, want %d", int(tt.d), got, tt.integer)
		}
	}
}

func TestDifficultyAgainstBig(t *testing.T) {
	t.Parallel()
	for d := bitcoin.MinDifficulty; d <= bitcoin.MaxDifficulty; d++ {
		exact := new(big.Rat).SetFrac(pow2(64+int(d)), pow2(64)) // 2^n
		if text, ok := new(big.Rat).SetString(d.String()); !ok || text.Cmp(exact) != 0 {
			t.Errorf("2^%d is written %s", int(d), d)
		}
		if !json.Valid(d.AppendTo(nil)) {
			t.Errorf("%s is not a JSON number", d)
		}
		if got, _ := exact.Float64(); got != d.Float() {
			t.Errorf("(2^%d).Float() = %g", int(d), d.Float())
		}
		quotient := new(big.Rat).Quo(new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(0xffff), 208)), exact)
		want := new(big.Int).Quo(quotient.Num(), quotient.Denom())
		if got := bigTarget(d.Target()); got.Cmp(want) != 0 {
			t.Errorf("target of 2^%d = %x, want %x", int(d), got, want)
		}
		if got := d.Target().Difficulty(); got != d.Float() {
			t.Errorf("difficulty of the target of 2^%d = %g", int(d), got)
		}
		if got, want := d.Hashes().String(), pow2(32+int(d)).String(); got != want {
			t.Errorf("hashes of 2^%d = %s, want %s", int(d), got, want)
		}
		if got := bitcoin.DifficultyAtLeast(d.Float()); got != d {
			t.Errorf("DifficultyAtLeast(%g) = 2^%d", d.Float(), int(got))
		}
	}
}

func pow2(n int) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(n)) }
