package sharefile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/gzip"
)

// recovered is what the end of a day file says.
type recovered struct {
	size int64       // bytes of the whole members
	torn int64       // bytes behind them
	last *Checkpoint // the newest member's that has one; nil: none has
	// foreign says that other software has written the last member.
	foreign bool
}

// recoverFile finds the end of the last whole member. It reads only the end of a file that this package wrote, and
// every member that other software appended. It changes nothing.
func recoverFile(f *os.File) (recovered, error) {
	info, err := f.Stat()
	if err != nil {
		return recovered{}, err
	}
	if magic := make([]byte, 2); info.Size() >= 2 {
		if _, err := f.ReadAt(magic, 0); err != nil {
			return recovered{}, err
		}
		if string(magic) != memberMagic[:2] {
			return recovered{}, fmt.Errorf("%s is not compressed: shares cannot be appended to it, move it away", f.Name())
		}
	}
	at, size, last, err := lastMember(f, info.Size())
	if err != nil {
		return recovered{}, err
	}
	end, err := wholeMembers(f, at+size, info.Size())
	return recovered{size: end, torn: info.Size() - end, last: last, foreign: end > at+size}, err
}

// lastMember looks backwards from the end of the file for a sound member with a checkpoint; 0, 0, nil if there is none.
func lastMember(f *os.File, fileSize int64) (at, size int64, last *Checkpoint, err error) {
	const window = 1 << 20
	var in inflater
	for end := fileSize; end > 0; {
		start := max(0, end-window)
		// Read a whole header beyond the window, so that one that begins in the window is complete.
		buf := make([]byte, min(end+maxHeader, fileSize)-start)
		if _, err := f.ReadAt(buf, start); err != nil {
			return 0, 0, nil, err
		}
		reach := min(end-start+int64(len(memberMagic))-1, int64(len(buf)))
		for i := bytes.LastIndex(buf[:reach], []byte(memberMagic)); i >= 0; i = bytes.LastIndex(buf[:i], []byte(memberMagic)) {
			c, size, ok := parseHeader(buf[i:])
			if !ok || start+int64(i)+size > fileSize {
				continue
			}
			if _, err := in.read(f, start+int64(i), size); err == nil {
				return start + int64(i), size, c, nil
			} else if !errors.Is(err, ErrCorrupt) {
				return 0, 0, nil, err
			}
		}
		end = start
	}
	return 0, 0, nil, nil
}

// wholeMembers returns where the last of the complete gzip members from at on ends.
func wholeMembers(f *os.File, at, fileSize int64) (int64, error) {
	var gz gzip.Reader
	for at < fileSize {
		src := newSource(f, at)
		err := gz.Reset(src.Reader)
		if err == nil {
			gz.Multistream(false)
			_, err = io.Copy(io.Discard, &gz)
		}
		switch {
		case err == nil:
			at = src.position()
		case errors.As(err, new(*os.PathError)):
			return 0, err
		default:
			return at, nil
		}
	}
	return at, nil
}

// inflater reads whole members into memory, with buffers it keeps.
type inflater struct {
	gz     gzip.Reader
	src    bytes.Reader
	member []byte
	data   bytes.Buffer
}

// read returns the data of the member at an offset once all its checks hold. They are valid until the next call.
func (in *inflater) read(f *os.File, at, size int64) ([]byte, error) {
	in.member = slices.Grow(in.member[:0], int(size))[:size]
	if _, err := f.ReadAt(in.member, at); err != nil {
		return nil, err
	}
	in.src.Reset(in.member)
	in.data.Reset()
	err := in.gz.Reset(&in.src)
	if err == nil {
		in.gz.Multistream(false)
		_, err = io.Copy(&in.data, io.LimitReader(&in.gz, maxMember))
	}
	if err == nil && in.src.Len() > 0 {
		err = errors.New("not the size it says")
	}
	if err != nil {
		return nil, corrupt(f, at, err)
	}
	return in.data.Bytes(), nil
}

// source reads a file from an offset on and knows how much of it was taken.
type source struct {
	*bufio.Reader
	section *io.SectionReader
	start   int64
}

func newSource(f *os.File, at int64) *source {
	section := io.NewSectionReader(f, at, 1<<62)
	return &source{bufio.NewReaderSize(section, 64<<10), section, at}
}

func (s *source) position() int64 {
	read, _ := s.section.Seek(0, io.SeekCurrent) // never fails
	return s.start + read - int64(s.Buffered())
}
