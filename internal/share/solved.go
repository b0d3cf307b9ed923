package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxWorkerName is how much of a worker's full name a solved share carries, in bytes.
const MaxWorkerName = 39

// Layout of a solved share, little-endian.
const (
	solvedHeader   = 24
	solvedName     = solvedHeader + 80
	solvedCoinbase = solvedName + MaxWorkerName + 1
)

// ErrSolved says that a message is no solved share.
var ErrSolved = errors.New("not a solved share")

// Solved is a share that is a block, with all of the block that its template does not say.
type Solved struct {
	JobID      uint64
	WorkerID   int64
	UserID     int32
	Height     int32
	Header     [80]byte
	WorkerName string // user.worker; cut to MaxWorkerName bytes on the wire
	Coinbase   []byte // serialized without witness
}

// AppendTo appends s as a Kafka message value.
func (s *Solved) AppendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, s.JobID)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.WorkerID))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.UserID))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Height))
	dst = append(dst, s.Header[:]...)
	var name [MaxWorkerName + 1]byte
	copy(name[:MaxWorkerName], s.WorkerName)
	dst = append(dst, name[:]...)
	return append(dst, s.Coinbase...)
}

// ParseSolved reads a Kafka message value. The result shares no memory with src.
func ParseSolved(src []byte) (Solved, error) {
	if len(src) <= solvedCoinbase {
		return Solved{}, fmt.Errorf("%w: %d bytes", ErrSolved, len(src))
	}
	name, _, ok := bytes.Cut(src[solvedName:solvedCoinbase], []byte{0})
	if !ok {
		return Solved{}, fmt.Errorf("%w: worker name does not end", ErrSolved)
	}
	return Solved{
		JobID:      binary.LittleEndian.Uint64(src),
		WorkerID:   int64(binary.LittleEndian.Uint64(src[8:])),
		UserID:     int32(binary.LittleEndian.Uint32(src[16:])),
		Height:     int32(binary.LittleEndian.Uint32(src[20:])),
		Header:     [80]byte(src[solvedHeader:solvedName]),
		WorkerName: string(name),
		Coinbase:   bytes.Clone(src[solvedCoinbase:]),
	}, nil
}
