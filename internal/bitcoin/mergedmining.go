package bitcoin

import (
	"encoding/binary"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"
)

// auxPoWMagic marks the commitment to AuxPoW chains in a coinbase.
const auxPoWMagic = "\xfa\xbemm"

// AuxPoWCommitment returns what a coinbase script holds for the blocks of AuxPoW chains (merged mining specification):
// root of the tree of chains, its number of leaves, and the nonce that gave each chain its leaf.
func AuxPoWCommitment(root chainhash.Hash, leaves, nonce uint32) []byte {
	slices.Reverse(root[:])
	b := append([]byte(auxPoWMagic), root[:]...)
	b = binary.LittleEndian.AppendUint32(b, leaves)
	return binary.LittleEndian.AppendUint32(b, nonce)
}

// RSKCommitmentScript returns the output script that commits to an RSK block; hash is in the order of RSK's texts.
// RSK's nodes look for the last such mark and want at most 128 bytes behind it, so it belongs into the last output.
func RSKCommitmentScript(hash [32]byte) []byte {
	const mark = "RSKBLOCK:"
	return append([]byte{0x6a, byte(len(mark) + len(hash))}, mark+string(hash[:])...)
}
