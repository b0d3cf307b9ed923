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

// A worker's name that is longer than its field goes beside a solved share: where a message may have two parts, as Kafka's
// key and in a header of a request, and before it otherwise. It begins with a job id of 0, which no solved share has, and
// its length in a byte.
const (
	nameHeader = 8 + 1
	maxName    = 255
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
	WorkerName string // user.worker; cut to MaxWorkerName bytes on the wire, see WithName
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

// ParseSolved reads a Kafka message value, WithName or without. The result shares no memory with src.
func ParseSolved(src []byte) (Solved, error) {
	whole, src := CutName(src)
	if len(src) <= solvedCoinbase {
		return Solved{}, fmt.Errorf("%w: %d bytes", ErrSolved, len(src))
	}
	name, _, ok := bytes.Cut(src[solvedName:solvedCoinbase], []byte{0})
	if !ok {
		return Solved{}, fmt.Errorf("%w: worker name does not end", ErrSolved)
	}
	if whole == "" {
		whole = string(name)
	}
	return Solved{
		JobID:      binary.LittleEndian.Uint64(src),
		WorkerID:   int64(binary.LittleEndian.Uint64(src[8:])),
		UserID:     int32(binary.LittleEndian.Uint32(src[16:])),
		Height:     int32(binary.LittleEndian.Uint32(src[20:])),
		Header:     [80]byte(src[solvedHeader:solvedName]),
		WorkerName: whole,
		Coinbase:   bytes.Clone(src[solvedCoinbase:]),
	}, nil
}

// WithName returns a solved share, as Solved.AppendTo makes it, with the whole name of its worker if it has but the
// beginning of that. Otherwise it returns solved.
func WithName(name string, solved []byte) []byte {
	if len(solved) <= solvedCoinbase || len(name) <= MaxWorkerName || len(name) > maxName || CleanName(name) != name ||
		string(solved[solvedName:solvedCoinbase]) != name[:MaxWorkerName]+"\x00" {
		return solved
	}
	out := make([]byte, 8, nameHeader+len(name)+len(solved))
	out = append(append(out, byte(len(name))), name...)
	return append(out, solved...)
}

// CutName takes apart what WithName has put together. The name is empty when there is none.
func CutName(message []byte) (name string, solved []byte) {
	if len(message) < nameHeader || binary.LittleEndian.Uint64(message) != 0 {
		return "", message
	}
	end := nameHeader + int(message[nameHeader-1])
	if len(message) < end {
		return "", message
	}
	name, solved = string(message[nameHeader:end]), message[end:]
	if len(WithName(name, solved)) != len(message) {
		return "", message
	}
	return name, solved
}
