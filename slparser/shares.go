package slparser

import (
	"context"
	"errors"
	"fmt"
	"io"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

const batchSize = 10_000 // shares read in one go

// readShares reads a batch of shares of r and hands the valid ones to use. It returns how many it read, and at the
// file's present end io.EOF or io.ErrUnexpectedEOF.
func readShares(r *sharefile.Reader, m *metrics, use func(*share.Share)) (int, error) {
	var s share.Share
	for n := range batchSize {
		body, err := r.Next()
		if err != nil {
			return n, err
		}
		if err := s.ParseBody(body); err != nil {
			m.dropped.WithLabelValues("malformed").Inc()
			continue
		}
		if err := s.Validate(); err != nil {
			m.dropped.WithLabelValues("invalid").Inc()
			continue
		}
		m.shares.Inc()
		use(&s)
	}
	return batchSize, nil
}

// dayPath is the file of Config.Day.
func (s *Service) dayPath() string { return sharefile.Path(s.cfg.DataDir, s.cfg.Chain, s.cfg.Day) }

// reading is what came of reading a file once to its end.
type reading struct {
	size    int64
	shares  int64 // valid ones
	damages []*sharefile.Damage
	end     error // nil: it ends with a whole member
}

// flawed says why the shares may not be all of the day.
func (r reading) flawed() error {
	var faults []error
	for _, d := range r.damages {
		faults = append(faults, d)
	}
	if r.end != nil {
		faults = append(faults, r.end)
	}
	if r.shares == 0 {
		faults = append(faults, errors.New("it holds no share"))
	}
	return errors.Join(faults...)
}

// readWhole hands the valid shares of a file to use, those behind damage too.
func (s *Service) readWhole(ctx context.Context, path string, use func(*share.Share)) (read reading, err error) {
	r, err := sharefile.Open(path)
	if err != nil {
		return read, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return read, err
	}
	read.size = info.Size()
	for ctx.Err() == nil {
		_, err := readShares(r, s.metrics, func(sh *share.Share) {
			read.shares++
			use(sh)
		})
		damage := new(sharefile.Damage)
		switch {
		case err == nil:
		case errors.As(err, &damage):
			read.damages = append(read.damages, damage)
			s.logDamage(damage)
		case errors.Is(err, io.EOF):
			return read, nil
		case atEnd(err):
			read.end = fmt.Errorf("it ends in the middle of a flush, %d of its %d bytes are whole", r.Position(), read.size)
			return read, nil
		case errors.Is(err, sharefile.ErrCorrupt):
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
