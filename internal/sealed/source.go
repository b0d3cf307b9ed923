package sealed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"btcpool/internal/sharefile"
)

// source is a day's file that has been read.
type source struct {
	Source
	offsets []sharefile.Range // none: not known of all its records
}

// readSource hands over the records of a day's file, as far as it goes now. It wants the file to be whole and not to
// change meanwhile.
func readSource(ctx context.Context, path string, use func(record []byte) error) (src source, err error) {
	f, err := os.Open(path)
	if err != nil {
		return src, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	before, err := f.Stat()
	if err != nil {
		return src, err
	}
	survey, err := sharefile.Look(f, before.Size())
	switch {
	case errors.Is(err, sharefile.ErrCorrupt), errors.Is(err, io.ErrUnexpectedEOF):
		return src, fmt.Errorf("%w: %w", ErrUnsound, err)
	case err != nil:
		return src, err
	case survey.Gaps > 0:
		return src, fmt.Errorf("%w: at %d places shares are gone that it had", ErrUnsound, survey.Gaps)
	}
	if !survey.Mixed {
		src.offsets = survey.Ranges
	}
	if err := readRecords(ctx, path, func(record []byte) error {
		src.Records++
		src.Digest += digestOf(record)
		return use(record)
	}); err != nil {
		return src, err
	}
	src.Bytes = before.Size()
	if src.SHA256, err = hashOf(f, src.Bytes); err != nil {
		return src, err
	}
	after, err := os.Stat(path)
	if err == nil && (!os.SameFile(before, after) || after.Size() != before.Size()) {
		err = fmt.Errorf("%w: it changed while it was read", ErrUnsound)
	}
	return src, err
}

func readRecords(ctx context.Context, path string, use func(record []byte) error) (err error) {
	r, err := sharefile.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for n := 0; ; n++ {
		if n%batchRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		record, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, sharefile.ErrCorrupt), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%w: %w", ErrUnsound, err)
		case err != nil:
			return err
		}
		if err := use(record); err != nil {
			return err
		}
	}
}

// hashOf returns the SHA-256 of the first size bytes of a file.
func hashOf(f *os.File, size int64) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(f, 0, size))
	return hex.EncodeToString(h.Sum(nil)), err
}

// begins tells whether a file begins with a source.
func begins(path string, s *Source) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < s.Bytes {
		return false, err
	}
	hash, err := hashOf(f, s.Bytes)
	return hash == s.SHA256, err
}

// relate tells what of a day's file the sealed day has: its records but the first skip are to be added to the sealed
// ones, or else it replaces them, and has to have as many. ErrFewer says that it can do neither.
func relate(path string, f *Footer) (skip int64, adds bool, err error) {
	grown, err := begins(path, f.last())
	if err != nil || grown {
		return f.last().Records, grown, err
	}
	later, err := comesAfter(path, f.Offsets)
	if err != nil || later {
		return 0, later, err
	}
	if len(f.Sources) > 1 {
		return 0, false, fmt.Errorf("%w: that was made of %d files, and this one is not the last of them; move the sealed file away if this one has the whole day",
			ErrFewer, len(f.Sources))
	}
	return 0, false, nil
}

// enough wants a file that replaces the sealed records to have as many.
func enough(records, sealed int64) error {
	if records < sealed {
		return fmt.Errorf("%w: %d, not %d", ErrFewer, records, sealed)
	}
	return nil
}

// comesAfter tells whether a file holds only shares from behind some offsets.
func comesAfter(path string, offsets []sharefile.Range) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	survey, err := sharefile.Look(f, info.Size())
	if errors.Is(err, sharefile.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", ErrUnsound, err)
	}
	if err != nil || survey.Mixed {
		return false, err
	}
	return follows(survey.Ranges, offsets), nil
}
