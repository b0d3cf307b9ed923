//go:build integration

package rig

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

// WaitStatistics waits until the tables say the same as the log, and returns the log.
func (p *Pool) WaitStatistics(t testing.TB, db *MariaDB) (log []share.Share) {
	t.Helper()
	conn := db.Open(t)
	return p.WaitLog(t, testkit.Patience, "the statistics tables agree with the share log", func(ctx context.Context, log []share.Share) error {
		return CompareStatistics(ctx, conn, log)
	})
}

// CompareLive says how the last hour of statshttpd's API differs from the log, none of whose shares is older.
func (p *Pool) CompareLive(ctx context.Context, log []share.Share) error {
	type counted struct {
		Shares     int64
		Difficulty float64
	}
	var want counted
	for i := range log {
		if log[i].Status == share.StatusAccept {
			want.Shares++
			want.Difficulty += log[i].Difficulty.Float() // exactly: powers of two
		}
	}
	var answer struct {
		Shares struct{ Accepted counted } `json:"shares_1h"`
	}
	err := p.Get(ctx, "/api/v1/pool", &answer)
	if got := answer.Shares.Accepted; err == nil && got != want {
		err = fmt.Errorf("the API counts %+v accepted, the log %+v", got, want)
	}
	return err
}

// statisticsRow is a row of any of the tables, with all sums in hashes.
type statisticsRow struct {
	User                  int32
	Worker                int64
	Period                int
	Accept, Stale, Reject string
	Reasons               string // what was rejected by reason
}

// CompareStatistics says how the tables differ from the sums of the log, whose shares are in the order of their files.
func CompareStatistics(ctx context.Context, conn *sql.DB, log []share.Share) error {
	st := NewStatistics()
	for i := range log {
		st.Add(&log[i])
	}
	return st.Compare(ctx, conn)
}

// Statistics are what shares add up to, for the pool, users and workers by hour and day.
type Statistics struct {
	sums map[statisticsKey]*Sums
	last map[statisticsKey]bitcoin.Difficulty // accepted, of a worker on a day
}

type statisticsKey struct {
	user   int32
	worker int64
	period int
}

// Sums are those of somebody in a time.
type Sums struct {
	Accept, Stale, Reject bitcoin.Work
	Reasons               map[share.Status]bitcoin.Work
}

// NewStatistics returns those of no shares.
func NewStatistics() *Statistics {
	return &Statistics{sums: map[statisticsKey]*Sums{}, last: map[statisticsKey]bitcoin.Difficulty{}}
}

// Add adds a share, which comes behind those of its worker that are in the log before it. What was not accepted counts
// at most four times as much as the worker's last accepted share of the day.
func (st *Statistics) Add(s *share.Share) {
	day := int(sharefile.DayOf(s.Time))
	worker := statisticsKey{s.UserID, s.WorkerID, day}
	work := s.Difficulty.Hashes()
	if d, ok := st.last[worker]; ok && (s.Status.IsStale() || !s.Status.IsAccepted()) {
		work = share.RejectedDifficulty(s.Difficulty, d).Hashes()
	}
	for _, k := range []statisticsKey{{}, {user: s.UserID}, {user: s.UserID, worker: s.WorkerID}} {
		for _, k.period = range []int{day, store.Hour.Period(time.Unix(s.Time, 0).UTC())} {
			sum := st.sums[k]
			if sum == nil {
				sum = &Sums{Reasons: map[share.Status]bitcoin.Work{}}
				st.sums[k] = sum
			}
			switch {
			case s.Status.IsStale():
				sum.Stale = sum.Stale.Add(work)
			case s.Status.IsAccepted():
				sum.Accept = sum.Accept.Add(work)
			default:
				sum.Reject = sum.Reject.Add(work)
				sum.Reasons[s.Status] = sum.Reasons[s.Status].Add(work)
			}
		}
	}
	if s.Status.IsAccepted() {
		st.last[worker] = s.Difficulty
	}
}

// Pool returns the sums of all in an hour (YYYYMMDDHH) or a day.
func (st *Statistics) Pool(period int) Sums {
	if sum := st.sums[statisticsKey{period: period}]; sum != nil {
		return *sum
	}
	return Sums{}
}

// Rows is how many rows the tables are to have.
func (st *Statistics) Rows() int { return len(st.sums) }

// Compare says how the tables differ.
func (st *Statistics) Compare(ctx context.Context, conn *sql.DB) error {
	got := map[statisticsRow]bool{}
	for _, query := range []string{
		"SELECT 0, 0, day, accept_hashes, stale_hashes, reject_hashes, reject_detail_hashes FROM stats_pool_day",
		"SELECT 0, 0, hour, accept_hashes, stale_hashes, reject_hashes, reject_detail_hashes FROM stats_pool_hour",
		"SELECT puid, 0, day, accept_hashes, stale_hashes, reject_hashes, reject_detail_hashes FROM stats_users_day",
		"SELECT puid, 0, hour, accept_hashes, stale_hashes, reject_hashes, reject_detail_hashes FROM stats_users_hour",
		"SELECT puid, worker_id, day, accept_hashes, stale_hashes, reject_hashes, reject_detail_hashes FROM stats_workers_day",
		"SELECT puid, worker_id, hour, accept_hashes, stale_hashes, reject_hashes, reject_detail_hashes FROM stats_workers_hour",
	} {
		rows, err := conn.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // what went wrong, Err says
		for rows.Next() {
			var r statisticsRow
			var reasons string
			if err := rows.Scan(&r.User, &r.Worker, &r.Period, &r.Accept, &r.Stale, &r.Reject, &reasons); err != nil {
				return err
			}
			detail := map[share.Status]json.Number{}
			if reasons != "" {
				if err := json.Unmarshal([]byte(reasons), &detail); err != nil {
					return fmt.Errorf("%+v: %w in %q", r, err, reasons)
				}
			}
			r.Reasons = fmt.Sprint(detail)
			got[r] = true
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	want := map[statisticsRow]bool{}
	for k, sum := range st.sums {
		want[statisticsRow{
			k.user, k.worker, k.period, sum.Accept.String(), sum.Stale.String(), sum.Reject.String(), fmt.Sprint(sum.Reasons),
		}] = true
	}
	if maps.Equal(want, got) {
		return nil
	}
	const told = 5
	differ := func(have, lack map[statisticsRow]bool) (some []statisticsRow) {
		for r := range have {
			if !lack[r] && len(some) < told {
				some = append(some, r)
			}
		}
		return some
	}
	return fmt.Errorf("%d rows in the tables, the shares make %d; only in the tables: %+v; not there: %+v",
		len(got), len(want), differ(got, want), differ(want, got))
}
