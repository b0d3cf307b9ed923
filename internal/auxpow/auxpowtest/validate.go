// Package auxpowtest plays the other chains of merged mining in tests. What it accepts is written from the
// specification and from the checks of Namecoin Core (src/auxpow.cpp), and shares no code with what builds the proofs.
package auxpowtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/btcsuite/btcd/wire/v2"
)

// Validate judges a proof for the block of a chain as the chain's node does. hash is in internal order, target the
// highest hash of a parent that counts. Unlike a node it also refuses bytes behind the proof.
func Validate(proof []byte, hash [32]byte, chainID int32, target *big.Int) error {
	in := bytes.NewReader(proof)
	var coinbase wire.MsgTx
	if err := coinbase.Deserialize(in); err != nil {
		return fmt.Errorf("coinbase: %w", err)
	}
	var parentHash [32]byte // which is not looked at
	if _, err := io.ReadFull(in, parentHash[:]); err != nil {
		return err
	}
	coinbaseBranch, coinbaseIndex, err := readBranch(in)
	if err != nil {
		return fmt.Errorf("coinbase branch: %w", err)
	}
	chainBranch, chainIndex, err := readBranch(in)
	if err != nil {
		return fmt.Errorf("chain branch: %w", err)
	}
	var header [80]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return fmt.Errorf("parent header: %w", err)
	}
	if in.Len() != 0 {
		return fmt.Errorf("%d bytes behind the proof", in.Len())
	}

	switch {
	case coinbaseIndex != 0:
		return errors.New("not a coinbase")
	case int32(binary.LittleEndian.Uint32(header[:]))>>16 == chainID:
		return errors.New("the parent has our chain id")
	case len(chainBranch) > 30:
		return errors.New("chain branch too long")
	case follow(coinbase.TxHash(), coinbaseBranch, 0) != [32]byte(header[36:68]):
		return errors.New("coinbase is not in the parent's merkle tree")
	case len(coinbase.TxIn) == 0:
		return errors.New("coinbase without input")
	}
	root := follow(hash, chainBranch, chainIndex)
	slices.Reverse(root[:])
	size, nonce, err := commitment(coinbase.TxIn[0].SignatureScript, root[:])
	if err != nil {
		return err
	}
	if size != 1<<len(chainBranch) {
		return fmt.Errorf("tree of %d leaves, branch of %d hashes", size, len(chainBranch))
	}
	if want := expectedIndex(nonce, chainID, size); chainIndex != want {
		return fmt.Errorf("leaf %d, want %d", chainIndex, want)
	}
	work := sha256d(header[:])
	slices.Reverse(work[:])
	if new(big.Int).SetBytes(work[:]).Cmp(target) > 0 {
		return errors.New("the parent's hash is above the target")
	}
	return nil
}

// readBranch reads a branch of fewer than 253 hashes and its index.
func readBranch(in *bytes.Reader) (branch [][32]byte, index uint32, err error) {
	count, err := in.ReadByte()
	if err != nil || count > 252 {
		return nil, 0, fmt.Errorf("count %d: %w", count, err)
	}
	branch = make([][32]byte, count)
	if err := binary.Read(in, binary.LittleEndian, branch); err != nil {
		return nil, 0, err
	}
	return branch, index, binary.Read(in, binary.LittleEndian, &index)
}

// follow climbs from a leaf; bit i of side puts the i-th hash on the left.
func follow(hash [32]byte, branch [][32]byte, side uint32) [32]byte {
	for _, other := range branch {
		left, right := hash, other
		if side%2 == 1 {
			left, right = other, hash
		}
		hash = sha256d(slices.Concat(left[:], right[:]))
		side /= 2
	}
	return hash
}

// commitment finds the root in a coinbase's script and returns what is written behind it. There must not be two that
// could be meant.
func commitment(script, root []byte) (size, nonce uint32, err error) {
	magic := []byte{0xfa, 0xbe, 'm', 'm'}
	at := bytes.Index(script, root)
	head := bytes.Index(script, magic)
	switch {
	case at < 0:
		return 0, 0, errors.New("root is not in the coinbase")
	case head >= 0 && bytes.Contains(script[head+1:], magic):
		return 0, 0, errors.New("several merged mining headers in the coinbase")
	case head >= 0 && head+len(magic) != at:
		return 0, 0, errors.New("merged mining header is not just before the root")
	case head < 0 && at > 20:
		return 0, 0, errors.New("root without header must be in the first 20 bytes")
	case len(script) < at+len(root)+8:
		return 0, 0, errors.New("size and nonce of the tree are missing")
	}
	rest := script[at+len(root):]
	return binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:]), nil
}

// expectedIndex is the specification's pseudo-random slot, in 64 bits.
func expectedIndex(nonce uint32, chainID int32, size uint32) uint32 {
	const m = 1 << 32
	r := uint64(nonce)
	r = (r*1103515245 + 12345) % m
	r = (r + uint64(uint32(chainID))) % m
	r = (r*1103515245 + 12345) % m
	return uint32(r % uint64(size))
}

func sha256d(b []byte) [32]byte {
	first := sha256.Sum256(b)
	return sha256.Sum256(first[:])
}
