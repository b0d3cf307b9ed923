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

	// Hashes that the pool accepted from the last block (or its first day) to Until; what came since is in the windows.
	Earlier float64
	Until   time.Time
	readAt  time.Time

	Ends []time.Time // of rounds, the oldest first
	Work *work       // nil before it is read
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
	next := &ledger{Counts: counts, readAt: now}
	if old != nil {
		next.Ends, next.Work = old.Ends, old.Work
	}
	if old == nil || now.Sub(old.readAt) >= s.cfg.FlushDBInterval.Std() || !maps.Equal(counts, old.Counts) {
		if next.Ends, err = db.RoundEnds(ctx); err != nil {
			return nil, err
		}
		if next.Work, err = readWorkByHour(ctx, s.statistics(), next.Work, now); err != nil {
			return nil, err
		}
	}
	if i := slices.IndexFunc(blocks, func(b store.Block) bool { return b.State != store.Rejected }); i >= 0 {
		next.Last = &blocks[i]
	}
	var from time.Time
	if next.Last != nil {
		from = next.Last.CreatedAt
		if from.After(now.Add(-time.Duration(hour) * time.Second)) {
			next.Until = from
			return next, nil
		}
	}
	next.Until = now.Truncate(time.Hour)
	if old != nil && next.Until.Equal(old.Until) && sameBlock(next.Last, old.Last) && now.Sub(old.readAt) < s.cfg.FlushDBInterval.Std() {
		next.Earlier, next.readAt = old.Earlier, old.readAt
		return next, nil
	}
	next.Earlier, err = readWork(ctx, s.statistics(), from, next.Until)
	return next, err
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

// readWork adds up the pool's accepted hashes between two times, as far as the statistics tables go back: by hour in
// the first and the last day, by day between them. to is a full hour; the hour that from falls into counts by its part.
func readWork(ctx context.Context, db *store.Store, from, to time.Time) (float64, error) {
	const day = 24 * time.Hour
	firstDay, lastDay := from.Truncate(day), to.Truncate(day)
	type part struct {
		kind     store.StatsKind
		from, to time.Time // periods, both included
	}
	parts := []part{{store.Hour, from, to.Add(-time.Hour)}}
	if firstDay.Before(lastDay) {
		parts = []part{
			{store.Hour, from, firstDay.Add(day - time.Hour)},
			{store.Day, firstDay.Add(day), lastDay.Add(-day)},
			{store.Hour, lastDay, to.Add(-time.Hour)},
		}
	}
	var hashes float64
	for _, p := range parts {
		if p.to.Before(p.from.Truncate(time.Hour)) {
			continue
		}
		rows, err := db.ReadStats(ctx, p.kind, 0, 0, p.kind.Period(p.from), p.kind.Period(p.to))
		if err != nil {
			return 0, err
		}
		for _, row := range rows {
			work := row.Accept.Float()
			if p.kind == store.Hour && row.Period == store.Hour.Period(from) {
				work *= 1 - from.Sub(from.Truncate(time.Hour)).Hours()
			}
			hashes += work
		}
	}
	return hashes, nil
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
