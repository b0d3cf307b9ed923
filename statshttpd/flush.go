package statshttpd

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/durable"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

const flushRows = 2000 // a transaction, so that other writers of a SQLite file get their turn

// flush writes names that changed and the figures of every worker and user, and then forgets who is silent. What fails
// is written with the next flush: all figures are absolute.
func (s *Service) flush(ctx context.Context, db *store.Store) {
	if !s.replayed.Load() {
		return
	}
	now := s.now()
	unread := s.lookUp(ctx, db) // the rows of others are written nevertheless
	rows, err := s.writeNames(ctx, db)
	left := s.board.takeLeft()
	write := func(chunk []store.Worker) {
		if err == nil {
			err = withTimeout(ctx, func(ctx context.Context) error { return db.UpsertWorkerStats(ctx, chunk) })
			rows += len(chunk)
		}
	}
	for chunk := range slices.Chunk(left, flushRows) {
		write(chunk)
	}
	for keys := range slices.Chunk(s.board.rowKeys(), flushRows) { // rows of all at once would take much memory
		write(s.board.rows(now, keys))
	}
	err = cmp.Or(err, unread)
	took := s.now().Sub(now)
	s.metrics.flushSeconds.Observe(took.Seconds())
	if s.writing.Set(err); err != nil {
		s.board.putLeft(left)
		s.metrics.flushes.WithLabelValues("failed").Inc()
		return
	}
	s.metrics.flushes.WithLabelValues("ok").Inc()
	s.flushed.Store(now.Unix())
	s.beat(now)
	kept := s.board.expire(now, s.cfg.WorkersRetention.Std())
	s.log.Debug().Int("rows", rows).Int("workers", kept).Dur("took_ms", took).Msg("workers written")
}

// beat says in the file that is configured when all was written last, as btcpool's does.
func (s *Service) beat(now time.Time) {
	path := s.cfg.FileLastFlushTime
	if path == "" {
		return
	}
	s.beating.Set(durable.Replace(path, []byte(strconv.FormatInt(now.Unix(), 10)), 0o644))
}

// takeLeft returns the rows of workers that are not in memory any more, and forgets them; putLeft gives back those that
// could not be written, as far as there is room: the next start clears the others.
func (b *board) takeLeft() []store.Worker {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.left
	b.left = nil
	return left
}

func (b *board) putLeft(rows []store.Worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = append(b.left, rows[:min(len(rows), max(b.limit-len(b.left), 0))]...)
}

// rowKeys returns the keys of rows that there are to write: of each worker that had a share, and of each user of such as
// worker 0, but for those whose row has had zeros for long, or is to be read first.
func (b *board) rowKeys() []workerKey {
	b.mu.RLock()
	defer b.mu.RUnlock()
	keys := make([]workerKey, 0, len(b.workers)+len(b.users))
	for k, w := range b.workers {
		if w.waits == nil && !w.cleared && !b.unread[k] {
			keys = append(keys, k)
		}
	}
	for id, u := range b.users {
		if k := (workerKey{UserID: id}); u.last != 0 && !u.cleared && !b.unread[k] {
			keys = append(keys, k)
		}
	}
	return keys
}

// rows makes the rows of keys. Who has gone since has none.
func (b *board) rows(now time.Time, keys []workerKey) []store.Worker {
	b.mu.RLock()
	defer b.mu.RUnlock()
	rows := make([]store.Worker, 0, len(keys))
	for _, k := range keys {
		if w := b.workers[k]; w != nil {
			rows = append(rows, w.row(k, now.Unix()))
		} else if u := b.users[k.UserID]; u != nil && k.WorkerID == 0 {
			rows = append(rows, u.row(k, now.Unix()))
		}
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
		FirstShare:  w.first,
		Best:        store.Record(w.best),
		RoundBest:   store.Record(w.round),
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
