package sharefile

import (
	"bytes"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

const (
	Format, FormatOld = format, formatOld
	MaxFields         = maxPayload - (bodyAt - payloadAt)
)

// Member makes a member whose checkpoint has these fields, MaxFields bytes at most, in the form that a header has them
// in.
func Member(tb testing.TB, format byte, fields, records []byte) []byte {
	tb.Helper()
	size := len(fields) + bodyAt - payloadAt
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	gz.Extra = append([]byte{subfieldID[0], subfieldID[1], byte(size), byte(size >> 8), format, 0, 0, 0, 0, 0, 0, 0, 0}, fields...)
	gz.ModTime, gz.OS = time.Unix(0, 0), 255
	if _, err := gz.Write(records); err != nil {
		tb.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		tb.Fatal(err)
	}
	seal(buf.Bytes())
	return buf.Bytes()
}

// Fields returns the fields of a checkpoint, and ParseMember the checkpoint of a member.
func (c *Checkpoint) Fields() ([]byte, error) {
	extra, err := c.appendExtra(nil)
	if err != nil {
		return nil, err
	}
	return extra[bodyAt-extraAt:], nil
}

func ParseMember(member []byte) (*Checkpoint, bool) {
	c, _, ok := parseHeader(member)
	return c, ok
}

// WriteWhile writes what a day's file waits for, as Flush does, and has somebody do something meanwhile: before the
// bytes are in the file, or after.
func (w *Writer) WriteWhile(day Day, before, after func()) (err error) {
	f := w.days[day]
	w.flush++
	w.files = 1
	if f.member, err = w.encode(f); err != nil {
		return err
	}
	f.records, f.shares = f.records[:0], 0
	file, err := w.openEnd(Path(w.dir, w.chain, day), f)
	if err != nil {
		return err
	}
	defer file.Close()
	before()
	if _, err := file.WriteAt(f.member.data, f.size); err != nil {
		return err
	}
	after()
	return w.append(file, f) // the same bytes again
}
