package slparser

import (
	"context"
	"errors"
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

// readWhole hands the valid shares of the file of Config.Day to use.
func (s *Service) readWhole(ctx context.Context, use func(*share.Share)) error {
	r, err := sharefile.Open(sharefile.Path(s.cfg.DataDir, s.cfg.Chain, s.cfg.Day))
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		_, err := readShares(r, s.metrics, use)
		if atEnd(err) {
			if !errors.Is(err, io.EOF) {
				s.log.Warn().Int64("offset", r.Position()).Msg("the file ends in the middle of a flush")
			}
			return nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// atEnd tells whether an error only says that there is no more at present.
func atEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
