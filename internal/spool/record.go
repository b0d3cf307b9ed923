package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A record in a segment, little-endian:
//
//	u32 length of what follows the checksum
//	u32 CRC-32C of what follows the checksum
//	u32 epoch
//	u64 sequence
//	u64 key
//	    value
const (
	prefixSize = 4 + 4
	headSize   = 4 + 8 + 8
	frameSize  = prefixSize + headSize
	keyAt      = prefixSize + 4 + 8
)

// MaxValue is the longest value in bytes; a Kafka broker's default limit is
// twice as much.
const MaxValue = 512 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errShort   = errors.New("record is cut off")
	errCorrupt = errors.New("record is corrupt")
)

// record is a parsed record; key and value point into what was parsed.
type record struct {
	epoch uint32
	seq   uint64
	key   []byte
	value []byte
}

// sealRecord completes the record at the start of frame, whose value is there.
func sealRecord(frame []byte, epoch uint32, seq, key uint64) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-prefixSize))
	binary.LittleEndian.PutUint32(frame[8:], epoch)
	binary.LittleEndian.PutUint64(frame[12:], seq)
	binary.LittleEndian.PutUint64(frame[keyAt:], key)
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(frame[prefixSize:], castagnoli))
}

// parseRecord parses the record at the start of b and returns its size there.
// errShort means that b may end too early, errCorrupt that no more bytes would
// help.
func parseRecord(b []byte) (record, int, error) {
	if len(b) < prefixSize {
		return record{}, 0, errShort
	}
	length := binary.LittleEndian.Uint32(b)
	if length < headSize || length > headSize+MaxValue {
		return record{}, 0, errCorrupt
	}
	size := prefixSize + int(length)
	if len(b) < size {
		return record{}, 0, errShort
	}
	if crc32.Checksum(b[prefixSize:size], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return record{}, 0, errCorrupt
	}
	return record{
		epoch: binary.LittleEndian.Uint32(b[8:]),
		seq:   binary.LittleEndian.Uint64(b[12:]),
		key:   b[keyAt:frameSize:frameSize],
		value: b[frameSize:size:size],
	}, size, nil
}
