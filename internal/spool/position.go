package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"btcpool/internal/durable"
)

// position is where sending goes on. Its file, which is overwritten in place, holds u64 segment, u64 offset, u32
// CRC-32C, little-endian.
type position struct {
	segment uint64
	offset  int64
}

func (p position) before(q position) bool {
	return p.segment < q.segment || p.segment == q.segment && p.offset < q.offset
}

const positionSize = 8 + 8 + 4

func (p position) write(f *os.File) error {
	var b [positionSize]byte
	binary.LittleEndian.PutUint64(b[:], p.segment)
	binary.LittleEndian.PutUint64(b[8:], uint64(p.offset))
	binary.LittleEndian.PutUint32(b[16:], durable.Checksum(b[:16]))
	_, err := f.WriteAt(b[:], 0)
	return err
}

func readPosition(f *os.File) (position, error) {
	var b [positionSize]byte
	switch n, err := f.ReadAt(b[:], 0); {
	case errors.Is(err, io.EOF) && n == 0:
		return position{}, nil // a new spool
	case err != nil:
		return position{}, err
	case durable.Checksum(b[:16]) != binary.LittleEndian.Uint32(b[16:]):
		return position{}, errors.New("checksum of the position does not match")
	}
	p := position{
		segment: binary.LittleEndian.Uint64(b[:]),
		offset:  int64(binary.LittleEndian.Uint64(b[8:])),
	}
	if p.segment > math.MaxInt64 || p.offset < 0 {
		return position{}, fmt.Errorf("no position: %d in segment %d", p.offset, p.segment)
	}
	return p, nil
}
