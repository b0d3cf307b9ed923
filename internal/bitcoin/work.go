package bitcoin

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// Work is a number of expected hashes, 128 bits. A share of difficulty d stands for d·2^32 hashes.
type Work struct{ Hi, Lo uint64 }

// Add returns w + v, at most 2^128-1.
func (w Work) Add(v Work) Work {
	lo, carry := bits.Add64(w.Lo, v.Lo, 0)
	hi, carry := bits.Add64(w.Hi, v.Hi, carry)
	if carry != 0 {
		return Work{math.MaxUint64, math.MaxUint64}
	}
	return Work{hi, lo}
}

// Times returns n·w, at most 2^128-1.
func (w Work) Times(n uint64) Work {
	carry, lo := bits.Mul64(w.Lo, n)
	over, hi := bits.Mul64(w.Hi, n)
	hi, carry = bits.Add64(hi, carry, 0)
	if over|carry != 0 {
		return Work{math.MaxUint64, math.MaxUint64}
	}
	return Work{hi, lo}
}

// Cmp returns -1, 0 or 1 as w is less than, equal to or greater than v.
func (w Work) Cmp(v Work) int { return cmp.Or(cmp.Compare(w.Hi, v.Hi), cmp.Compare(w.Lo, v.Lo)) }

// IsZero reports whether w is no work.
func (w Work) IsZero() bool { return w == Work{} }

// Float returns the nearest number of hashes, to a relative error below 2^-51.
func (w Work) Float() float64 { return math.Ldexp(float64(w.Hi), 64) + float64(w.Lo) }

// Difficulty returns the work in shares of difficulty 1, rounded down, at most 2^64-1.
func (w Work) Difficulty() uint64 {
	if w.Hi>>32 != 0 {
		return math.MaxUint64
	}
	return w.Hi<<32 | w.Lo>>32
}

// String returns the number of hashes in decimal.
func (w Work) String() string {
	if w.Hi == 0 {
		return strconv.FormatUint(w.Lo, 10)
	}
	n := new(big.Int).SetUint64(w.Hi)
	n.Lsh(n, 64)
	return n.Or(n, new(big.Int).SetUint64(w.Lo)).String()
}

// ParseWork reads what String returns. Anything but decimal digits, or more than 128 bits, is an error.
func ParseWork(s string) (Work, error) {
	var w Work
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return Work{}, fmt.Errorf("work %.50q: not a decimal number", s)
		}
		carry, lo := bits.Mul64(w.Lo, 10)
		overflow, hi := bits.Mul64(w.Hi, 10)
		lo, c1 := bits.Add64(lo, uint64(c-'0'), 0)
		hi, c2 := bits.Add64(hi, carry, c1)
		if overflow|c2 != 0 {
			return Work{}, fmt.Errorf("work %.50q: exceeds 128 bits", s)
		}
		w = Work{hi, lo}
	}
	if s == "" {
		return Work{}, fmt.Errorf("work %q: not a decimal number", s)
	}
	return w, nil
}

// chainWorkDigits is how many hex digits nodes give the work of a chain in.
const chainWorkDigits = 64

// ChainWork returns w as nodes write the work of a chain.
func (w Work) ChainWork() string { return fmt.Sprintf("%032x%016x%016x", 0, w.Hi, w.Lo) }

// ParseChainWork reads what nodes give as chainwork. More than 128 bits take longer than the sun shines, and are an
// error.
func ParseChainWork(s string) (Work, error) {
	rest, short := strings.CutPrefix(s, strings.Repeat("0", chainWorkDigits/2))
	if !short || len(s) != chainWorkDigits {
		return Work{}, fmt.Errorf("chainwork %.70q: not %d hex digits of 128 bits", s, chainWorkDigits)
	}
	hi, err := strconv.ParseUint(rest[:16], 16, 64)
	lo, loErr := strconv.ParseUint(rest[16:], 16, 64)
	if err = cmp.Or(err, loErr); err != nil {
		return Work{}, fmt.Errorf("chainwork %.70q: %w", s, err)
	}
	return Work{hi, lo}, nil
}
