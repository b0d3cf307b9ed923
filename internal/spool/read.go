package spool

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"btcpool/internal/durable"
)

const (
	// readBytes is how much of a segment is read at a time; the largest record fits in twice.
	readBytes = 1 << 20
	// searchBytes bounds how much of what was read is checked in search of a record, however often bytes look like the
	// beginning of one.
	searchBytes = 64 << 20
)

// reader goes through the records of a segment, in which sequences grow by one. Where they are damaged it goes on with
// the next whole record that may follow there, so that neither stray bytes nor a record of another time is taken for one.
type reader struct {
	file io.ReaderAt
	at   int64 // where to read on

	epoch uint32 // of the last record
	seq   uint64 // of the last record; 0: none yet
	gap   int64  // bytes skipped since then
	holes int64  // bytes skipped in all

	buf  []byte
	vain int // bytes of buf that were checked without finding a record
}

// damage is what a reader skipped.
type damage struct {
	bytes   int64
	records uint64 // at least
}

func (d *damage) add(more damage) {
	d.bytes += more.bytes
	d.records += more.records
}

// some reads what comes next before end, at most readBytes, and calls f for each whole record there until f returns
// false. What f gets is overwritten by the next call. Damage is told together with the record behind it.
func (r *reader) some(end int64, f func(record) bool) (skipped damage, err error) {
	size := int(min(end-r.at, readBytes))
	r.buf = slices.Grow(r.buf[:0], size)[:size]
	n, err := r.file.ReadAt(r.buf, r.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return damage{}, err
	}
	clear(r.buf[n:]) // the file has become shorter
	return r.each(r.buf, r.at+int64(size) == end, f), nil
}

// each is some for bytes that were read; last says that none follow.
func (r *reader) each(b []byte, last bool, f func(record) bool) (skipped damage) {
	r.vain = 0
	for n := 0; n < len(b); {
		rest := b[n:]
		if !last && len(rest) < frameSize {
			return skipped
		}
		if size, ok := r.expects(rest); ok && r.vain < searchBytes {
			rec, _, err := parseRecord(rest)
			switch {
			case err == nil:
				n += size
				r.at += int64(size)
				skipped.add(r.follow(rec))
				if !f(rec) {
					return skipped
				}
				continue
			case errors.Is(err, durable.ErrCorrupt):
				r.vain += size
			case !last:
				return skipped
			}
		}
		n++
		r.at++
		r.gap++
		r.holes++
	}
	return skipped
}

// expects tells whether a record that b may begin with is one that may come next, and its size. Each of those that are
// missing took frameSize bytes or more.
func (r *reader) expects(b []byte) (size int, ok bool) {
	size, epoch, seq, ok := parseHead(b)
	if r.seq == 0 {
		return size, ok && seq > 0
	}
	return size, ok && epoch >= r.epoch && seq > r.seq && seq-r.seq-1 <= uint64(r.holes/frameSize)
}

// follow makes rec the last record and returns what was skipped in front of it.
func (r *reader) follow(rec record) (skipped damage) {
	if r.gap > 0 {
		skipped = damage{bytes: r.gap, records: 1}
		if r.seq > 0 {
			skipped.records = rec.seq - r.seq - 1
		}
	}
	r.epoch, r.seq, r.gap = rec.epoch, rec.seq, 0
	return skipped
}

// giveUp returns what was skipped behind the last record. Which record the next one is, is not known then.
func (r *reader) giveUp() (skipped damage) {
	if r.gap > 0 {
		skipped = damage{bytes: r.gap, records: 1}
		r.seq, r.gap = 0, 0
	}
	return skipped
}

// unfinished tells the beginning of a record whose writing was broken off, with nothing or zeros behind it, from a
// damaged one.
func unfinished(b []byte) bool {
	_, _, err := parseRecord(bytes.TrimRight(b, "\x00"))
	return errors.Is(err, durable.ErrShort)
}
