package slparser

import (
	"context"
	"errors"
	"fmt"
	"io"

	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// tally counts records.
type tally struct{ shares, malformed, invalid, others int64 }

// read hands the valid shares of a batch to use, which tells whether they count.
func (t *tally) read(batch []byte, use func(*share.Share) bool) {
	var s share.Share
	var body []byte
	for len(batch) > 0 {
		body, batch = sharefile.CutRecord(batch)
		switch {
		case s.ParseBody(body) != nil:
			t.malformed++
		case s.Validate() != nil:
			t.invalid++
		case !use(&s):
			t.others++
		default:
			t.shares++
		}
	}
}

// readStreaks is read for streaks of records.
func (t *tally) readStreaks(streaks []sealed.Streak, use func(s *share.Share, n int64) bool) {
	for i := range streaks {
		r := &streaks[i]
		switch {
		case r.Malformed:
			t.malformed += r.Records
		case r.Share.Validate() != nil:
			t.invalid += r.Records
		case !use(&r.Share, r.Records):
			t.others += r.Records
		default:
			t.shares += r.Records
		}
	}
}

func (m *metrics) add(t tally) {
	m.shares.Add(float64(t.shares))
	m.dropped.WithLabelValues("malformed").Add(float64(t.malformed))
	m.dropped.WithLabelValues("invalid").Add(float64(t.invalid))
	m.dropped.WithLabelValues("other_user").Add(float64(t.others))
}

// reading is what came of reading a file once to its end.
type reading struct {
	size    int64 // of the file whose records come first
	log     int64 // of the day's own file; incomplete: it is only sealed
	damages []*sharefile.Damage
	end     error // nil: it ends with a whole member
}

// flawed says why the shares may not be all of the day.
func (r reading) flawed() error {
	var faults []error
	for _, d := range r.damages {
		faults = append(faults, d)
	}
	return errors.Join(append(faults, r.end)...)
}

// into is where the records of a day go.
type into struct {
	batch   func(records []byte)
	streaks func([]sealed.Streak) // nil: those that are sealed go to batch, too
}

// readWhole hands over the records of a day, which may be sealed, those behind damage too, and tells how far it has got.
func (s *Service) readWhole(ctx context.Context, day sharefile.Day, ahead int, to into, got func(bytes, of int64)) (read reading, err error) {
	r, err := sealed.OpenDay(s.cfg.DataDir, s.cfg.Chain, day)
	if err != nil {
		return read, err
	}
	defer r.Close()
	r.ReadAhead(ahead)
	info, err := r.Stat()
	if err != nil {
		return read, err
	}
	read.size = info.Size()
	if read.log, err = r.LogBytes(); err != nil {
		return read, err
	}
	if to.streaks != nil {
		if err := r.Streaks(ctx, func(streaks []sealed.Streak) {
			to.streaks(streaks)
			got(r.Position(), read.size)
		}); err != nil {
			return read, err
		}
	}
	for ctx.Err() == nil {
		batch, err := r.NextBatch()
		damage := new(sharefile.Damage)
		switch {
		case err == nil:
			to.batch(batch)
			got(r.Position(), read.size)
		case errors.As(err, &damage):
			read.damages = append(read.damages, damage)
			s.logDamage(damage)
		case errors.Is(err, io.EOF):
			return read, nil
		case errors.Is(err, sealed.ErrCorrupt): // which may wrap an early end
			return read, err
		case atEnd(err):
			read.end = fmt.Errorf("it ends in the middle of a flush, %d of its %d bytes are whole", r.Position(), read.size)
			return read, nil
		case errors.Is(err, sharefile.ErrCorrupt), errors.Is(err, sealed.ErrFewer):
			read.end = err
			return read, nil
		default:
			return read, err
		}
	}
	return read, ctx.Err()
}

// atEnd tells whether an error only says that there is no more at present.
func atEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
