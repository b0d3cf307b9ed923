package miner

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
)

// headerSize is the length of a block header; its last four bytes are the nonce.
const headerSize = 80

// Where a marshalled SHA-256 state of crypto/sha256 keeps its eight words: after a magic of four bytes.
const (
	stateSum    = 4
	stateSumEnd = stateSum + sha256.Size
	stateSize   = 4 + sha256.Size + sha256.BlockSize + 8
)

// sha256State is what crypto/sha256 offers beyond hash.Hash.
type sha256State interface {
	hash.Hash
	encoding.BinaryAppender
	encoding.BinaryUnmarshaler
}

// hasher computes the double SHA-256 of headers that differ only in their nonce: two compressions a nonce, no allocation.
//
// It feeds crypto/sha256 whole, already padded blocks and reads the state back by AppendBinary. That keeps the
// library's SHA-NI code and leaves out the work around it (padding, Sum, copies). On an EPYC with SHA-NI, one core:
//
//	two bare compressions, streaming            72 ns   13.9 MH/s   the limit
//	padded blocks and state as done here       110 ns    9.1 MH/s
//	midstate, Write(16 bytes), Sum, Sum256     158 ns    6.3 MH/s
//	Sum256(Sum256(header)), three compressions 207 ns    4.8 MH/s
//
// What is left above the limit is the call overhead of one block a call (41 ns against 36 ns) and moving the state in
// and out (6 ns and 10 ns). BenchmarkScan stands beside BenchmarkCompressions.
type hasher struct {
	digest   sha256State
	midstate []byte                 // after the first 64 bytes of the header
	tail     [sha256.BlockSize]byte // the last 16 bytes of the header, padded
	state    [stateSize]byte
}

func newHasher() *hasher {
	h := &hasher{
		digest:   sha256.New().(sha256State), // documented by sha256.New since Go 1.24
		midstate: make([]byte, 0, stateSize),
	}
	h.tail[headerSize-sha256.BlockSize] = 0x80
	binary.BigEndian.PutUint64(h.tail[56:], headerSize*8)
	return h
}

// reset makes header the one whose nonces are tried.
func (h *hasher) reset(header *[headerSize]byte) {
	h.digest.Reset()
	h.digest.Write(header[:sha256.BlockSize])
	h.midstate, _ = h.digest.AppendBinary(h.midstate[:0])
	copy(h.tail[:], header[sha256.BlockSize:])
}

// hash leaves the hash of the header with this nonce in h.state and returns its most significant 32 bits.
func (h *hasher) hash(nonce uint32) uint32 {
	binary.LittleEndian.PutUint32(h.tail[12:], nonce)
	// A state the digest has written itself is always taken back; neither call fails.
	_ = h.digest.UnmarshalBinary(h.midstate)
	h.digest.Write(h.tail[:])
	_, _ = h.digest.AppendBinary(h.state[:0])

	// The state is followed by 64 zero bytes (an empty block buffer): with the padding of a 32-byte message put there,
	// it is the block of the second hash.
	block := h.state[stateSum : stateSum+sha256.BlockSize]
	block[sha256.Size] = 0x80
	binary.BigEndian.PutUint16(block[62:], sha256.Size*8)
	h.digest.Reset()
	h.digest.Write(block)
	_, _ = h.digest.AppendBinary(h.state[:0])
	return binary.LittleEndian.Uint32(h.state[stateSumEnd-4:])
}

// scan tries count nonces from first on and returns the first whose hash is at or below target and how many it tried.
func (h *hasher) scan(first uint32, count int, target *bitcoin.Target) (nonce uint32, tried int, found bool) {
	top := binary.LittleEndian.Uint32(target[len(target)-4:])
	for i := range count {
		nonce = first + uint32(i)
		if h.hash(nonce) <= top && target.Met(h.sum()) {
			return nonce, i + 1, true
		}
	}
	return 0, count, false
}

// scanMiss is scan for a hash above target.
func (h *hasher) scanMiss(first uint32, count int, target *bitcoin.Target) (nonce uint32, tried int, found bool) {
	for i := range count {
		nonce = first + uint32(i)
		if h.hash(nonce); !target.Met(h.sum()) {
			return nonce, i + 1, true
		}
	}
	return 0, count, false
}

// sum returns the hash computed last, valid until the next one.
func (h *hasher) sum() *chainhash.Hash {
	return (*chainhash.Hash)(h.state[stateSum:stateSumEnd])
}
