package jobmaker

import (
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
)

const (
	// branchLength is for how many heights the branch that is followed is remembered.
	branchLength = 2016
	// partedFor is how long a template on another branch makes nodes count as disagreeing.
	partedFor = 2 * time.Minute
)

// branch is what is known of the branch that is followed: the blocks that templates were on. It tells where others part
// from it.
type branch struct {
	blocks map[int32]chainhash.Hash // previous blocks by the height of the templates on them

	parted  int32     // height of a block that not all nodes have; there may be lower ones
	seen    time.Time // when a template on another branch came last
	lighter time.Time // when one with less work below it was refused last
}

// follow adds the block that c is on.
func (b *branch) follow(c candidate) {
	if b.blocks == nil || !b.has(c) {
		b.blocks = make(map[int32]chainhash.Hash)
	}
	b.blocks[c.Height] = c.PrevHash
	delete(b.blocks, c.Height-branchLength)
}

// has reports whether c is on a block of the branch, as far as is known.
func (b *branch) has(c candidate) bool {
	block, ok := b.blocks[c.Height]
	return !ok || block == c.PrevHash
}

// compare notes where c parts from the branch, if it does.
func (b *branch) compare(c candidate, now time.Time) {
	if !b.has(c) {
		b.part(c.Height-1, now)
	}
}

// part notes that not all nodes have the same block at a height.
func (b *branch) part(height int32, now time.Time) {
	if b.since(now) == 0 || height < b.parted {
		b.parted = height
	}
	b.seen = now
}

// since returns the height of the first block known that not all nodes have in common, 0 when all are on one branch.
func (b *branch) since(now time.Time) int32 {
	if b.seen.IsZero() || now.Sub(b.seen) >= partedFor {
		return 0
	}
	return b.parted
}
