package sharefile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/gzip"

	"btcpool/internal/share"
)

// The beginning of any gzip member, RFC 1952.
const (
	gzipMagic = "\x1f\x8b\x08"
	flagsAt   = len(gzipMagic)
	flagExtra = 4
)

// headBytes is how much of a file tells its form.
const headBytes = 2 * share.SizeV2

// isCompressed tells whether a file, of which head is the beginning, is of gzip members if it is a share log at all.
func isCompressed(head []byte) bool { return !isPlain(head) && rawSize(head) == 0 }

// isPlain tells whether a file that begins with b is of records and their lengths, not compressed: the length of a record
// is far below the number that gzip's first bytes make, even with one of them damaged.
func isPlain(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	length := binary.LittleEndian.Uint32(b)
	return 0 < length && length <= MaxRecord
}

// members finds the sound members of files: those of ours whose header and data are as they were written, and those of
// other software that pass gzip's own checks. Other software makes no extra field: a member with one that is not ours
// is a damaged one of ours. It keeps buffers.
type members struct {
	gz     gzip.Reader
	src    bytes.Reader
	header []byte
	member []byte
	data   []byte // of the member that was inflated last
}

// own reads the member of ours at an offset. Its data are in m.data until the next call. The error is
// io.ErrUnexpectedEOF when the member can become sound by growing, and ErrCorrupt when it cannot.
func (m *members) own(f *os.File, at, fileSize int64) (size int64, c *Checkpoint, err error) {
	header, err := m.readHeader(f, at, fileSize)
	if err != nil {
		return 0, nil, err
	}
	c, size, ok := parseHeader(header)
	switch {
	case !ok:
		return 0, nil, corrupt(f, at, errors.New("damaged checkpoint"))
	case size > fileSize-at:
		return 0, nil, io.ErrUnexpectedEOF
	}
	return size, c, m.inflate(f, at, size)
}

// readHeader reads a gzip header with an extra field up to that one's end.
func (m *members) readHeader(f *os.File, at, fileSize int64) ([]byte, error) {
	if fileSize-at < extraAt {
		return nil, io.ErrUnexpectedEOF
	}
	m.header = slices.Grow(m.header[:0], maxHeader)[:extraAt]
	if _, err := f.ReadAt(m.header, at); err != nil {
		return nil, err
	}
	end := extraAt + int(binary.LittleEndian.Uint16(m.header[extraAt-2:]))
	if fileSize-at < int64(end) {
		return nil, io.ErrUnexpectedEOF
	}
	m.header = m.header[:end]
	_, err := f.ReadAt(m.header, at)
	return m.header, err
}

// inflate reads a member whose size is known. Its data are in m.data until the next call, if all its checks hold.
func (m *members) inflate(f *os.File, at, size int64) error {
	m.data = m.data[:0]
	if size > maxMember {
		return corrupt(f, at, errors.New("too large"))
	}
	m.member = slices.Grow(m.member[:0], int(size))[:size]
	if _, err := f.ReadAt(m.member, at); err != nil {
		return err
	}
	m.src.Reset(m.member)
	err := m.gz.Reset(&m.src)
	if err == nil {
		m.gz.Multistream(false)
		m.data = slices.Grow(m.data, int(min(m.length(), mostDeflated*size)))
		m.data, err = appendAll(m.data, &m.gz)
	}
	if err == nil && m.src.Len() > 0 {
		err = errors.New("not the size it says")
	}
	if err != nil {
		return corrupt(f, at, err)
	}
	return nil
}

// mostDeflated is how much larger than deflated data are believed to be before they are seen.
const mostDeflated = 16

// length is how many bytes of data m.member says that it holds, and one more: who reads them all notices the end at
// once.
func (m *members) length() int64 {
	if len(m.member) < trailer {
		return 0
	}
	return int64(binary.LittleEndian.Uint32(m.member[len(m.member)-4:])) + 1
}

// appendAll appends what r holds, but no more than maxMember bytes in all.
func appendAll(dst []byte, r io.Reader) ([]byte, error) {
	for len(dst) < maxMember {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, pieceSize)
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), maxMember)])
		dst = dst[:len(dst)+n]
		switch {
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst, err
		}
	}
	return dst, nil
}

// foreign returns the size of the member of other software at an offset, with errors like those of own.
func (m *members) foreign(f *os.File, at int64) (size int64, err error) {
	src := newSource(f, at)
	if err = m.gz.Reset(src.Reader); err == nil {
		m.gz.Multistream(false)
		_, err = io.Copy(io.Discard, &m.gz)
	}
	return src.position() - at, gzipError(f, at, err)
}

// gzipError tells a member that may yet grow from a damaged one.
func gzipError(f *os.File, at int64, err error) error {
	switch {
	case err == nil, errors.As(err, new(*os.PathError)):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return corrupt(f, at, err)
}

// sound reads the member at an offset, with errors as own has them. c is nil when it is other software's.
func (m *members) sound(f *os.File, at, fileSize int64) (size int64, c *Checkpoint, err error) {
	head := make([]byte, min(extraAt, fileSize-at))
	if _, err := f.ReadAt(head, at); err != nil {
		return 0, nil, err
	}
	switch n := min(len(head), len(gzipMagic)); {
	case string(head[:n]) != gzipMagic[:n]:
		return 0, nil, corrupt(f, at, errors.New("no gzip member"))
	case len(head) < extraAt:
		return 0, nil, io.ErrUnexpectedEOF
	case head[flagsAt]&flagExtra != 0:
		return m.own(f, at, fileSize)
	}
	size, err = m.foreign(f, at)
	return size, nil, err
}

// place is where a search ended.
type place struct {
	at         int64       // of the member; if none was found, where to search once the file has grown
	size       int64       // 0: none was found
	checkpoint *Checkpoint // nil: other software's
}

// next searches for the first sound member from an offset on.
func (m *members) next(f *os.File, from, fileSize int64) (place, error) {
	const window = 1 << 20
	buf := make([]byte, min(window, max(0, fileSize-from)))
	again := max(from, fileSize-int64(len(gzipMagic))+1)
	for start := from; fileSize-start >= int64(len(gzipMagic)); start += int64(len(buf) - len(gzipMagic) + 1) {
		buf = buf[:min(int64(len(buf)), fileSize-start)]
		if _, err := f.ReadAt(buf, start); err != nil {
			return place{}, err
		}
		for i := 0; ; i++ {
			step := bytes.Index(buf[i:], []byte(gzipMagic))
			if step < 0 {
				break
			}
			i += step
			at := start + int64(i)
			switch size, c, err := m.sound(f, at, fileSize); {
			case err == nil:
				return place{at, size, c}, nil
			case errors.Is(err, io.ErrUnexpectedEOF):
				again = min(again, at)
			case !errors.Is(err, ErrCorrupt):
				return place{}, err
			}
		}
	}
	return place{at: again}, nil
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
