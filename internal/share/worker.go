package share

import (
	"encoding/binary"

	"btcpool/internal/bitcoin"
)

// WorkerID is the number a worker is known by: the first 8 bytes, in display order, of the double SHA-256 of its
// name, never 0. It does not depend on the user.
func WorkerID(workerName string) int64 {
	hash := bitcoin.DoubleSHA256([]byte(workerName))
	if id := int64(binary.LittleEndian.Uint64(hash[24:])); id != 0 {
		return id
	}
	return 1
}
