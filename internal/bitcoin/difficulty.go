package bitcoin

import (
	"math"
	"math/bits"
	"strconv"
)

// Difficulty is a share difficulty of 2^n, written as its exponent n: exact in integers for agents, vardiff and
// statistics. Difficulty 1 (n = 0) is the pool's usual one, target 0xffff·2^208.
type Difficulty int8

// The bounds of a Difficulty. 2^-32 accepts practically every hash.
const (
	MinDifficulty Difficulty = -32
	MaxDifficulty Difficulty = 62
)

// DifficultyAtLeast returns the smallest Difficulty not below f, kept within MinDifficulty and MaxDifficulty. What is
// no positive finite number gives MinDifficulty.
func DifficultyAtLeast(f float64) Difficulty {
	if !(f > 0) || math.IsInf(f, 0) {
		return MinDifficulty
	}
	fraction, exp := math.Frexp(f) // f = fraction·2^exp, fraction in [½, 1)
	if fraction == 0.5 {
		exp--
	}
	return Difficulty(max(int(MinDifficulty), min(exp, int(MaxDifficulty))))
}

// Float returns 2^n, exactly.
func (d Difficulty) Float() float64 { return math.Ldexp(1, int(d)) }

// Integer returns 2^n, or 1 where that is below 1.
func (d Difficulty) Integer() uint64 {
	if d < 0 {
		return 1
	}
	return 1 << d
}

// Target returns floor(0xffff·2^208 / 2^n), the largest hash that meets d. d must be within its bounds.
func (d Difficulty) Target() Target {
	var t Target
	shift := 208 - int(d) // of 0xffff, at least 146: no bit is lost
	i, v := shift/8, uint32(0xffff)<<(shift%8)
	for ; v != 0; v >>= 8 {
		t[i] = byte(v)
		i++
	}
	return t
}

// Hashes returns 2^(n+32), the work a share of difficulty d stands for. d must be within its bounds.
func (d Difficulty) Hashes() Work {
	n := uint(int(d) - int(MinDifficulty))
	if n >= bits.UintSize {
		return Work{Hi: 1 << (n - 64)}
	}
	return Work{Lo: 1 << n}
}

// AppendTo appends 2^n as a JSON number: exact, without an exponent.
func (d Difficulty) AppendTo(dst []byte) []byte {
	if d < 0 {
		return strconv.AppendFloat(dst, d.Float(), 'f', -int(d), 64) // 2^-k has k decimals
	}
	return strconv.AppendUint(dst, d.Integer(), 10)
}

// String returns what AppendTo appends.
func (d Difficulty) String() string { return string(d.AppendTo(nil)) }
