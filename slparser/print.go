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

// printShares writes the valid shares of a file to w, one a line, those of one user or (0) of all.
func printShares(ctx context.Context, w io.Writer, r *sharefile.Reader, user int32, m *metrics) error {
	out := bufio.NewWriter(w)
	var line []byte
	for {
		_, err := readShares(r, batchSize, m, func(s *share.Share) {
			if user == 0 || s.UserID == user {
				line = appendLine(line[:0], s)
				_, _ = out.Write(line) // Flush tells
			}
		})
		if atEnd(err) {
			return out.Flush()
		}
		if err = errors.Join(err, out.Flush(), ctx.Err()); err != nil {
			return err
		}
	}
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
