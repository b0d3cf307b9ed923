package stratum

import (
	"bytes"
	"errors"
	"io"
)

// MaxLine is the longest line a miner may send, in bytes before the line feed.
const MaxLine = 16 << 10

// ErrLineTooLong means that more than MaxLine bytes came without a line end.
// The reader has nothing more to give.
var ErrLineTooLong = errors.New("line too long")

// minBuffer holds a few requests of the usual 100 to 200 bytes. An idle miner
// costs no more.
const minBuffer = 512

// LineReader splits what a miner sends into lines. Its buffer grows with the
// longest line and shrinks after it.
type LineReader struct {
	r          io.Reader
	buf        []byte
	start, end int // of the bytes not yet returned
	searched   int // no line end before this position
}

// NewLineReader returns a reader of the lines that r delivers.
func NewLineReader(r io.Reader) *LineReader {
	return &LineReader{r: r, buf: make([]byte, minBuffer)}
}

// Next returns the next line that has arrived completely, without its end, and
// nil when there is none yet. It does not read. The line is valid until Fill.
func (l *LineReader) Next() []byte {
	n := bytes.IndexByte(l.buf[l.searched:l.end], '\n')
	if n < 0 {
		l.searched = l.end
		return nil
	}
	line := l.buf[l.start : l.searched+n]
	l.searched += n + 1
	l.start = l.searched
	if len(line) > 0 && line[len(line)-1] == '\r' {
		line = line[:len(line)-1]
	}
	return line
}

// Pending returns what has arrived behind the last line, for what is no line. It
// is valid until Fill.
func (l *LineReader) Pending() []byte { return l.buf[l.start:l.end] }

// Skip drops the first n bytes of Pending.
func (l *LineReader) Skip(n int) {
	l.start += n
	l.searched = max(l.searched, l.start)
}

// Fill reads once. It returns the reader's error, or ErrLineTooLong instead of
// reading more of a line than MaxLine. What is pending must be no whole line.
func (l *LineReader) Fill() error {
	pending := l.buf[l.start:l.end]
	switch {
	case len(pending) > MaxLine:
		return ErrLineTooLong
	case len(pending) == len(l.buf):
		grown := make([]byte, min(2*len(l.buf), MaxLine+1))
		copy(grown, pending)
		l.buf = grown
	case len(pending) == 0 && len(l.buf) > minBuffer:
		l.buf = make([]byte, minBuffer)
	case l.start > 0:
		copy(l.buf, pending)
	}
	l.start, l.end, l.searched = 0, len(pending), len(pending)
	n, err := l.r.Read(l.buf[l.end:])
	l.end += n
	if n > 0 {
		return nil // an error comes again with the next call
	}
	return err
}
