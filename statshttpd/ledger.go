package statshttpd

import (
	"context"
	"maps"
	"slices"
	"time"

	"btcpool/internal/store"
)

// ledger is what the database knows of blocks, and of work that is too old for the windows. It is never changed once it
// is stored.
type ledger struct {
	Counts map[store.BlockState]int64
	Last   *store.Block // the newest that a node did not refuse, nil when there is none

	Ends []time.Time // of rounds, the oldest first
	Work *work       // nil before it is read

	readAt time.Time // when Ends and Work were read
}

// refreshLedger reads the blocks again, and the statistics where they may have changed.
func (s *Service) refreshLedger(ctx context.Context, db *store.Store) {
	err := withTimeout(ctx, func(ctx context.Context) error {
		next, err := s.readLedger(ctx, db, s.ledger.Load())
		if err == nil {
			s.ledger.Store(next)
			s.board.newRound(next.Last)
		}
		return err
	})
	if err == nil || ctx.Err() == nil {
		s.looking.Set(err)
	}
}

func (s *Service) readLedger(ctx context.Context, db *store.Store, old *ledger) (*ledger, error) {
	const newest = 20 // enough to find one that was not rejected
	now := s.now().UTC()
	counts, err := db.BlockCount(ctx)
	if err != nil {
		return nil, err
	}
	blocks, err := db.Blocks(ctx, newest, 0)
	if err != nil {
		return nil, err
	}
	next := &ledger{Counts: counts}
	if old != nil {
		next.Ends, next.Work, next.readAt = old.Ends, old.Work, old.readAt
	}
	if old == nil || now.Sub(old.readAt) >= s.cfg.FlushDBInterval.Std() || !maps.Equal(counts, old.Counts) {
		if next.Ends, err = db.RoundEnds(ctx); err != nil {
			return nil, err
		}
		if next.Work, err = readWorkByHour(ctx, s.statistics(), next.Work, now); err != nil {
			return nil, err
		}
		next.readAt = now
	}
	if i := slices.IndexFunc(blocks, func(b store.Block) bool { return b.State != store.Rejected }); i >= 0 {
		next.Last = &blocks[i]
	}
	return next, nil
}

// newRound begins a round with the last block. Of a block that is orphaned later the round is over all the same.
func (b *board) newRound(last *store.Block) {
	if last == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roundFrom = last.CreatedAt.Unix()
}

func sameBlock(a, b *store.Block) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Hash == b.Hash
}

// blocks returns a page of found blocks and how many there are.
func (s *Service) blocks(ctx context.Context, limit, offset int) (blocks []store.Block, total int64, err error) {
	db := s.db.Load()
	if db == nil {
		return nil, 0, errUnavailable
	}
	counts, err := db.BlockCount(ctx)
	if err != nil {
		return nil, 0, err
	}
	for n := range maps.Values(counts) {
		total += n
	}
	blocks, err = db.Blocks(ctx, limit, offset)
	return blocks, total, err
}
