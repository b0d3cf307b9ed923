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
	"btcpool/internal/sharefile"
)

// print writes the valid shares of Config.Day to w, one a line. Those behind damage come, too; the error tells of it.
func (s *Service) print(ctx context.Context, w io.Writer) error {
	out, user := bufio.NewWriter(w), *s.cfg.User
	var line []byte
	read, err := s.readWhole(ctx, s.dayPath(), func(sh *share.Share) {
		if user == 0 || sh.UserID == user {
			line = appendLine(line[:0], sh)
			_, _ = out.Write(line) // Flush tells
		}
	})
	for _, d := range read.damages {
		err = errors.Join(err, d)
	}
	switch {
	case errors.Is(read.end, sharefile.ErrCorrupt):
		err = errors.Join(err, read.end)
	case read.end != nil:
		s.log.Warn().Err(read.end).Msg("the file may go on")
	}
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
