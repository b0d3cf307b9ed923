package sharefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"btcpool/internal/share"
)

// rawBytes is about how much of a raw file is read at once.
const rawBytes = 64 << 10

// raw reads files of old btcpool: shares one after the other, without lengths and not compressed.
type raw struct {
	size int // of a share
	day  Day // of the first shares, if they have no checksum
	buf  []byte
	body []byte
}

// newRaw returns nil for a file that begins otherwise.
func newRaw(head []byte) *raw {
	size := rawSize(head)
	if size == 0 {
		return nil
	}
	o := &raw{size: size, buf: make([]byte, rawBytes/size*size)}
	if size == share.SizeV1 {
		o.day = firstDay(head)
	}
	return o
}

// rawSize returns the size of the shares of a raw file that begins with head, or 0 for any other file. The first share
// tells, or else the second: one of them may be damaged.
func rawSize(head []byte) int {
	if size := share.OldSize(head); size != 0 || bytes.HasPrefix(head, []byte(gzipMagic)) {
		return size
	}
	var s share.Share
	for _, size := range []int{share.SizeV1, share.SizeV2} {
		if len(head) < 2*size {
			break
		}
		if second := head[size : 2*size]; share.OldSize(second) == size && s.ParseOld(second) == nil {
			return size
		}
	}
	return 0
}

// firstDay returns the day that two of the first shares are of, or that of the first of them.
func firstDay(head []byte) (first Day) {
	var s share.Share
	seen := make(map[Day]bool)
	for old := range slices.Chunk(head, share.SizeV1) {
		if share.OldSize(old) != share.SizeV1 || s.ParseOld(old) != nil {
			continue
		}
		day := DayOf(s.Time)
		if seen[day] {
			return day
		}
		if seen[day] = true; first == 0 {
			first = day
		}
	}
	return first
}

// parse reads a share. Those without a checksum have to be of the same day as the first ones, as btcpool sorted them.
func (o *raw) parse(s *share.Share, src []byte) error {
	if err := s.ParseOld(src); err != nil || o.size != share.SizeV1 {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if day := DayOf(s.Time); day != o.day {
		return fmt.Errorf("share of %d among those of %d", day, o.day)
	}
	return nil
}

// readRaw appends the records of the next shares to buf.
func (r *Reader) readRaw() error {
	n, err := r.file.ReadAt(r.raw.buf, r.at)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case n == 0:
		return io.EOF
	case n < r.raw.size:
		return io.ErrUnexpectedEOF
	}
	var s share.Share
	var fault error
	end := 0
	for ; n-end >= r.raw.size; end += r.raw.size {
		if fault = r.raw.parse(&s, r.raw.buf[end:end+r.raw.size]); fault != nil {
			break
		}
		r.raw.body = s.AppendBody(r.raw.body[:0])
		r.buf = appendRecord(r.buf, r.raw.body)
	}
	if end == 0 {
		return r.skipRaw(corrupt(r.file, r.at, fault))
	}
	r.before, r.at, r.scanned = r.at, r.at+int64(end), 0
	return nil
}

// skipRaw goes behind what stands at r.at and is no share for a reason, if one follows, which need not be at a multiple
// of its size: a crash may have left a part of one.
func (r *Reader) skipRaw(reason error) error {
	var s share.Share
	for start := max(r.at+1, r.scanned); ; {
		n, err := r.file.ReadAt(r.raw.buf, start)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		fits := max(0, n-r.raw.size+1) // places where one may begin
		for i := range fits {
			if old := r.raw.buf[i : i+r.raw.size]; share.OldSize(old) == r.raw.size && r.raw.parse(&s, old) == nil {
				damage := &Damage{r.at, start + int64(i) - r.at, reason}
				r.before, r.at, r.scanned = r.at, start+int64(i), 0
				return damage
			}
		}
		start += int64(fits)
		if err != nil {
			r.scanned = start
			return reason
		}
	}
}
