package blkmaker

import (
	"context"
	"time"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/store"
)

const (
	// buriedBy is how many blocks higher than a block that is not on it the
	// chain must be until the block counts as orphaned.
	buriedBy = 6
	// openBlocks and youngBlocks bound what is looked at in one go.
	openBlocks  = 1000
	youngBlocks = 200
	// followAgain is when what went wrong is tried again.
	followAgain = 15 * time.Second
)

// followBlocks brings found_blocks up to date, at first and whenever a tip moved
// or a block was written down.
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

// followOnce asks the best node for the open blocks, and for the young ones,
// whose state a reorganisation may change.
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
	for _, b := range blocks {
		where, err := best.locate(ctx, b.Hash)
		if err != nil {
			return err
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

// follow returns the next state and confirmations of a block with these that
// a node has there or, where is nil, does not know. open says that it may still
// get onto the chain; need is how many confirmations make a block confirmed.
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
