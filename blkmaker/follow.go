package blkmaker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/store"
)

const (
	// buriedBy is how many blocks higher than a block that is not on it the chain must be until the block counts as
	// orphaned.
	buriedBy = 6
	// openBlocks and youngBlocks bound what is looked at in one go.
	openBlocks  = 1000
	youngBlocks = 200
	// followAgain is when what went wrong is tried again.
	followAgain = 15 * time.Second
)

// followBlocks brings found_blocks up to date, at first and whenever a tip moved or a block was written down.
func (s *Service) followBlocks(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if err := s.followOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("found blocks not followed: will try again")
			again = time.After(followAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.follow:
		case <-again:
		}
	}
}

// followOnce asks the best node for the open blocks, and for the young ones, whose state a reorganisation may change.
func (s *Service) followOnce(ctx context.Context) error {
	best, tip := s.best()
	if best == nil {
		return nil // the next answer of a node wakes us
	}
	blocks, err := s.store.OpenBlocks(ctx, openBlocks)
	if err != nil {
		return err
	}
	young, err := s.store.Blocks(ctx, youngBlocks, 0)
	if err != nil {
		return err
	}
	for _, b := range young {
		if b.State != store.Submitted && b.State != store.Accepted && tip-b.Height <= int32(s.cfg.Confirmations) {
			blocks = append(blocks, b)
		}
	}
	slices.SortStableFunc(blocks, func(a, b store.Block) int { return cmp.Compare(a.Height, b.Height) }) // parents first
	for _, b := range blocks {
		where, err := best.locate(ctx, b.Hash)
		if err != nil {
			return err
		}
		if where == nil && b.State == store.Accepted {
			s.resubmit(ctx, b, tip)
		}
		state, confirmations := follow(b.State, b.Confirmations, where, tip < b.Height+buriedBy, int64(s.cfg.Confirmations))
		if state == b.State && confirmations == b.Confirmations {
			continue
		}
		if err := s.store.SetBlockState(ctx, b.Hash, state, confirmations); err != nil {
			return err
		}
		if state != b.State {
			s.log.Info().Str("hash", b.Hash).Int32("height", b.Height).Str("state", string(state)).Str("was", string(b.State)).
				Int64("confirmations", confirmations).Msg("block changed its state")
		}
	}
	counts, err := s.store.BlockCount(ctx)
	if err != nil {
		return err
	}
	s.metrics.setBlocks(counts)
	return nil
}

// resubmit gives a young block that a node had on its chain to the nodes again when none knows it any more: the one
// that had it was killed before the block was on its disk, or at a peer. Tip is the height of the best node.
func (s *Service) resubmit(ctx context.Context, b store.Block, tip int32) {
	if tip >= b.Height+buriedBy || b.Height > tip+buriedBy {
		return // too late, or the node is still far from having its parent
	}
	log := s.log.With().Str("hash", b.Hash).Int32("height", b.Height).Logger()
	for _, n := range s.nodes {
		if where, err := n.locate(ctx, b.Hash); err == nil && where != nil {
			return
		}
	}
	blockHex, err := s.archive.read(b.Height, b.Hash)
	if err != nil {
		log.Error().Err(err).Msg("no node knows a block of ours any more, and its file is not there")
		return
	}
	s.metrics.resubmitted.Inc()
	for _, n := range s.nodes {
		if n.state.Load().err != nil {
			continue
		}
		answer, err := n.client.SubmitBlock(ctx, blockHex)
		log.Warn().Str("node", n.label).Stringer("verdict", answer.Outcome).Str("reason", answer.Reason).AnErr("error", err).
			Msg("block submitted again: no node knew it any more")
	}
}

// follow returns the next state and confirmations of a block with these that a node has there or, where is nil, does
// not know. open says that it may still get onto the chain; need is how many confirmations make a block confirmed.
func follow(state store.BlockState, confirmations int64, where *noderpc.BlockInfo, open bool, need int64) (store.BlockState, int64) {
	switch {
	case where != nil && where.Confirmations >= need:
		if state == store.Confirmed {
			return state, confirmations // counting ends here
		}
		return store.Confirmed, where.Confirmations
	case where != nil && where.Confirmations > 0:
		return store.Accepted, where.Confirmations
	case open:
		if state == store.Confirmed {
			return store.Accepted, 0
		}
		return state, 0 // the race is open
	case where == nil && (state == store.Submitted || state == store.Rejected):
		return store.Rejected, 0
	}
	return store.Orphaned, 0
}
