package sealed

import (
	"errors"
	"fmt"
	"io"
	"os"

	"btcpool/internal/share"
)

// Reader reads the records of a sealed day, by worker.
type Reader struct {
	file   *file
	footer *Footer
	codec  *codec
	tally  *tally // of what was returned
	batch  []row
	rows   []row // of batch, those that were not returned
}

// Open opens a sealed file.
func Open(path string) (*Reader, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{file: f, codec: newCodec(), tally: newTally(), batch: make([]row, batchRows)}
	text, _ := f.parquet.Lookup(footerKey)
	r.footer, err = parseFooter(text)
	if err == nil && r.footer.Records != f.parquet.NumRows() {
		err = fmt.Errorf("%d rows, not %d", f.parquet.NumRows(), r.footer.Records)
	}
	if err != nil {
		err = f.corrupt(err)
		_ = f.close() // the first error tells
		return nil, err
	}
	return r, nil
}

// Close ends the reading.
func (r *Reader) Close() error { return r.file.close() }

// Stat describes the file that is read, whatever its name stands for by now.
func (r *Reader) Stat() (os.FileInfo, error) { return r.file.file.Stat() }

// Next returns the next record, valid until the next call, or io.EOF at the end. A file that does not have
// what its footer says gives ErrCorrupt, at the end if nothing showed before.
func (r *Reader) Next() ([]byte, error) {
	head, err := r.row()
	if err != nil {
		return nil, err
	}
	record, _, err := r.record(head)
	return record, err
}

// record returns a row's record and the share that it is, nil if it is none, and counts it. Both are valid until the next
// call.
func (r *Reader) record(of *row) ([]byte, *share.Share, error) {
	record, isShare, err := r.codec.record(of)
	if err != nil {
		return nil, nil, r.file.corrupt(err)
	}
	var s *share.Share
	if isShare {
		s = &r.codec.share
	}
	r.tally.add(record, s)
	return record, s, nil
}

// row returns the next row, valid until the next call. Each is to be given to record.
func (r *Reader) row() (*row, error) {
	if len(r.rows) == 0 {
		n, err := r.file.read(r.batch)
		if errors.Is(err, io.EOF) {
			if err := r.footer.differs(r.tally.total()); err != nil {
				return nil, r.file.corrupt(err)
			}
		}
		if err != nil {
			return nil, err
		}
		r.rows = r.batch[:n]
	}
	head := &r.rows[0]
	r.rows = r.rows[1:]
	return head, nil
}
