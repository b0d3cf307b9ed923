package gbtmaker

import (
	"slices"
	"time"

	"btcpool/internal/job"
)

// choose gives the best template to the writer, unless it is in the topic already
// or equals the one that is, and repeating that is not due yet. s.mu is held.
func (s *Service) choose(now time.Time) {
	best := s.best(now)
	if best == nil || best == s.chosen {
		return
	}
	if last := s.chosen; last != nil && sameWork(best.Template, last.Template) && best.received.Sub(last.received) < s.repeat {
		return
	}
	s.chosen = best
	s.queue.Ring()
}

// best returns the highest template, among equally high ones one with
// transactions, or nil when none can be used. s.mu is held.
func (s *Service) best(now time.Time) *template {
	var best *template
	for _, n := range s.nodes {
		t := n.latest
		switch {
		case n.fault != nil || t == nil || now.Sub(t.received) > staleAge:
		case s.top(n, now) > t.Height-1:
		case best == nil || t.Height > best.Height:
			best = t
		case t.Height < best.Height || t.Empty() && !best.Empty():
		case best.Empty() && !t.Empty():
			best = t
		case s.policy == PolicyEqual && s.chosen != nil && s.chosen.node == n:
			best = t
		}
	}
	return best
}

// fresh returns what is in the topic while jobs are made of it, or nil. s.mu is
// held.
func (s *Service) fresh(now time.Time) *template {
	if s.chosen == nil || now.Sub(s.chosen.received) > staleAge {
		return nil
	}
	return s.chosen
}

// top returns the height of the chain that miners work on, as far as n must
// follow it: a node that was reorganised away from it is right to be lower.
// s.mu is held.
func (s *Service) top(n *node, now time.Time) int32 {
	if c := s.fresh(now); c != nil && c.PrevHash != n.left.block {
		return c.Height - 1
	}
	return 0
}

// sameWork reports whether jobs made of a and b would differ by their time only.
func sameWork(a, b *job.Template) bool {
	return a.PrevHash == b.PrevHash && a.Height == b.Height && a.Bits == b.Bits && a.Version == b.Version &&
		a.CoinbaseValue == b.CoinbaseValue && slices.Equal(a.MerkleBranch, b.MerkleBranch)
}
