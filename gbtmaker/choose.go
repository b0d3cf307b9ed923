package gbtmaker

import (
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/job"
)

// choose gives the best template to the writer, unless it is in the topic already or equals the one that is, and
// repeating that is not due yet. s.mu is held.
func (s *Service) choose(now time.Time) {
	best := s.best(now)
	if best == nil || best == s.chosen {
		return
	}
	if last := s.chosen; last != nil && sameWork(best.Template, last.Template) && best.received.Sub(last.received) < s.repeat {
		return
	}
	if c := s.fresh(now); c != nil && best.Height < c.Height {
		s.left = reorganisation{c.PrevHash, c.Height}
	}
	if best.Height < s.left.height && best.PrevHash != s.left.block {
		lower := *best // which may be on its way to the topic already
		lower.leaves = s.left.block
		best = &lower
	} else {
		s.left = reorganisation{}
	}
	s.chosen = best
	s.queue.Ring()
}

// reorganisation is a block that miners are to be sent back from.
type reorganisation struct {
	block  chainhash.Hash
	height int32 // that of its templates
}

// best returns the template on the branch with most work, among equal ones one with transactions, or nil when none can
// be used. s.mu is held.
func (s *Service) best(now time.Time) *template {
	var best *template
	for _, n := range s.nodes {
		t := n.latest
		switch {
		case n.fault != nil || t == nil || now.Sub(t.received) > staleAge:
		case !s.mayFollow(n, t, now):
		case best == nil || t.outweighs(best):
			best = t
		case best.outweighs(t) || t.Empty() && !best.Empty():
		case best.Empty() && !t.Empty():
			best = t
		case s.policy == PolicyEqual && s.chosen != nil && s.chosen.node == n:
			best = t
		}
	}
	return best
}

// fresh returns what is in the topic while jobs are made of it, or nil. s.mu is held.
func (s *Service) fresh(now time.Time) *template {
	if s.chosen == nil || now.Sub(s.chosen.received) > staleAge {
		return nil
	}
	return s.chosen
}

// sameWork reports whether jobs made of a and b would differ by their time only.
func sameWork(a, b *job.Template) bool {
	return a.PrevHash == b.PrevHash && a.Height == b.Height && a.Bits == b.Bits && a.Version == b.Version &&
		a.CoinbaseValue == b.CoinbaseValue && slices.Equal(a.MerkleBranch, b.MerkleBranch)
}
