package spool

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const (
	FrameSize    = frameSize
	PendingBytes = pendingBytes
	ReadBytes    = readBytes
	SegmentBytes = segmentBytes
)

// SetSync replaces what brings a file to disk; before the first Append only.
func (s *Spool) SetSync(sync func(*os.File) error) { s.sync = sync }

// Fdatasync is what it is by default.
var Fdatasync = fdatasync

// SearchBytes is how much of a segment is checked in vain at most for each ReadBytes of it.
const SearchBytes = searchBytes + frameSize + MaxValue

// Records calls f with epoch, sequence and value of each record that a segment of these bytes holds, and returns what
// was skipped. It fails when reading makes no way or too much work of it.
func Records(tb testing.TB, segment []byte, f func(epoch uint32, seq uint64, value []byte)) (skippedBytes int64, skippedRecords uint64) {
	tb.Helper()
	r := reader{file: bytes.NewReader(segment)}
	var skipped damage
	for end := int64(len(segment)); r.at < end; {
		before := r.at
		more, err := r.some(end, func(rec record) bool { f(rec.epoch, rec.seq, rec.value); return true })
		if err != nil {
			tb.Fatal(err)
		}
		if r.at <= before || r.at > end {
			tb.Fatalf("read from %d to %d of %d", before, r.at, end)
		}
		if least := int64(readBytes - frameSize - MaxValue); r.at < end && r.at-before < least || r.vain > SearchBytes {
			tb.Fatalf("read %d bytes, checked %d in vain", r.at-before, r.vain)
		}
		skipped.add(more)
	}
	skipped.add(r.giveUp())
	return skipped.bytes, skipped.records
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
