package stratum

import (
	"bytes"
	"errors"
)

// MaxLine is the longest line a miner may send, in bytes before the line feed.
const MaxLine = 16 << 10

// ErrLineTooLong means that more than MaxLine bytes came without a line end.
var ErrLineTooLong = errors.New("line too long")

// CutLine returns the line that b begins with, without its end, and its length n with it. When b holds only a part of
// one, n is 0 and there is no error. ErrLineTooLong is returned as soon as that shows.
func CutLine(b []byte) (line []byte, n int, err error) {
	end := bytes.IndexByte(b[:min(len(b), MaxLine+1)], '\n')
	switch {
	case end >= 0:
		return bytes.TrimSuffix(b[:end], []byte("\r")), end + 1, nil
	case len(b) > MaxLine:
		return nil, 0, ErrLineTooLong
	}
	return nil, 0, nil
}
