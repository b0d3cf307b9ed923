package slparser

import (
	"encoding/binary"
	"math/big"
	"math/bits"
)

// sum is a whole number of 192 bits, the lowest first. No sum of what shares are worth gets there: 2^45 shares, each
// worth a block of the largest reward that an int64 can say, would fit.
type sum [3]uint64

func (s *sum) add(v *sum) {
	var carry uint64
	s[0], carry = bits.Add64(s[0], v[0], 0)
	s[1], carry = bits.Add64(s[1], v[1], carry)
	s[2], _ = bits.Add64(s[2], v[2], carry)
}

// times returns n·s.
func (s *sum) times(n uint64) (all sum) {
	var carry uint64
	for i, word := range s {
		hi, lo := bits.Mul64(word, n)
		var c uint64
		all[i], c = bits.Add64(lo, carry, 0)
		carry = hi + c
	}
	return all
}

func (s *sum) big() *big.Int {
	var b [24]byte
	for i, word := range s {
		binary.BigEndian.PutUint64(b[16-8*i:], word)
	}
	return new(big.Int).SetBytes(b[:])
}

// sumOf takes n, which must not be negative.
func sumOf(n *big.Int) (s sum) {
	var b [24]byte
	n.FillBytes(b[:])
	for i := range s {
		s[i] = binary.BigEndian.Uint64(b[16-8*i:])
	}
	return s
}
