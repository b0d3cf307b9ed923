package statshttpd

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

const (
	ledgerInterval = 2 * time.Second
	queryTimeout   = 10 * time.Second // of one statement
	flushRows      = 2000             // a transaction, so that other writers of a SQLite file get their turn
)

// keep does all that has to do with the database until ctx ends. Counting never waits for it.
func (s *Service) keep(ctx context.Context) error {
	db, err := store.Connect(ctx, s.cfg.Database, s.log)
	if err != nil {
		return nil // ctx ended
	}
	s.keepUpToDate(ctx, db)
	return db.Close()
}

func (s *Service) keepUpToDate(ctx context.Context, db *store.Store) {
	for s.learn(ctx, db) != nil {
		if !sleep(ctx, ledgerInterval) {
			return
		}
	}
	s.db.Store(db)
	flush := time.NewTicker(s.cfg.FlushDBInterval.Std())
	defer flush.Stop()
	look := time.NewTicker(ledgerInterval)
	defer look.Stop()
	for {
		s.refreshLedger(ctx, db)
		select {
		case <-look.C:
		case <-flush.C:
			s.flush(ctx, db)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
			defer cancel()
			s.flush(last, db)
			return
		}
	}
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// learn reads what the database knows of users and workers.
func (s *Service) learn(ctx context.Context, db *store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	users, err := db.Users(ctx)
	var workers []store.Worker
	if err == nil {
		workers, err = db.Workers(ctx)
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("names not read, trying again")
		return err
	}
	s.board.addUsers(users)
	for _, w := range workers {
		if w.UserName != "" {
			s.board.addUsers(map[string]int32{w.UserName: w.UserID})
		}
		if w.WorkerID == 0 {
			continue
		}
		figures := w.Accept1h.Add(w.Stale1h).Add(w.Reject1h)
		s.board.addKnown(workerKey{w.UserID, w.WorkerID}, workerName{w.Name, w.Agent}, w.LastShareTime, !figures.IsZero())
	}
	s.log.Info().Int("users", len(users)).Int("workers", len(workers)).Msg("names read")
	return nil
}

// flush writes names that changed and the figures of every worker and user, and then forgets who is silent. What fails
// is written with the next flush: all figures are absolute.
func (s *Service) flush(ctx context.Context, db *store.Store) {
	if !s.replayed.Load() {
		return
	}
	now := s.now()
	rows, err := s.writeNames(ctx, db)
	if err == nil {
		all := s.board.rows(now)
		rows += len(all)
		for chunk := range slices.Chunk(all, flushRows) {
			if err = withTimeout(ctx, func(ctx context.Context) error { return db.UpsertWorkerStats(ctx, chunk) }); err != nil {
				break
			}
		}
	}
	took := s.now().Sub(now)
	s.metrics.flushSeconds.Observe(took.Seconds())
	if err != nil {
		s.metrics.flushes.WithLabelValues("failed").Inc()
		s.log.Warn().Err(err).Msg("workers not written, trying again with the next flush")
		return
	}
	s.metrics.flushes.WithLabelValues("ok").Inc()
	s.flushed.Store(now.Unix())
	left := s.board.expire(now)
	s.log.Debug().Int("rows", rows).Int("workers", left).Dur("took_ms", took).Msg("workers written")
}

func (s *Service) writeNames(ctx context.Context, db *store.Store) (written int, err error) {
	renamed := s.board.takeRenamed()
	for k, row := range s.board.nameRows(renamed) {
		if err := withTimeout(ctx, func(ctx context.Context) error { return db.UpsertWorkerName(ctx, row) }); err != nil {
			s.board.putRenamed(renamed)
			return written, err
		}
		delete(renamed, k)
		written++
	}
	return written, nil
}

func withTimeout(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return do(ctx)
}

// nameRows makes rows of names.
func (b *board) nameRows(names map[workerKey]workerName) map[workerKey]store.Worker {
	b.mu.RLock()
	defer b.mu.RUnlock()
	rows := make(map[workerKey]store.Worker, len(names))
	for k, n := range names {
		rows[k] = store.Worker{UserID: k.UserID, WorkerID: k.WorkerID, Name: n.Name, UserName: b.userIDs[k.UserID], Agent: n.Agent}
	}
	return rows
}

// rows makes a row of each worker, and of each user as worker 0.
func (b *board) rows(now time.Time) []store.Worker {
	b.mu.RLock()
	defer b.mu.RUnlock()
	rows := make([]store.Worker, 0, len(b.workers)+len(b.users))
	for k, w := range b.workers {
		rows = append(rows, w.row(k, now.Unix()))
	}
	for id, u := range b.users {
		rows = append(rows, u.row(workerKey{UserID: id}, now.Unix()))
	}
	return rows
}

func (w *window) row(k workerKey, now int64) store.Worker {
	reject15m, detail15m := w.rejectedSum(now, quarterHour)
	reject1h, detail1h := w.rejectedSum(now, hour)
	row := store.Worker{
		UserID: k.UserID, WorkerID: k.WorkerID,
		Accept1m:  w.acceptedSum(now, minute).Work,
		Accept5m:  w.acceptedSum(now, fiveMinutes).Work,
		Accept15m: w.acceptedSum(now, quarterHour).Work,
		Accept1h:  w.acceptedSum(now, hour).Work,
		Stale15m:  w.staleSum(now, quarterHour).Work,
		Stale1h:   w.staleSum(now, hour).Work,
		Reject15m: reject15m.Work, RejectDetail15m: works(detail15m),
		Reject1h: reject1h.Work, RejectDetail1h: works(detail1h),
		AcceptCount: int64(w.accepted),
		LastShareIP: ipText(w.lastIP),
	}
	if w.last != 0 {
		row.LastShareTime = time.Unix(w.last, 0)
	}
	return row
}

// works keeps of amounts what the database keeps.
func works(amounts map[share.Status]amount) map[share.Status]bitcoin.Work {
	if amounts == nil {
		return nil
	}
	out := make(map[share.Status]bitcoin.Work, len(amounts))
	for status, a := range amounts {
		out[status] = a.Work
	}
	return out
}

func ipText(ip netip.Addr) string {
	if !ip.IsValid() {
		return "0.0.0.0"
	}
	return ip.Unmap().String()
}

// ledger is what the database knows of blocks, and of work that is too old for the windows. It is never changed once
// it is stored.
type ledger struct {
	Counts map[store.BlockState]int64
	Last   *store.Block // the newest that a node did not refuse, nil when there is none

	// Hashes that the pool accepted from the last block (or its first day) to Until; what came since is in the windows.
	Earlier float64
	Until   time.Time
	readAt  time.Time
}

// refreshLedger reads the blocks again, and the statistics where they may have changed.
func (s *Service) refreshLedger(ctx context.Context, db *store.Store) {
	err := withTimeout(ctx, func(ctx context.Context) error {
		next, err := s.readLedger(ctx, db, s.ledger.Load())
		if err == nil {
			s.ledger.Store(next)
		}
		return err
	})
	if err != nil && ctx.Err() == nil && s.ledgerFailing.CompareAndSwap(false, true) {
		s.log.Warn().Err(err).Msg("blocks not read, showing what was known")
	} else if err == nil {
		s.ledgerFailing.Store(false)
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
	next.Earlier, err = readWork(ctx, db, from, next.Until)
	return next, err
}

func sameBlock(a, b *store.Block) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Hash == b.Hash
}

// readWork adds up the pool's accepted hashes between two times, as far as the statistics tables go back: by hour in the
// first and the last day, by day between them. to is a full hour; the hour that from falls into counts by its part.
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

// effort tells how far the pool is in the round since the last block: the accepted hashes, and their share of what a
// block takes on average. ok is false while that cannot be told.
func (s *Service) effort(now time.Time) (hashes, effort float64, ok bool) {
	l, n := s.ledger.Load(), s.network.Load()
	if l == nil || n == nil || n.Difficulty <= 0 {
		return 0, 0, false
	}
	hashes = l.Earlier + s.board.workSince(now, l.Until)
	return hashes, hashes / (n.Difficulty * hashesPerDifficulty), true
}

// networkRate is the hashrate that finds a block of that difficulty each 10 minutes.
func networkRate(difficulty float64) float64 { return difficulty * hashesPerDifficulty / 600 }

// hashesPerDifficulty is the expected number of hashes for one share of difficulty 1.
const hashesPerDifficulty = 1 << 32

var errNoDatabase = errors.New("the database is not open yet")

// blocks returns a page of found blocks and how many there are.
func (s *Service) blocks(ctx context.Context, limit, offset int) (blocks []store.Block, total int64, err error) {
	db := s.db.Load()
	if db == nil {
		return nil, 0, errNoDatabase
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
