package auxpow

import (
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
)

// MaxHeight is how high a tree of chains may be: nodes refuse longer branches.
const MaxHeight = 30

// Tree is what the parent's coinbase commits to.
type Tree struct {
	Root  chainhash.Hash
	Size  uint32 // leaves, a power of two
	Nonce uint32 // with which the chains' leaves were chosen
}

// Commitment returns what the input script of the parent's coinbase must hold once, 44 bytes.
func (t Tree) Commitment() []byte {
	return bitcoin.AuxPoWCommitment(t.Root, t.Size, t.Nonce)
}

// Plant returns the smallest tree that has room for all chains, and gives each of them its leaf and branch. Chains of
// the same id have no tree.
func Plant(chains []Chain) (Tree, error) {
	height, err := heightFor(chains)
	if err != nil {
		return Tree{}, err
	}
	// Leaves without a chain, and nodes above such leaves only, stay zero: no proof goes below them.
	row := make(map[uint32]chainhash.Hash)
	for i := range chains {
		c := &chains[i]
		c.Index, c.Branch = Slot(0, c.ID, height), nil
		row[c.Index] = c.Hash
	}
	for level := range height {
		for i := range chains {
			c := &chains[i]
			c.Branch = append(c.Branch, row[c.Index>>level^1])
		}
		above := make(map[uint32]chainhash.Hash)
		for i := range row {
			above[i>>1] = hashPair(row[i&^1], row[i|1])
		}
		row = above
	}
	return Tree{Root: row[0], Size: 1 << height}, nil
}

// heightFor returns the height of the smallest tree in which all chains have leaves of their own. Trying other nonces
// than 0 would not make it smaller: modulo a power of two Slot maps ids one to one whatever the nonce is, so two chains
// meet if their ids are equal modulo the size of the tree, and only then.
func heightFor(chains []Chain) (int, error) {
	if len(chains) == 0 {
		return 0, errors.New("no chains")
	}
	for height := range MaxHeight + 1 {
		taken := make(map[uint32]bool)
		for i := range chains {
			taken[Slot(0, chains[i].ID, height)] = true
		}
		if len(taken) == len(chains) {
			return height, nil
		}
	}
	return 0, fmt.Errorf("two chains have ids that are equal modulo 2^%d", MaxHeight)
}

// Slot returns the leaf that a chain must have in a tree of 2^height leaves, so that no work counts twice for it.
func Slot(nonce uint32, chainID int32, height int) uint32 {
	slot := nonce*1103515245 + 12345
	slot = (slot+uint32(chainID))*1103515245 + 12345
	return slot & (1<<height - 1)
}

// Check reports what is wrong with the place of c in t.
func (c *Chain) Check(t Tree) error {
	if len(c.Branch) > MaxHeight || t.Size != 1<<len(c.Branch) {
		return fmt.Errorf("a branch of %d in a tree of %d leaves", len(c.Branch), t.Size)
	}
	if want := Slot(t.Nonce, c.ID, len(c.Branch)); c.Index != want {
		return fmt.Errorf("leaf %d, chain id %d has leaf %d", c.Index, c.ID, want)
	}
	hash := c.Hash
	for level, other := range c.Branch {
		if c.Index>>level&1 == 0 {
			hash = hashPair(hash, other)
		} else {
			hash = hashPair(other, hash)
		}
	}
	if hash != t.Root {
		return errors.New("its branch does not lead to the root")
	}
	return nil
}

func hashPair(left, right chainhash.Hash) chainhash.Hash {
	return bitcoin.DoubleSHA256(append(left[:], right[:]...))
}
