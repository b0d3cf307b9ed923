package gbtmaker

import (
	"fmt"
	"math"
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
	if last != nil && t.Bits != last.Bits && s.samePeriod(t.Height, last.Height) {
		return &fault{reasonBits, fmt.Errorf("template of height %d has bits %08x, that of height %d had %08x, and difficulty does not change between them", t.Height, t.Bits, last.Height, last.Bits)}
	}
	if last != nil && !s.reachable(target, t.Height, last) {
		return &fault{reasonBits, fmt.Errorf("template of height %d has bits %08x, which no chain can have come to from %08x at height %d", t.Height, t.Bits, last.Bits, last.Height)}
	}
	return nil
}

// reachable reports whether a chain with the difficulty of last can have one with target at height, or the other way
// round: from one period to the next it changes by a factor of 4 at most.
func (s *Service) reachable(target bitcoin.Target, height int32, last *template) bool {
	was, err := bitcoin.TargetFromBits(last.Bits)
	if err != nil || s.network.Params.ReduceMinDifficulty {
		return true
	}
	periods := height/bitcoin.RetargetInterval - last.Height/bitcoin.RetargetInterval
	factor := math.Pow(4, math.Abs(float64(periods))) * 1.01 // compact targets are rounded
	ratio := was.Difficulty() / target.Difficulty()
	return ratio <= factor && ratio >= 1/factor
}

// samePeriod reports whether blocks of heights a and b have the same difficulty by consensus.
func (s *Service) samePeriod(a, b int32) bool {
	if s.network.Params.ReduceMinDifficulty { // a late block of a test network may be easy
		return false
	}
	return a/bitcoin.RetargetInterval == b/bitcoin.RetargetInterval
}
