package sharefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

var errNoShareLog = errors.New("nothing in it is of a share log")

// recovered is what the end of a day file says.
type recovered struct {
	size int64       // of all up to the end of the last sound member
	torn int64       // bytes behind it
	last *Checkpoint // the newest member's that has one; nil: none has
	cut  *Checkpoint // that of the member which is cut off, if it can be read
	// foreign says that other software has written the last member.
	foreign bool
}

// recoverFile finds the end of the last sound member. It reads only the end of a file that this package wrote, and
// what other software appended. It changes nothing.
func recoverFile(f *os.File) (recovered, error) {
	info, err := f.Stat()
	if err != nil {
		return recovered{}, err
	}
	var m members
	fileSize := info.Size()
	head := make([]byte, min(fileSize, headBytes))
	if _, err := f.ReadAt(head, 0); err != nil {
		return recovered{}, err
	}
	if !isCompressed(head) {
		return recovered{}, fmt.Errorf("%s is not compressed: shares cannot be appended to it, move it away", f.Name())
	}
	at, size, last, err := m.last(f, fileSize)
	if err != nil {
		return recovered{}, err
	}
	end, err := m.end(f, at+size, fileSize)
	if err != nil {
		return recovered{}, err
	}
	if end == 0 && !strings.HasPrefix(gzipMagic, string(head[:min(len(head), len(gzipMagic))])) {
		return recovered{}, errNoShareLog
	}
	r := recovered{size: end, torn: fileSize - end, last: last, foreign: end > at+size}
	switch header, err := m.readHeader(f, end, fileSize); {
	case err == nil:
		r.cut, _, _ = parseHeader(header)
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return recovered{}, err
	}
	return r, nil
}

// last looks backwards from the end of the file for a sound member with a checkpoint; 0, 0, nil if there is none.
func (m *members) last(f *os.File, fileSize int64) (at, size int64, last *Checkpoint, err error) {
	const window = 1 << 20
	for end := fileSize; end > 0; {
		start := max(0, end-window)
		buf := make([]byte, min(end+int64(len(memberMagic))-1, fileSize)-start)
		if _, err := f.ReadAt(buf, start); err != nil {
			return 0, 0, nil, err
		}
		for i := bytes.LastIndex(buf, []byte(memberMagic)); i >= 0; i = bytes.LastIndex(buf[:i], []byte(memberMagic)) {
			size, c, err := m.own(f, start+int64(i), fileSize)
			switch {
			case err == nil:
				return start + int64(i), size, c, nil
			case !errors.Is(err, ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF):
				return 0, 0, nil, err
			}
		}
		end = start
	}
	return 0, 0, nil, nil
}

// end returns where the last sound member from an offset on ends; that offset, if there is none.
func (m *members) end(f *os.File, at, fileSize int64) (int64, error) {
	for {
		next, err := m.next(f, at, fileSize)
		if err != nil || next.size == 0 {
			return at, err
		}
		at = next.at + next.size
	}
}
