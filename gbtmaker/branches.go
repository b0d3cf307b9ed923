package gbtmaker

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/job"
	"btcpool/internal/retry"
)

// Nodes may follow different branches, for a moment or because their rules differ. As for nodes themselves, the branch
// with more work counts, whatever its height. Heights stand in for nodes that do not tell the work of their chain.

const (
	// coldStart is how long the first choice waits for nodes that have not been
	// heard yet: the first to answer may be on the wrong branch.
	coldStart = lookTimeout + time.Second
	// maxReckoned is how many blocks a node may have got since it told its work.
	maxReckoned = 10
	// compareInterval is how often nodes are compared with the one in use.
	compareInterval = 5 * time.Second
)

// chain is what a node told of its chain when it was last asked.
type chain struct {
	tip    string // hash
	height int32
	work   bitcoin.Work // zero: it does not tell
}

// chainOf reads what a node says.
func chainOf(info noderpc.ChainInfo) chain {
	work, _ := bitcoin.ParseChainWork(info.ChainWork) // zero when it does not tell
	return chain{info.BestBlockHash, info.Blocks, work}
}

// workBelow returns the work in the chain of n below t, zero when n does not tell it. Blocks that came since it told
// count as much as t. A node whose chain is another since then is asked, and so is one whose blocks may be of any
// difficulty.
func (s *Service) workBelow(ctx context.Context, n *node, t *job.Template) (bitcoin.Work, *fault) {
	asked := func() (c chain, ahead int32) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return n.asked, t.Height - 1 - n.asked.height
	}
	c, ahead := asked()
	if c.work.IsZero() || c.tip == t.PrevHash.String() {
		return c.work, nil
	}
	if ahead < 1 || ahead > maxReckoned || s.network.EasyBlocks() {
		if _, f := s.ask(ctx, n); f != nil {
			return bitcoin.Work{}, f
		}
		c, ahead = asked()
	}
	target, err := bitcoin.TargetFromBits(t.Bits)
	if err != nil {
		return bitcoin.Work{}, &fault{reasonBits, err}
	}
	for range min(ahead, maxReckoned) {
		c.work = c.work.Add(target.Work())
	}
	return c.work, nil
}

// outweighs reports whether chains with these works and heights are such that the first is to be preferred.
func outweighs(work bitcoin.Work, height int32, other bitcoin.Work, otherHeight int32) bool {
	if work.IsZero() || other.IsZero() {
		return height > otherHeight
	}
	return work.Cmp(other) > 0
}

// outweighs reports whether t is on a better branch than u.
func (t *template) outweighs(u *template) bool {
	return t.PrevHash != u.PrevHash && outweighs(t.work, t.Height, u.work, u.Height)
}

// binding returns what miners work on if they must not be taken from it to a worse branch by n: unless n knows that its
// block is left. Where works are unknown it binds as long as it is fresh. s.mu is held.
func (s *Service) binding(n *node, now time.Time) *template {
	c := s.chosen
	if c == nil || c.PrevHash == n.left {
		return nil
	}
	if s.fresh(now) != nil || !s.network.OnDemand && !c.work.IsZero() && !n.work.IsZero() {
		return c
	}
	return nil
}

// mayFollow reports whether miners may go from what they work on to t, which is of n. s.mu is held.
func (s *Service) mayFollow(n *node, t *template, now time.Time) bool {
	if s.chosen == nil {
		return s.heardAll(now)
	}
	c := s.binding(n, now)
	return c == nil || !c.outweighs(t)
}

// heardAll reports whether every node has been heard once, or has had its time. s.mu is held.
func (s *Service) heardAll(now time.Time) bool {
	for _, n := range s.nodes {
		if !n.heard && now.Sub(s.began) < coldStart {
			return false
		}
	}
	return true
}

// onAnotherBranch reports whether n does not have last's block on its chain, but one with more work.
func (s *Service) onAnotherBranch(ctx context.Context, n *node, work bitcoin.Work, last *template) bool {
	if work.IsZero() || last.work.IsZero() || work.Cmp(last.work) <= 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	has, err := n.has(ctx, last.PrevHash.String())
	return err == nil && !has
}

// has reports whether n has a block on its chain.
func (n *node) has(ctx context.Context, block string) (bool, error) {
	info, err := n.client.Block(ctx, block)
	if errors.Is(err, noderpc.ErrUnknownBlock) {
		return false, nil
	}
	return err == nil && info.Confirmations > 0, err
}

// compareBranches says of every node, until ctx ends, since which block it disagrees with the one that templates come
// from.
func (s *Service) compareBranches(ctx context.Context) error {
	for retry.Sleep(ctx, compareInterval) {
		s.mu.Lock()
		chosen := s.chosen
		s.mu.Unlock()
		if chosen == nil {
			continue
		}
		for _, n := range s.nodes {
			since, err := s.disagreement(ctx, n, chosen.node)
			if err != nil { // one is away, which is told elsewhere
				continue
			}
			s.metrics.disagrees.WithLabelValues(n.label).Set(float64(since))
			if since != 0 && since != n.disagrees {
				n.log.Warn().Int32("since_height", since).Str("used_node", chosen.node.label).
					Msg("nodes disagree: this one is on another branch than the one in use")
			}
			n.disagrees = since
		}
	}
	return nil
}

// disagreement returns the height of the first block that a and b do not have in common, 0 when the chain of one goes
// on that of the other.
func (s *Service) disagreement(ctx context.Context, a, b *node) (int32, error) {
	if a == b {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, compareInterval)
	defer cancel()
	s.mu.Lock()
	ofA, ofB := a.asked, b.asked
	s.mu.Unlock()
	if ofA.tip == ofB.tip || ofA.tip == "" || ofB.tip == "" {
		return 0, nil
	}
	for _, in := range []struct {
		node *node
		tip  string
	}{{b, ofA.tip}, {a, ofB.tip}} {
		if has, err := in.node.has(ctx, in.tip); err != nil || has {
			return 0, err
		}
	}
	var failed error
	height := sort.Search(int(min(ofA.height, ofB.height)), func(height int) bool {
		var hashes [2]chainhash.Hash
		for i, n := range []*node{a, b} {
			failed = errors.Join(failed, n.client.Call(ctx, "getblockhash", &hashes[i], height))
		}
		return failed != nil || hashes[0] != hashes[1]
	})
	if failed != nil {
		return 0, fmt.Errorf("common block: %w", failed)
	}
	return int32(height), nil
}
