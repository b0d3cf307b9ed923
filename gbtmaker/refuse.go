package gbtmaker

import (
	"fmt"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// refuse returns why no block can come of t, or nil. Last is what miners work on, nil when there is nothing.
func (s *Service) refuse(t *job.Template, last *template, now time.Time) *fault {
	if ahead := time.Unix(int64(max(t.CurTime, t.MinTime)), 0).Sub(now); ahead > bitcoin.MaxFutureBlockTime {
		return &fault{reasonTime, fmt.Errorf("template is %s ahead of our clock: is a clock wrong?", ahead.Round(time.Second))}
	}
	target, err := bitcoin.TargetFromBits(t.Bits)
	if err != nil {
		return &fault{reasonBits, err}
	}
	if hash := chainhash.Hash(target); !s.maxTarget.Met(&hash) {
		return &fault{reasonBits, fmt.Errorf("template has bits %08x, easier than %s allows", t.Bits, s.network.Name)}
	}
	if last == nil {
		return nil
	}
	if t.Bits != last.Bits && s.network.SamePeriod(t.Height, last.Height) {
		return &fault{reasonBits, fmt.Errorf("template of height %d has bits %08x, that of height %d had %08x, and difficulty does not change between them", t.Height, t.Bits, last.Height, last.Bits)}
	}
	was, err := bitcoin.TargetFromBits(last.Bits)
	if err == nil && !s.network.Reachable(target, t.Height, was, last.Height) {
		return &fault{reasonBits, fmt.Errorf("template of height %d has bits %08x, which no chain can have come to from %08x at height %d", t.Height, t.Bits, last.Bits, last.Height)}
	}
	return nil
}
