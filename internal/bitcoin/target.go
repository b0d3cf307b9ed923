package bitcoin

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// Target is the largest hash that is accepted, a 256-bit number in the byte order of a chainhash.Hash (least
// significant first).
type Target [32]byte

// Met reports whether the hash is not above the target.
func (t Target) Met(h *chainhash.Hash) bool {
	for i := 24; i >= 0; i -= 8 {
		hash, target := binary.LittleEndian.Uint64(h[i:]), binary.LittleEndian.Uint64(t[i:])
		if hash != target {
			return hash < target
		}
	}
	return true
}

// TargetFromBits expands the compact form of a block header. Negative, zero and overflowing values are errors, as they
// are in consensus.
func TargetFromBits(bits uint32) (Target, error) {
	size, word := int(bits>>24), bits&0x007fffff
	if bits&0x00800000 != 0 {
		return Target{}, fmt.Errorf("bits %08x: negative target", bits)
	}
	var t Target
	for i := size - 3; word != 0; i++ {
		if b := byte(word); b != 0 && i >= len(t) {
			return Target{}, fmt.Errorf("bits %08x: target exceeds 256 bits", bits)
		} else if i >= 0 && i < len(t) {
			t[i] = b
		}
		word >>= 8
	}
	if t == (Target{}) {
		return Target{}, fmt.Errorf("bits %08x: target is zero", bits)
	}
	return t, nil
}

// Bits returns the compact form of a block header. It keeps the 15 to 23 most significant bits and cuts off the rest.
func (t Target) Bits() uint32 {
	size := len(t)
	for size > 0 && t[size-1] == 0 {
		size--
	}
	var word uint32
	for i := size - 1; i >= size-3; i-- {
		word <<= 8
		if i >= 0 {
			word |= uint32(t[i])
		}
	}
	if word&0x00800000 != 0 { // the sign bit
		word >>= 8
		size++
	}
	return uint32(size)<<24 | word
}

// Work returns the expected number of hashes for a block of target t.
func (t Target) Work() Work {
	slices.Reverse(t[:]) // a copy: to most significant first
	n := new(big.Int).SetBytes(t[:])
	n.Div(new(big.Int).Lsh(big.NewInt(1), 256), n.Add(n, big.NewInt(1)))
	if n.BitLen() > 128 {
		return Work{math.MaxUint64, math.MaxUint64}
	}
	var b [16]byte
	n.FillBytes(b[:])
	return Work{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

// Difficulty returns 0xffff·2^208 / t, to a relative error below 2^-51; +Inf for a target of zero.
func (t Target) Difficulty() float64 {
	for i := 24; i >= 0; i -= 8 {
		word := binary.LittleEndian.Uint64(t[i:])
		if word == 0 {
			continue
		}
		shift := bits.LeadingZeros64(word)
		if i > 0 {
			word = word<<shift | binary.LittleEndian.Uint64(t[i-8:])>>(64-shift)
		} else {
			word <<= shift
		}
		return math.Ldexp(0xffff/float64(word), 208-8*i+shift)
	}
	return math.Inf(1)
}

// BitsOfHash returns the compact form of the target that a hash just meets.
func BitsOfHash(h *chainhash.Hash) uint32 { return Target(*h).Bits() }
