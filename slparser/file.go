package slparser

import (
	"errors"
	"io"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// readShares hands up to limit valid shares of r to use. It returns how many it read, and at the file's present end
// io.EOF or io.ErrUnexpectedEOF.
func readShares(r *sharefile.Reader, limit int, m *metrics, use func(*share.Share)) (int, error) {
	var s share.Share
	for n := range limit {
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
	return limit, nil
}

// atEnd tells whether an error only says that there is no more at present.
func atEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
