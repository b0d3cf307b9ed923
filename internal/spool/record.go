package spool

import (
	"encoding/binary"

	"btcpool/internal/durable"
)

// A record in a segment is a durable frame, whose body is, little-endian:
//
//	u32 epoch
//	u64 sequence
//	u64 key
//	    value
const (
	seqAt     = 4
	keyAt     = seqAt + 8
	valueAt   = keyAt + 8
	frameSize = durable.FrameHead + valueAt // size of a record without a value
)

// MaxValue is the longest value in bytes; a Kafka broker's default limit is twice as much.
const MaxValue = 512 << 10

// record is a parsed record; key and value point into what was parsed.
type record struct {
	epoch uint32
	seq   uint64
	key   []byte
	value []byte
}

// sealRecord completes the record whose value is in frame already.
func sealRecord(frame []byte, epoch uint32, seq, key uint64) {
	body := frame[durable.FrameHead:]
	binary.LittleEndian.PutUint32(body, epoch)
	binary.LittleEndian.PutUint64(body[seqAt:], seq)
	binary.LittleEndian.PutUint64(body[keyAt:], key)
	durable.SealFrame(frame)
}

// parseHead returns the size and the name of the record that b may begin with, whatever its checksum is.
func parseHead(b []byte) (size int, epoch uint32, seq uint64, ok bool) {
	if len(b) < frameSize {
		return 0, 0, 0, false
	}
	length, body := binary.LittleEndian.Uint32(b), b[durable.FrameHead:]
	return durable.FrameHead + int(length), binary.LittleEndian.Uint32(body), binary.LittleEndian.Uint64(body[seqAt:]),
		length >= valueAt && length <= valueAt+MaxValue
}

// parseRecord parses the record that b begins with and returns its size there. Its errors are those of
// durable.CutFrame.
func parseRecord(b []byte) (record, int, error) {
	body, size, err := durable.CutFrame(b, valueAt, valueAt+MaxValue)
	if err != nil {
		return record{}, 0, err
	}
	return record{
		epoch: binary.LittleEndian.Uint32(body),
		seq:   binary.LittleEndian.Uint64(body[seqAt:]),
		key:   body[keyAt:valueAt:valueAt],
		value: body[valueAt:],
	}, size, nil
}
