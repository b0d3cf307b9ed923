// Package auxpow lets one proof of work count for other chains too: it puts the blocks of several chains into one
// merkle tree, whose root the parent's coinbase carries, and builds the proof that each chain's node wants to see.
//
// The formats are those of the merged mining specification (en.bitcoin.it/wiki/Merged_mining_specification), which
// Namecoin and the chains after it share.
package auxpow

import (
	"encoding/binary"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
)

// Chain is a block that a chain wants proved, and its place in the tree. One with neither index nor branch is alone in
// its tree.
type Chain struct {
	Name   string // in the configuration of auxmaker and blkmaker
	ID     int32  // the chain's own number
	Hash   chainhash.Hash
	Height int32
	Bits   uint32 // compact target

	Index  uint32           // place of its leaf, from 0
	Branch []chainhash.Hash // from its leaf to the root
}

// Met reports whether the hash of a parent block solves the chain's block.
func (c *Chain) Met(hash *chainhash.Hash) bool {
	target, err := bitcoin.TargetFromBits(c.Bits)
	return err == nil && target.Met(hash)
}

// EasiestBits returns the compact form of the highest target among chains, 0 when there is none: a share that does not
// meet it solves nothing.
func EasiestBits(chains []Chain) uint32 {
	var bits uint32
	var easiest bitcoin.Target
	for i := range chains {
		target, err := bitcoin.TargetFromBits(chains[i].Bits)
		if hash := chainhash.Hash(easiest); err == nil && target.Met(&hash) {
			bits, easiest = chains[i].Bits, target
		}
	}
	return bits
}

// Parent is the block whose proof of work is to count.
type Parent struct {
	Header   [80]byte
	Coinbase []byte           // serialized without witness
	Branch   []chainhash.Hash // from the coinbase to the merkle root in Header
}

// Hash returns the hash of the parent block.
func (p *Parent) Hash() chainhash.Hash { return bitcoin.DoubleSHA256(p.Header[:]) }

// Proof returns what the node of c wants to see for its block: the second argument of submitauxblock, before hex. It
// does not look whether the target is met.
func (p *Parent) Proof(c *Chain) []byte {
	hash := p.Hash()
	dst := append([]byte{}, p.Coinbase...)
	dst = append(dst, hash[:]...) // nodes ignore it
	dst = appendBranch(dst, p.Branch, 0)
	dst = appendBranch(dst, c.Branch, c.Index)
	return append(dst, p.Header[:]...)
}

// appendBranch appends a branch of at most 252 hashes and the side mask, whose bits say on which side of its pair each
// working hash is.
func appendBranch(dst []byte, branch []chainhash.Hash, side uint32) []byte {
	dst = append(dst, byte(len(branch)))
	for i := range branch {
		dst = append(dst, branch[i][:]...)
	}
	return binary.LittleEndian.AppendUint32(dst, side)
}

// Solved returns those of chains whose target the parent block meets.
func (p *Parent) Solved(chains []Chain) []Chain {
	hash := p.Hash()
	var solved []Chain
	for _, c := range chains {
		if c.Met(&hash) {
			solved = append(solved, c)
		}
	}
	return solved
}
