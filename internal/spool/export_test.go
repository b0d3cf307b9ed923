package spool

import (
	"os"
	"path/filepath"
	"testing"
)

const (
	FrameSize    = frameSize
	PendingBytes = pendingBytes
	SegmentBytes = segmentBytes
)

// SetSync replaces what brings a file to disk; before the first Append only.
func (s *Spool) SetSync(sync func(*os.File) error) { s.sync = sync }

// Fdatasync is what it is by default.
var Fdatasync = fdatasync

// Whole returns the size of the whole records at the start of b, and those records encoded again.
func Whole(b []byte) (n int, again []byte, err error) {
	n, err = eachRecord(b, func(r record) {
		start := len(again)
		again = append(append(again, make([]byte, frameSize)...), r.value...)
		var key uint64
		for i, c := range r.key {
			key |= uint64(c) << (8 * i)
		}
		sealRecord(again[start:], r.epoch, r.seq, key)
	})
	return n, again, err
}

// Position returns what the file of a position holds.
func Position(tb testing.TB, segment uint64, offset int64) []byte {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "position"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := (position{segment, offset}).write(f); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Frame returns a record as it is in a segment.
func Frame(epoch uint32, seq, key uint64, value []byte) []byte {
	frame := append(make([]byte, frameSize), value...)
	sealRecord(frame, epoch, seq, key)
	return frame
}
