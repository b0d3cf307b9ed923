package slparser

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// print writes the valid shares of Config.Day to w, one a line.
func (s *Service) print(ctx context.Context, w io.Writer) error {
	out, user := bufio.NewWriter(w), *s.cfg.User
	var line []byte
	err := s.readWhole(ctx, func(sh *share.Share) {
		if user == 0 || sh.UserID == user {
			line = appendLine(line[:0], sh)
			_, _ = out.Write(line) // Flush tells
		}
	})
	return errors.Join(err, out.Flush())
}

// appendLine describes a share, in the order of btcpool's output.
func appendLine(dst []byte, s *share.Share) []byte {
	network := 0.0
	if target, err := bitcoin.TargetFromBits(s.Bits); err == nil {
		network = target.Difficulty()
	}
	dst = fmt.Appendf(dst, "job=%d ip=%s user=%d worker=%d time=%s height=%d bits=%08x/%.3f difficulty=",
		s.JobID, s.IP, s.UserID, s.WorkerID, time.Unix(s.Time, 0).UTC().Format(time.RFC3339), s.Height, s.Bits, network)
	dst = s.Difficulty.AppendTo(dst)
	return fmt.Appendf(dst, " nonce=%08x session=%08x version_bits=%08x status=%d/%q\n",
		s.Nonce, s.SessionID, s.VersionBits, s.Status, s.Status.Text())
}
