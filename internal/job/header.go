package job

import (
	"encoding/binary"

	"btcpool/internal/bitcoin"
)

// AppendHeader appends the header, 80 bytes, of a block of j whose coinbase without witness is given.
func (j *StratumJob) AppendHeader(dst, coinbase []byte, version, time, nonce uint32) []byte {
	root := bitcoin.MerkleRoot(bitcoin.DoubleSHA256(coinbase), j.MerkleBranch)
	dst = binary.LittleEndian.AppendUint32(dst, version)
	dst = append(dst, j.PrevHash[:]...)
	dst = append(dst, root[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, time)
	dst = binary.LittleEndian.AppendUint32(dst, j.Bits)
	return binary.LittleEndian.AppendUint32(dst, nonce)
}
