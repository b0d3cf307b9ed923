package bitcoin

import (
	"crypto/sha256"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// DoubleSHA256 returns the hash of Bitcoin: SHA-256 twice.
func DoubleSHA256(b []byte) [32]byte {
	first := sha256.Sum256(b)
	return sha256.Sum256(first[:])
}

func hashPair(left, right *chainhash.Hash) chainhash.Hash {
	var pair [2 * chainhash.HashSize]byte
	copy(pair[:], left[:])
	copy(pair[chainhash.HashSize:], right[:])
	return DoubleSHA256(pair[:])
}

// MerkleBranch returns the hashes that lead from the first transaction of a block to its merkle root; txids are those
// of all the others, in order.
func MerkleBranch(txids []chainhash.Hash) []chainhash.Hash {
	var branch []chainhash.Hash
	// level is one row of the tree without its first element.
	for level := slices.Clone(txids); len(level) > 0; {
		branch = append(branch, level[0])
		pairs := level[1:]
		if len(pairs)%2 != 0 {
			pairs = append(pairs, pairs[len(pairs)-1])
		}
		for i := range len(pairs) / 2 {
			level[i] = hashPair(&pairs[2*i], &pairs[2*i+1])
		}
		level = level[:len(pairs)/2]
	}
	return branch
}

// MerkleRoot returns the merkle root of a block from the id of its coinbase and the branch that MerkleBranch gives for
// the other transactions.
func MerkleRoot(coinbase chainhash.Hash, branch []chainhash.Hash) chainhash.Hash {
	for i := range branch {
		coinbase = hashPair(&coinbase, &branch[i])
	}
	return coinbase
}

// WitnessCommitment returns the output script that commits to the witness data of a block (BIP 141): wtxids are those
// of all transactions but the coinbase, whose witness is the 32 zero bytes that Bitcoin Core's submitblock fills in.
func WitnessCommitment(wtxids []chainhash.Hash) []byte {
	var reserved chainhash.Hash
	root := MerkleRoot(chainhash.Hash{}, MerkleBranch(wtxids))
	return WitnessCommitmentScript(hashPair(&root, &reserved))
}

// WitnessCommitmentScript returns the output script that carries a commitment.
func WitnessCommitmentScript(commitment chainhash.Hash) []byte {
	return append([]byte{0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed}, commitment[:]...)
}
