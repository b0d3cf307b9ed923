package blkmaker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/retry"
	"btcpool/internal/store"
)

const (
	// mergedEvery is how often the blocks of other chains are looked for.
	mergedEvery = time.Minute
	// mergedRace is when a block that is not on its chain counts as left behind: by then any of these chains is
	// buriedBy blocks further.
	mergedRace = 2 * time.Hour
	// mergedYoung is for how long a settled block is looked at again, because a reorganisation may change its state.
	mergedYoung = 24 * time.Hour
)

// followMerged brings found_nmc_blocks up to date until ctx ends.
func (s *Service) followMerged(ctx context.Context, every time.Duration) error {
	if len(s.merged) == 0 {
		return nil
	}
	for again := true; again; again = retry.Sleep(ctx, every) {
		if err := s.followMergedOnce(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("blocks of other chains not followed: will try again")
		}
	}
	return nil
}

// followMergedOnce asks the nodes of the other chains for the open blocks and for the young ones. A chain whose nodes
// are away keeps none of the others up.
func (s *Service) followMergedOnce(ctx context.Context, now time.Time) error {
	blocks, err := s.store.OpenMergedBlocks(ctx, openBlocks)
	if err != nil {
		return err
	}
	young, err := s.store.MergedBlocks(ctx, youngBlocks, 0)
	if err != nil {
		return err
	}
	for _, b := range young {
		if b.State != store.Submitted && b.State != store.Accepted && now.Sub(b.CreatedAt) < mergedYoung {
			blocks = append(blocks, b)
		}
	}
	away := make(map[string]error)
	for _, b := range blocks {
		nodes := s.merged[b.Chain]
		if len(nodes) == 0 || away[b.Chain] != nil {
			continue
		}
		where, err := locateMerged(ctx, nodes, &b)
		if err != nil {
			away[b.Chain] = err
			continue
		}
		state, confirmations := follow(b.State, b.Confirmations, where, now.Sub(b.CreatedAt) < mergedRace, int64(s.cfg.Confirmations))
		if state == b.State && confirmations == b.Confirmations {
			continue
		}
		if err := s.store.SetMergedBlockState(ctx, b.Hash, state, confirmations); err != nil {
			return err
		}
		if state != b.State {
			s.log.Info().Str("chain", b.Chain).Str("hash", b.Hash).Str("state", string(state)).Str("was", string(b.State)).
				Int64("confirmations", confirmations).Msg("block of another chain changed its state")
		}
	}
	return errors.Join(slices.Collect(maps.Values(away))...)
}

// locateMerged returns where the nodes of a chain have a block: on the chain of the one that has most on top of it. It
// fails if no node answers.
func locateMerged(ctx context.Context, nodes []mergedNode, b *store.MergedBlock) (best *noderpc.BlockInfo, err error) {
	var errs []error
	for _, n := range nodes {
		where, err := n.locate(ctx, b)
		switch {
		case err != nil:
			errs = append(errs, err)
		case where != nil && (best == nil || where.Confirmations > best.Confirmations):
			best = where
		}
	}
	if len(errs) == len(nodes) {
		return nil, errors.Join(errs...)
	}
	return best, nil
}
