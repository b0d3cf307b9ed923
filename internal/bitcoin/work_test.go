package bitcoin_test

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
)

func drawWork(t *rapid.T, label string) bitcoin.Work {
	return bitcoin.Work{Hi: rapid.Uint64().Draw(t, label+".Hi"), Lo: rapid.Uint64().Draw(t, label+".Lo")}
}

func bigWork(w bitcoin.Work) *big.Int {
	n := new(big.Int).SetUint64(w.Hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(w.Lo))
}

func TestWorkAgainstBig(t *testing.T) {
	t.Parallel()
	largest := bigWork(bitcoin.Work{Hi: math.MaxUint64, Lo: math.MaxUint64})
	rapid.Check(t, func(t *rapid.T) {
		w, v := drawWork(t, "w"), drawWork(t, "v")
		bw, bv := bigWork(w), bigWork(v)

		sum := new(big.Int).Add(bw, bv)
		if sum.Cmp(largest) > 0 {
			sum = largest
		}
		if got := bigWork(w.Add(v)); got.Cmp(sum) != 0 {
			t.Fatalf("%s + %s = %s, want %s", w, v, got, sum)
		}
		if got, want := w.Cmp(v), bw.Cmp(bv); got != want {
			t.Fatalf("%s compared to %s = %d, want %d", w, v, got, want)
		}
		if w.Cmp(w) != 0 || w.IsZero() != (bw.Sign() == 0) {
			t.Fatalf("%s is not itself, or wrongly zero", w)
		}
		shares := new(big.Int).Rsh(bw, 32)
		if !shares.IsUint64() {
			shares.SetUint64(math.MaxUint64)
		}
		if got := w.Difficulty(); got != shares.Uint64() {
			t.Fatalf("difficulty of %s = %d, want %s", w, got, shares)
		}
		if want, _ := new(big.Float).SetInt(bw).Float64(); math.Abs(w.Float()-want) > want*math.Ldexp(1, -51) {
			t.Fatalf("%s as a float = %g, want %g", w, w.Float(), want)
		}
		if got := w.String(); got != bw.String() {
			t.Fatalf("written %s, want %s", got, bw)
		}
		if got, err := bitcoin.ParseWork(w.String()); err != nil || got != w {
			t.Fatalf("%s read back as %s, error %v", w, got, err)
		}
	})
}

// TestWorkTimes adds as often as Times says, also beyond 64 bits and up to the limit.
func TestWorkTimes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWork(t, "w")
		shift := rapid.IntRange(0, 128).Draw(t, "shift") // many times the largest are the limit
		w = bitcoin.Work{Hi: w.Hi >> shift, Lo: w.Lo >> max(shift-64, 0)}
		n := rapid.Uint64Range(0, 300).Draw(t, "n")
		var want bitcoin.Work
		for range n {
			want = want.Add(w)
		}
		if got := w.Times(n); got != want {
			t.Errorf("%v times %d is %v, want %v", w, n, got, want)
		}
	})
	for _, c := range []struct {
		w    bitcoin.Work
		n    uint64
		want bitcoin.Work
	}{
		{bitcoin.Work{Lo: math.MaxUint64}, math.MaxUint64, bitcoin.Work{Hi: math.MaxUint64 - 1, Lo: 1}},
		{bitcoin.Work{Hi: 1, Lo: 1}, math.MaxUint64, bitcoin.Work{Hi: math.MaxUint64, Lo: math.MaxUint64}}, // exactly
		{bitcoin.Work{Hi: 1, Lo: 2}, math.MaxUint64, bitcoin.Work{Hi: math.MaxUint64, Lo: math.MaxUint64}}, // more
		{bitcoin.Work{Hi: 1 << 63}, 2, bitcoin.Work{Hi: math.MaxUint64, Lo: math.MaxUint64}},
	} {
		if got := c.w.Times(c.n); got != c.want {
			t.Errorf("%v times %d is %v, want %v", c.w, c.n, got, c.want)
		}
	}
}

func TestParseWorkRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "-1", "+1", "1e3", "0x10", "1 ", "1.0",
		"340282366920938463463374607431768211456", // 2^128
		"3402823669209384634633746074317682114550",
		strings.Repeat("9", 1000),
	} {
		if got, err := bitcoin.ParseWork(s); err == nil || !got.IsZero() {
			t.Errorf("ParseWork(%.50q) = %s, want an error", s, got)
		}
	}
	if got, err := bitcoin.ParseWork("340282366920938463463374607431768211455"); err != nil || got.Add(bitcoin.Work{Lo: 1}) != got {
		t.Errorf("the largest work: %s, %v", got, err)
	}
}

func FuzzParseWork(f *testing.F) {
	f.Add("0")
	f.Add("18446744073709551616")
	f.Add("340282366920938463463374607431768211456")
	f.Fuzz(func(t *testing.T, s string) {
		w, err := bitcoin.ParseWork(s)
		if err != nil {
			return
		}
		if want, ok := new(big.Int).SetString(s, 10); !ok || want.String() != w.String() {
			t.Fatalf("%q read as %s", s, w)
		}
	})
}
