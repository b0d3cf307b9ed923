package statshttpd

import "time"

// effort tells how far the pool is in the round since the last block: the accepted hashes, and their share of what a
// block takes on average. ok is false while that cannot be told.
func (s *Service) effort(now time.Time) (hashes, effort float64, ok bool) {
	l, n := s.ledger.Load(), s.network.Load()
	if l == nil || l.Work == nil || n == nil || n.Difficulty <= 0 {
		return 0, 0, false
	}
	var from time.Time // ever
	if l.Last != nil {
		from = l.Last.CreatedAt
	}
	hashes = s.between(l.Work, from, now)
	return hashes, hashes / (n.Difficulty * hashesPerDifficulty), true
}

// networkRate is the hashrate that finds a block of that difficulty each 10 minutes.
func networkRate(difficulty float64) float64 { return difficulty * hashesPerDifficulty / 600 }

// hashesPerDifficulty is the expected number of hashes for one share of difficulty 1.
const hashesPerDifficulty = 1 << 32
