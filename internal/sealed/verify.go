package sealed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"btcpool/internal/sharefile"
)

// Verified is what Verify has found.
type Verified struct {
	Footer *Footer
	Source bool // the day's file is there, and has been compared
}

// Verify reads a sealed day and, if it is there, the day's file. It returns an error unless the sealed file is whole and
// holds exactly the records of its source, all of them there is.
func Verify(ctx context.Context, dir, chain string, day sharefile.Day) (v Verified, err error) {
	if v.Footer, err = check(ctx, Path(dir, chain, day)); err != nil {
		return v, err
	}
	if v.Footer.Chain != chain || v.Footer.Day != day {
		return v, fmt.Errorf("%w: it is of %s %d", ErrDiffers, v.Footer.Chain, v.Footer.Day)
	}
	t := newTally()
	c := newCodec()
	src, err := readSource(ctx, sharefile.Path(dir, chain, day), func(record []byte) error {
		if c.share.ParseBody(record) != nil {
			t.add(record, nil)
		} else {
			t.add(record, &c.share)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return v, err
	}
	v.Source = true
	if *v.Footer.last() != src.Source {
		return v, fmt.Errorf("%w: sealed was %s", ErrDiffers, describe(*v.Footer.last(), src.Source))
	}
	if len(v.Footer.Sources) == 1 {
		if err := v.Footer.differs(t.total()); err != nil {
			return v, fmt.Errorf("%w: source has %w", ErrDiffers, err)
		}
	}
	return v, nil
}

func describe(had, has Source) string {
	return fmt.Sprintf("a file of %d bytes, %d records and SHA-256 %s; there is one of %d bytes, %d records and %s",
		had.Bytes, had.Records, had.SHA256, has.Bytes, has.Records, has.SHA256)
}

// check reads a sealed file and wants what its footer says, in order.
func check(ctx context.Context, path string) (_ *Footer, err error) {
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var last row
	for n := 0; ; n++ {
		if n%batchRows == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		head, err := r.row()
		if errors.Is(err, io.EOF) {
			return r.footer, nil
		}
		if err != nil {
			return nil, err
		}
		if n > 0 && last.compare(head) > 0 {
			return nil, r.file.corrupt(fmt.Errorf("row %d is not in order", n))
		}
		last.UserID, last.WorkerID = head.UserID, head.WorkerID
		if _, _, err := r.record(head); err != nil {
			return nil, err
		}
	}
}

// Lacks tells whether a sealed day has shares that the day's file, which is there, never had: its own came later, after
// the file that was sealed had been removed.
func Lacks(dir, chain string, day sharefile.Day) (bool, error) {
	r, err := Open(Path(dir, chain, day))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := r.Close(); err != nil || len(r.footer.Sources) > 1 {
		return err == nil, err
	}
	return comesAfter(sharefile.Path(dir, chain, day), r.footer.Offsets)
}

// Current tells whether a day is sealed as its file is now. It believes a file that was not written to since, and has
// the size it had.
func Current(dir, chain string, day sharefile.Day) (bool, error) {
	r, err := Open(Path(dir, chain, day))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	made, err := r.Stat()
	if err != nil {
		return false, err
	}
	path, last := sharefile.Path(dir, chain, day), r.footer.last()
	is, err := os.Stat(path)
	if err != nil || is.Size() != last.Bytes {
		return false, err
	}
	if is.ModTime().Before(made.ModTime()) {
		return true, nil
	}
	return begins(path, last)
}
