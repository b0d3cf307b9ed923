package sharefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
)

// ErrCorrupt says that a file holds something that no crash of a writer leaves behind.
var ErrCorrupt = errors.New("share file is corrupt")

func corrupt(f *os.File, at int64, err error) error {
	return fmt.Errorf("%w: %s at %d: %w", ErrCorrupt, f.Name(), at, err)
}

// Reader reads the records of a day file, also while it is being written. It takes gzip members of any origin and files
// that are not compressed.
type Reader struct {
	file  *os.File
	plain bool   // the file is not compressed
	at    int64  // where the member starts that is next or being read; of plain files, the next byte
	buf   []byte // from next on, data that has not been returned yet
	next  int

	own    inflater
	gz     gzip.Reader // a member without a size, read piece by piece
	src    *source     // what gz reads; nil between members
	passed int64       // how much of that member's data is or was in buf
}

// Open opens a day file for reading.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Reader{file: f}, nil
}

// Close ends the reading.
func (r *Reader) Close() error { return r.file.Close() }

// Position is the offset in the file up to which everything was returned, at the granularity of members.
func (r *Reader) Position() int64 { return r.at }

// Next returns the next record, valid until the next call. At the end it returns io.EOF, or io.ErrUnexpectedEOF when
// something incomplete follows. Either may be only the present end, and so may the place of an ErrCorrupt: Next can be
// called again later and goes on where it stopped.
func (r *Reader) Next() ([]byte, error) {
	for {
		if pending := r.buf[r.next:]; len(pending) >= 4 {
			size := int(binary.LittleEndian.Uint32(pending))
			if size > MaxRecord {
				return nil, corrupt(r.file, r.at, fmt.Errorf("record of %d bytes", size))
			}
			if len(pending) >= 4+size {
				r.next += 4 + size
				return pending[4 : 4+size], nil
			}
		}
		r.buf = append(r.buf[:0], r.buf[r.next:]...)
		r.next = 0
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && len(r.buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

const pieceSize = 64 << 10

// fill appends more data to buf.
func (r *Reader) fill() error {
	if r.src != nil {
		return r.inflatePiece()
	}
	if r.plain {
		return r.readPlain()
	}
	var first [extraAt]byte
	n, err := r.file.ReadAt(first[:], r.at)
	switch {
	case err != nil && err != io.EOF:
		return err
	case n == 0:
		return io.EOF
	case n < 2:
		return io.ErrUnexpectedEOF
	case string(first[:2]) == memberMagic[:2]:
		return r.openMember(first[:n])
	case r.at == 0: // a record's length never looks like the beginning of gzip
		r.plain = true
		return r.readPlain()
	default:
		return corrupt(r.file, r.at, errors.New("no gzip member"))
	}
}

func (r *Reader) readPlain() error {
	at := len(r.buf)
	r.buf = append(r.buf, make([]byte, pieceSize)...)
	n, err := r.file.ReadAt(r.buf[at:], r.at)
	r.buf = r.buf[:at+n]
	r.at += int64(n)
	if n > 0 {
		return nil
	}
	return err
}

// openMember begins the member at r.at, of whose header the first bytes are given. One that says its size is taken
// whole, when it is complete; its writer may replace it until then.
func (r *Reader) openMember(first []byte) error {
	if len(first) < extraAt {
		return io.ErrUnexpectedEOF
	}
	if string(first[:len(memberMagic)]) == memberMagic {
		header := make([]byte, extraAt+int(binary.LittleEndian.Uint16(first[10:])))
		n, err := r.file.ReadAt(header, r.at)
		if err != nil && err != io.EOF {
			return err
		}
		if _, size, ok := parseHeader(header[:n]); ok {
			return r.readMember(size)
		}
		if n < len(header) {
			return io.ErrUnexpectedEOF
		}
	}
	r.src = newSource(r.file, r.at)
	if err := r.gz.Reset(r.src.Reader); err != nil {
		return r.memberError(err)
	}
	r.gz.Multistream(false)
	if _, err := io.CopyN(io.Discard, &r.gz, r.passed); err != nil {
		return r.memberError(err)
	}
	return nil
}

func (r *Reader) readMember(size int64) error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if r.at+size > info.Size() {
		return io.ErrUnexpectedEOF
	}
	data, err := r.own.read(r.file, r.at, size)
	if err != nil {
		return err
	}
	if r.passed > 0 { // a torn member of other software was here before
		r.buf, r.passed = r.buf[:0], 0
	}
	r.buf = append(r.buf, data...)
	r.at += size
	return nil
}

// inflatePiece reads on in a member without a size.
func (r *Reader) inflatePiece() error {
	at := len(r.buf)
	r.buf = append(r.buf, make([]byte, pieceSize)...)
	n, err := r.gz.Read(r.buf[at:])
	r.buf = r.buf[:at+n]
	r.passed += int64(n)
	switch {
	case n > 0: // an error comes again
		return nil
	case errors.Is(err, io.EOF):
		r.at = r.src.position()
		r.src, r.passed = nil, 0
		return nil
	}
	return r.memberError(err)
}

// memberError leaves a member that cannot be read on; it will be begun again.
func (r *Reader) memberError(err error) error {
	r.src = nil
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return corrupt(r.file, r.at, err)
}
