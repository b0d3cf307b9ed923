package sharefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"

	"btcpool/internal/share"
)

// ErrCorrupt says that a file holds something that no crash of a writer leaves behind.
var ErrCorrupt = errors.New("share file is corrupt")

// ErrReplaced says that what was read is not what the file holds any more: its writer cut it back and went on.
var ErrReplaced = errors.New("share file was replaced")

func corrupt(f *os.File, at int64, err error) error {
	return fmt.Errorf("%w: %s at %d: %w", ErrCorrupt, f.Name(), at, err)
}

// Damage is a stretch of a file that cannot be read, though what follows it can. It wraps ErrCorrupt.
type Damage struct {
	At, Bytes int64
	Err       error // why
}

func (d *Damage) Error() string { return fmt.Sprintf("%d bytes at %d: %v", d.Bytes, d.At, d.Err) }

func (d *Damage) Unwrap() error { return d.Err }

// Reader reads the records of a day file, also while it is being written. It takes gzip members of any origin, and files
// that are not compressed: of records with their lengths, or of old btcpool's shares, which it makes records of.
type Reader struct {
	file       *os.File
	plain      bool   // the file is not compressed
	raw        *raw   // the file is an array of shares of old btcpool; nil: it is not
	at         int64  // where the member starts that is next or being read; of plain files, the next byte
	buf        []byte // from next on, data that has not been returned yet
	next       int
	head       beginning // what stands at at
	before     int64     // where that starts which ends at at
	beforeHead beginning // what stands there
	scanned    int64     // no sound member begins behind at and before this

	members members
	ahead   ahead
	gz      gzip.Reader // a member without a size, read piece by piece
	src     *source     // what gz reads; nil between members
	passed  int64       // how much of that member's data is or was in buf
}

// beginning is that of a member, which tells it from another one in its place.
type beginning [64]byte

// Open opens a day file for reading.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Reader{file: f}, nil
}

// Close ends the reading.
func (r *Reader) Close() error {
	r.ahead.end()
	return r.file.Close()
}

// ReadAhead has up to n members inflated side by side, before they are asked for. It is for files that do not change.
func (r *Reader) ReadAhead(n int) { r.ahead = ahead{file: r.file, most: n} }

// Stat describes the file that is read, whatever its name stands for by now.
func (r *Reader) Stat() (os.FileInfo, error) { return r.file.Stat() }

// Position is the offset in the file up to which everything was returned, at the granularity of members.
func (r *Reader) Position() int64 {
	switch pending := len(r.buf) - r.next; {
	case r.plain:
		return r.at - int64(pending)
	case pending > 0 && r.src == nil:
		return r.before
	}
	return r.at
}

// Next returns the next record, valid until the next call.
//
// At the end it returns io.EOF, or, when something follows that is no whole member, io.ErrUnexpectedEOF if it can
// become one by growing, else ErrCorrupt. Any of them may be only the present end: Next can be called again later and
// goes on where it stopped.
//
// A *Damage is returned once for each stretch that is left out: the next call goes on behind it. What cannot be read is
// left out when a sound member follows it, because its writer may replace it until then.
//
// After ErrReplaced the file has to be read from its beginning, by another Reader.
func (r *Reader) Next() ([]byte, error) {
	record, err := r.take(1)
	if err != nil {
		return nil, err
	}
	return record[4:], nil
}

// batchBytes bounds a batch but for its last record.
const batchBytes = 1 << 20

// NextBatch is Next for as many records as are at hand, one at least: see CutRecord.
func (r *Reader) NextBatch() ([]byte, error) { return r.take(batchBytes) }

// CutRecord cuts the first record off a batch.
func CutRecord(batch []byte) (record, rest []byte) {
	end := 4 + binary.LittleEndian.Uint32(batch)
	return batch[4:end], batch[end:]
}

// take returns the next records with their lengths: at least one, and while they are at hand and have fewer than most
// bytes, more.
func (r *Reader) take(most int) ([]byte, error) {
	for {
		pending := r.buf[r.next:]
		end := 0
		for end < most && len(pending)-end >= 4 {
			size := int(binary.LittleEndian.Uint32(pending[end:]))
			if size > MaxRecord {
				if end > 0 {
					break
				}
				return nil, r.misframed(fmt.Errorf("record of %d bytes", size))
			}
			if len(pending)-end < 4+size {
				break
			}
			end += 4 + size
		}
		if end > 0 {
			r.next += end
			return pending[:end], nil
		}
		r.buf = append(r.buf[:0], pending...)
		r.next = 0
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && len(r.buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// misframed leaves a member whose records cannot be told apart.
func (r *Reader) misframed(err error) error {
	switch {
	case r.plain: // nothing tells where a record begins
		return corrupt(r.file, r.Position(), err)
	case r.src != nil:
		r.src = nil
		return r.unsound(corrupt(r.file, r.at, err))
	}
	r.drop()
	return &Damage{r.before, r.at - r.before, corrupt(r.file, r.before, err)}
}

// drop forgets data that was not returned.
func (r *Reader) drop() { r.buf, r.next = r.buf[:0], 0 }

const pieceSize = 64 << 10

// fill appends more data to buf.
func (r *Reader) fill() error {
	if r.src != nil {
		return r.inflatePiece()
	}
	switch {
	case r.plain:
		return r.readPlain()
	case r.raw != nil:
		return r.readRaw()
	}
	n, err := r.file.ReadAt(r.head[:], r.at)
	if err != nil && err != io.EOF {
		return err
	}
	if err := r.checkBefore(); err != nil {
		return err
	}
	first := r.head[:n]
	if r.at == 0 {
		if err := r.findRaw(); err != nil {
			return err
		}
	}
	switch {
	case n == 0:
		return io.EOF
	case r.raw != nil:
		return r.readRaw()
	case r.at == 0 && isPlain(first):
		r.plain = true
		return r.readPlain()
	case r.at == 0 && n < share.SizeV1 && !bytes.HasPrefix(first, []byte(gzipMagic)):
		return io.ErrUnexpectedEOF
	case len(first) >= len(gzipMagic) && !bytes.HasPrefix(first, []byte(gzipMagic)):
		return r.unsound(corrupt(r.file, r.at, errors.New("no gzip member")))
	case n < extraAt:
		return r.unsound(io.ErrUnexpectedEOF)
	}
	if first[flagsAt]&flagExtra != 0 {
		return r.readOwn()
	}
	return r.openMember()
}

// findRaw tells whether the file is of old btcpool's shares.
func (r *Reader) findRaw() error {
	var head [headBytes]byte
	n, err := r.file.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if r.raw = newRaw(head[:n]); r.raw != nil {
		r.scanned = 0 // what was looked for so far were members
	}
	return nil
}

// checkBefore wants what was read last to stand where it stood.
func (r *Reader) checkBefore() error {
	var now beginning
	n, err := r.file.ReadAt(now[:min(r.at-r.before, int64(len(now)))], r.before)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if had := now[:n]; err != nil || !bytes.Equal(had, r.beforeHead[:n]) {
		return fmt.Errorf("%w: %s at %d", ErrReplaced, r.file.Name(), r.before)
	}
	info, err := r.file.Stat()
	if err == nil && info.Size() < r.at {
		return fmt.Errorf("%w: %s at %d", ErrReplaced, r.file.Name(), info.Size())
	}
	return err
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

// readOwn reads the member at r.at, which says its size, whole.
func (r *Reader) readOwn() error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	m, size := r.ahead.take(r.at, info.Size())
	if m == nil {
		m = &r.members
		if size, _, err = m.own(r.file, r.at, info.Size()); err != nil {
			return r.unsound(err)
		}
	}
	if r.passed == 0 && len(r.buf) > 0 {
		rest := len(r.buf)
		r.drop()
		return &Damage{r.at, 0, corrupt(r.file, r.at, fmt.Errorf("%d bytes of a record before it", rest))}
	}
	r.keep(m, size)
	return nil
}

// keep goes behind the member at r.at, whose data m has. A torn member of other software may have been at its place
// before.
func (r *Reader) keep(m *members, size int64) {
	r.drop()
	r.buf, m.data = m.data, r.buf
	r.goTo(r.at + size)
}

func (r *Reader) goTo(at int64) {
	r.before, r.beforeHead = r.at, r.head
	r.at, r.passed, r.scanned = at, 0, 0
}

// openMember begins the member at r.at, of other software.
func (r *Reader) openMember() error {
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
		r.goTo(r.src.position())
		r.src = nil
		return nil
	}
	return r.memberError(err)
}

// memberError leaves a member that cannot be read on; it will be begun again, unless a sound one follows.
func (r *Reader) memberError(err error) error {
	r.src = nil
	return r.unsound(gzipError(r.file, r.at, err))
}

// unsound goes behind what stands at r.at and cannot be read for a reason, if a sound member follows.
func (r *Reader) unsound(reason error) error {
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	next, err := r.members.next(r.file, max(r.at+1, r.scanned), info.Size())
	if err != nil {
		return err
	}
	if next.size == 0 {
		r.scanned = next.at
		return reason
	}
	size := next.at - r.at
	if r.passed == 0 && r.members.inflate(r.file, r.at, size) == nil { // but for its checkpoint it is sound
		r.keep(&r.members, size)
		return nil
	}
	damage := &Damage{r.at, size, reason}
	if !errors.Is(reason, ErrCorrupt) {
		damage.Err = corrupt(r.file, r.at, reason)
	}
	r.drop()
	r.goTo(next.at)
	return damage
}
