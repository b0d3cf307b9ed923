package sealed

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"

	"btcpool/internal/sharefile"
)

// Day reads a day's records, wherever they are: in the day's file, sealed, or sealed and, those that came later, in the
// day's file.
type Day struct {
	sealed *Reader           // nil: none, or read
	live   *sharefile.Reader // nil: none
	given  int64             // records of live that were returned
	skip   int64             // records at the beginning of live that the sealed file had
	least  int64             // how many records live has to have
	info   os.FileInfo
	read   int64 // bytes of the sealed file
	batch  []byte
}

// OpenDay opens a day of a chain.
func OpenDay(dir, chain string, day sharefile.Day) (*Day, error) {
	path := sharefile.Path(dir, chain, day)
	live, errLive := sharefile.Open(path)
	if errLive != nil && !errors.Is(errLive, fs.ErrNotExist) {
		return nil, errLive
	}
	d := &Day{live: live}
	sealed, err := Open(Path(dir, chain, day))
	switch {
	case errors.Is(err, fs.ErrNotExist) && live == nil:
		return nil, errLive
	case errors.Is(err, fs.ErrNotExist):
		d.info, err = live.Stat()
	case err == nil:
		d.sealed = sealed
		if d.info, err = sealed.Stat(); err == nil && live != nil {
			err = d.arrange(path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// arrange finds out what of the day's file the sealed one has, when both are there.
func (d *Day) arrange(path string) error {
	f := d.sealed.footer
	skip, adds, err := relate(path, f)
	if err != nil {
		return err
	}
	if adds && skip < f.Records {
		d.skip = skip
		return nil
	}
	sealed := d.sealed // has no more than the day's file
	d.sealed, d.least = nil, f.Records
	if d.info, err = d.live.Stat(); err != nil {
		return errors.Join(err, sealed.Close())
	}
	return sealed.Close()
}

// Close ends the reading.
func (d *Day) Close() error {
	var err error
	if d.sealed != nil {
		err = d.sealed.Close()
	}
	if d.live != nil {
		err = errors.Join(err, d.live.Close())
	}
	return err
}

// ReadAhead is sharefile.Reader's.
func (d *Day) ReadAhead(n int) {
	if d.live != nil {
		d.live.ReadAhead(n)
	}
}

// Stat describes the file whose records come first.
func (d *Day) Stat() (os.FileInfo, error) { return d.info, nil }

// LogBytes is how large the day's own file is, or -1 if the day is only sealed.
func (d *Day) LogBytes() (int64, error) {
	if d.live == nil {
		return -1, nil
	}
	info, err := d.live.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Position is about how much of that file was returned.
func (d *Day) Position() int64 {
	if d.read == 0 && d.live != nil {
		return d.live.Position()
	}
	return d.read
}

// Streaks hands over what of the day is sealed as Reader.Streaks does, unless the file was sealed before there was a way to
// prove them. NextBatch then returns all other records.
func (d *Day) Streaks(ctx context.Context, use func([]Streak)) error {
	if d.sealed == nil || d.sealed.footer.Counted == 0 {
		return nil
	}
	err := d.sealed.Streaks(ctx, func(streaks []Streak) {
		use(streaks)
		d.advance()
	})
	return errors.Join(err, d.endSealed())
}

func (d *Day) endSealed() error {
	sealed := d.sealed
	d.sealed = nil
	return sealed.Close()
}

func (d *Day) advance() {
	d.read = int64(float64(d.info.Size()) * float64(d.sealed.tally.records) / float64(d.sealed.footer.Records))
}

// NextBatch returns the next records as sharefile.Reader does, with its errors, ErrCorrupt for a damaged sealed file,
// and at the end ErrFewer if a sealed day has more.
func (d *Day) NextBatch() ([]byte, error) {
	if d.sealed != nil {
		batch, err := d.sealedBatch()
		if !errors.Is(err, io.EOF) {
			return batch, err
		}
		if err := d.endSealed(); err != nil {
			return nil, err
		}
	}
	if d.live == nil {
		return nil, io.EOF
	}
	for {
		batch, err := d.live.NextBatch()
		if errors.Is(err, io.EOF) {
			if err := enough(d.given, d.least); err != nil {
				return nil, err
			}
		}
		for ; err == nil && d.skip > 0 && len(batch) > 0; d.skip-- {
			_, batch = sharefile.CutRecord(batch)
		}
		if d.least > 0 {
			d.given += countRecords(batch)
		}
		if err != nil || len(batch) > 0 {
			return batch, err
		}
	}
}

func countRecords(batch []byte) (n int64) {
	for ; len(batch) > 0; n++ {
		_, batch = sharefile.CutRecord(batch)
	}
	return n
}

func (d *Day) sealedBatch() ([]byte, error) {
	d.batch = d.batch[:0]
	for range batchRows {
		record, err := d.sealed.Next()
		if errors.Is(err, io.EOF) && len(d.batch) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		d.batch = append(binary.LittleEndian.AppendUint32(d.batch, uint32(len(record))), record...)
	}
	d.advance()
	return d.batch, nil
}
