package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

// Worker is a row of mining_workers: what a worker did lately. Worker 0 is the sum of its user's workers. Work is kept
// in whole difficulties.
type Worker struct {
	UserID   int32
	WorkerID int64
	Name     string // kept to 50 characters
	UserName string // kept to 255 characters
	Agent    string // kept to 30 characters

	Accept1m, Accept5m, Accept15m, Accept1h bitcoin.Work
	Stale15m, Stale1h                       bitcoin.Work
	Reject15m, Reject1h                     bitcoin.Work
	RejectDetail15m, RejectDetail1h         map[share.Status]bitcoin.Work

	AcceptCount   int64 // shares, at most 2^31-1 are kept
	LastShareIP   string
	LastShareTime time.Time // whole seconds; zero when there was none

	FirstShare int64  // unix time of the first one ever, 0 when there was none. The earliest that was written stays
	Best       Record // ever. The best that was written stays
	RoundBest  Record // of the round that its time belongs to
}

// Record is a best share.
type Record struct {
	Bits uint32 // of its hash, compact: the smaller, the better; 0: none
	At   int64  // unix time
}

var (
	workerKey      = []string{"puid", "worker_id"}
	workerMeasures = []string{
		"accept_1m", "accept_5m", "accept_15m", "stale_15m", "reject_15m", "reject_detail_15m",
		"accept_1h", "stale_1h", "reject_1h", "reject_detail_1h",
		"accept_count", "last_share_ip", "last_share_addr", "last_share_time", "updated_at",
	}
	workerRecords = []string{"first_share_at", "best_at", "best_bits", "round_at", "round_bits"}
	workerColumns = slices.Concat([]string{"puid", "worker_id", "group_id", "created_at"}, workerMeasures, workerRecords)
)

// noShare is the default of last_share_time: the first second that MySQL's timestamp can hold; lastShare is the last.
var (
	noShare   = time.Unix(1, 0).UTC()
	lastShare = time.Unix(math.MaxInt32, 0)
)

// records makes the assignments of workerRecords. MySQL assigns from left to right and compares with what has been
// assigned: what is compared comes last.
func (s *Store) records() []string {
	earlier := func(column string) string {
		in := s.incoming(column)
		return in + " > 0 AND (" + column + " = 0 OR " + in + " < " + column + ")"
	}
	better := earlier("best_bits")
	return append([]string{
		"first_share_at = CASE WHEN " + earlier("first_share_at") + " THEN " + s.incoming("first_share_at") + " ELSE first_share_at END",
		"best_at = CASE WHEN " + better + " THEN " + s.incoming("best_at") + " ELSE best_at END",
		"best_bits = CASE WHEN " + better + " THEN " + s.incoming("best_bits") + " ELSE best_bits END",
	}, s.replace("round_at", "round_bits")...)
}

// UpsertWorkerStats writes what the workers did, all or nothing. Names and agents stay as they are; a new row joins its
// user's default group.
func (s *Store) UpsertWorkerStats(ctx context.Context, workers []Worker) error {
	now := timestamp(time.Now())
	return s.transact(ctx, func(tx *sql.Tx) error {
		return upsert(ctx, tx, "mining_workers", workerColumns, s.onConflict(workerKey, append(s.replace(workerMeasures...), s.records()...)...), workers,
			func(args []any, w Worker) []any {
				seen := w.LastShareTime
				if seen.Before(noShare) {
					seen = noShare
				} else if seen.After(lastShare) {
					seen = lastShare
				}
				return append(args,
					w.UserID, w.WorkerID, -w.UserID, now,
					difficulty(w.Accept1m), difficulty(w.Accept5m), difficulty(w.Accept15m),
					difficulty(w.Stale15m), difficulty(w.Reject15m), FormatDetail(w.RejectDetail15m),
					difficulty(w.Accept1h), difficulty(w.Stale1h), difficulty(w.Reject1h), FormatDetail(w.RejectDetail1h),
					min(w.AcceptCount, math.MaxInt32), shareIPv4(w.LastShareIP), truncate(w.LastShareIP, 45), timestamp(seen), now,
					w.FirstShare, w.Best.At, w.Best.Bits, w.RoundBest.At, w.RoundBest.Bits,
				)
			})
	})
}

const noIPv4 = "0.0.0.0"

// shareIPv4 is the address as last_share_ip, made for IPv4, can hold it.
func shareIPv4(ip string) string {
	if addr, err := netip.ParseAddr(ip); err == nil && addr.Unmap().Is4() {
		return addr.Unmap().String()
	}
	return noIPv4
}

var workerNames = []string{"puid", "worker_id", "group_id", "worker_name", "user_name", "miner_agent", "created_at", "updated_at"}

// UpsertWorkerNames writes names and agents of workers and leaves the rest, all or nothing. A worker deleted by its user
// (group 0) that comes back joins the default group, -puid, again.
func (s *Store) UpsertWorkerNames(ctx context.Context, workers []Worker) error {
	now := timestamp(time.Now())
	set := append(s.replace("worker_name", "user_name", "miner_agent", "updated_at"),
		"group_id = CASE mining_workers.group_id WHEN 0 THEN "+s.incoming("group_id")+" ELSE mining_workers.group_id END")
	return s.transact(ctx, func(tx *sql.Tx) error {
		return upsert(ctx, tx, "mining_workers", workerNames, s.onConflict(workerKey, set...), workers, func(args []any, w Worker) []any {
			return append(args, w.UserID, w.WorkerID, -w.UserID, truncate(w.Name, 50), truncate(w.UserName, 255), truncate(w.Agent, 30), now, now)
		})
	})
}

const selectWorkers = `SELECT puid, worker_id, COALESCE(worker_name, ''), user_name, COALESCE(miner_agent, ''), ` +
	`accept_1m, accept_5m, accept_15m, stale_15m, reject_15m, reject_detail_15m, ` +
	`accept_1h, stale_1h, reject_1h, reject_detail_1h, ` +
	`accept_count, last_share_ip, last_share_addr, last_share_time, ` +
	`first_share_at, best_at, best_bits, round_at, round_bits FROM mining_workers`

const (
	orderWorkers = ` ORDER BY puid, worker_id`
	areBusy      = ` WHERE accept_1h <> 0 OR stale_1h <> 0 OR reject_1h <> 0`
	newestFirst  = ` WHERE worker_id = 0 OR last_share_time > ? ORDER BY worker_id <> 0, last_share_time DESC, puid, worker_id LIMIT ?`
	isWorker     = `(puid = ? AND worker_id = ?)`
)

// Workers returns all rows, those of users among them, by user and worker.
func (s *Store) Workers(ctx context.Context) ([]Worker, error) {
	return s.workers(ctx, selectWorkers+orderWorkers)
}

// BusyWorkers returns the rows whose figures of the last hour are not zero.
func (s *Store) BusyWorkers(ctx context.Context) ([]Worker, error) {
	return s.workers(ctx, selectWorkers+areBusy+orderWorkers)
}

// RecentWorkers returns up to limit rows, those of users first, then of the workers whose last share is the youngest.
// Workers without any are left out.
func (s *Store) RecentWorkers(ctx context.Context, limit int) ([]Worker, error) {
	return s.workers(ctx, selectWorkers+newestFirst, timestamp(noShare), limit)
}

// WorkerNames returns the names of a user's workers by their ids; user 0 stands for all users.
func (s *Store) WorkerNames(ctx context.Context, userID int32) (map[int64]string, error) {
	return queryMap[int64, string](ctx, s, "names of workers",
		"SELECT worker_id, worker_name FROM mining_workers WHERE (puid = ? OR ? = 0) AND worker_name IS NOT NULL", userID, userID)
}

// WorkerKey names a row of mining_workers.
type WorkerKey struct {
	UserID   int32
	WorkerID int64
}

// FindWorkers returns the rows of those keys that there are.
func (s *Store) FindWorkers(ctx context.Context, keys []WorkerKey) (found []Worker, err error) {
	for chunk := range slices.Chunk(keys, chunkRows) {
		args := make([]any, 0, 2*len(chunk))
		for _, k := range chunk {
			args = append(args, k.UserID, k.WorkerID)
		}
		rows, err := s.workers(ctx, selectWorkers+" WHERE "+isWorker+strings.Repeat(" OR "+isWorker, len(chunk)-1), args...)
		if err != nil {
			return nil, err
		}
		found = append(found, rows...)
	}
	return found, nil
}

const (
	areOver    = `(updated_at IS NULL OR updated_at < ?) AND last_share_time < ?`
	selectOver = `SELECT puid, worker_id FROM mining_workers WHERE ` + areOver + ` OR ` + areOver + ` LIMIT ?`
	deleteOver = `DELETE FROM mining_workers WHERE puid = ? AND worker_id = ? AND (` + areOver + ` OR ` + areOver + `)`
)

// PurgeWorkers deletes up to limit rows that were not written since silent, nor had a share, and of those that never had
// one the rows not written since never. A zero silent keeps all that had a share. It returns how many there were.
func (s *Store) PurgeWorkers(ctx context.Context, silent, never time.Time, limit int) (n int, err error) {
	if silent.IsZero() {
		silent = noShare
	}
	over := []any{timestamp(silent), timestamp(silent), timestamp(never), timestamp(noShare.Add(time.Second))}
	keys, err := query(ctx, s, "workers to purge", selectOver, append(slices.Clone(over), limit), func(rows *sql.Rows) (k WorkerKey, err error) {
		return k, rows.Scan(&k.UserID, &k.WorkerID)
	})
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	err = s.transact(ctx, func(tx *sql.Tx) error {
		for _, k := range keys { // by key: a search would lock rows that others write
			if _, err := tx.ExecContext(ctx, deleteOver, append([]any{k.UserID, k.WorkerID}, over...)...); err != nil {
				return fmt.Errorf("purge workers: %w", err)
			}
		}
		return nil
	})
	return len(keys), err
}

func (s *Store) workers(ctx context.Context, text string, args ...any) ([]Worker, error) {
	return query(ctx, s, "workers", text, args, func(rows *sql.Rows) (w Worker, err error) {
		var detail15m, detail1h, ipv4 string
		err = rows.Scan(&w.UserID, &w.WorkerID, &w.Name, &w.UserName, &w.Agent,
			(*difficultyColumn)(&w.Accept1m), (*difficultyColumn)(&w.Accept5m), (*difficultyColumn)(&w.Accept15m),
			(*difficultyColumn)(&w.Stale15m), (*difficultyColumn)(&w.Reject15m), &detail15m,
			(*difficultyColumn)(&w.Accept1h), (*difficultyColumn)(&w.Stale1h), (*difficultyColumn)(&w.Reject1h), &detail1h,
			&w.AcceptCount, &ipv4, &w.LastShareIP, &w.LastShareTime,
			&w.FirstShare, &w.Best.At, &w.Best.Bits, &w.RoundBest.At, &w.RoundBest.Bits)
		w.RejectDetail15m, w.RejectDetail1h = parseDetail(detail15m), parseDetail(detail1h)
		if ipv4 != noIPv4 {
			w.LastShareIP = ipv4
		}
		if w.LastShareTime = w.LastShareTime.UTC(); w.LastShareTime.Equal(noShare) {
			w.LastShareTime = time.Time{}
		}
		return w, err
	})
}

// difficultyColumn reads work from a column of whole difficulties.
type difficultyColumn bitcoin.Work

// Scan implements sql.Scanner.
func (c *difficultyColumn) Scan(v any) error {
	d, ok := v.(int64)
	if !ok {
		return fmt.Errorf("%T is no difficulty", v)
	}
	*c = difficultyColumn(difficultyWork(uint64(max(d, 0))))
	return nil
}
