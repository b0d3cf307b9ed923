package durable

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A frame is a record in a file that may end anywhere and be damaged anywhere, little-endian:
//
//	u32 length of the body
//	u32 CRC-32C of the body
//	    body

// FrameHead is the size of what stands before a frame's body.
const FrameHead = 4 + 4

// Why a frame cannot be read.
var (
	// ErrShort means that what is there ends before the frame does.
	ErrShort = errors.New("record is cut off")
	// ErrCorrupt means that more bytes would not help.
	ErrCorrupt = errors.New("record is corrupt")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C of b.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// SealFrame fills in the head of a frame whose body is there already.
func SealFrame(frame []byte) {
	body := frame[FrameHead:]
	binary.LittleEndian.PutUint32(frame, uint32(len(body)))
	binary.LittleEndian.PutUint32(frame[4:], Checksum(body))
}

// CutFrame returns the body of the frame that b begins with, which is a part of b, and the frame's size. A body of less
// than least or more than most bytes is corrupt.
func CutFrame(b []byte, least, most int) (body []byte, size int, err error) {
	if len(b) < FrameHead {
		return nil, 0, ErrShort
	}
	length := uint64(binary.LittleEndian.Uint32(b))
	if length < uint64(least) || length > uint64(most) {
		return nil, 0, ErrCorrupt
	}
	size = FrameHead + int(length)
	if len(b) < size {
		return nil, 0, ErrShort
	}
	body = b[FrameHead:size:size]
	if Checksum(body) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, ErrCorrupt
	}
	return body, size, nil
}
