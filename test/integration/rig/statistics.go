//go:build integration

package rig

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

// WaitStatistics waits until the tables say the same as the log.
func (m *MariaDB) WaitStatistics(t testing.TB, log []share.Share) {
	t.Helper()
	conn := m.Open(t)
	testkit.Until(t, 2*time.Minute, "the statistics tables agree with the share log", func(ctx context.Context) error {
		return CompareStatistics(ctx, conn, log)
	})
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
	if diff := cmp.Diff(statisticsOf(log), got); diff != "" {
		return errors.New(diff)
	}
	return nil
}

// statisticsOf adds up the shares of a log. What was not accepted counts at most four times as much as the worker's last
// accepted share of the day.
func statisticsOf(log []share.Share) map[statisticsRow]bool {
	type key struct {
		user   int32
		worker int64
		period int
	}
	type sums struct {
		accept, stale, reject bitcoin.Work
		reasons               map[share.Status]bitcoin.Work
	}
	all := map[key]*sums{}
	last := map[key]bitcoin.Difficulty{} // accepted
	for _, s := range log {
		at := time.Unix(s.Time, 0).UTC()
		day := int(sharefile.DayOf(s.Time))
		worker := key{s.UserID, s.WorkerID, day}
		work := s.Difficulty.Hashes()
		if d, ok := last[worker]; ok && (s.Status.IsStale() || !s.Status.IsAccepted()) {
			work = share.RejectedDifficulty(s.Difficulty, d).Hashes()
		}
		for _, k := range []key{{}, {user: s.UserID}, {user: s.UserID, worker: s.WorkerID}} {
			for _, k.period = range []int{day, day*100 + at.Hour()} {
				if all[k] == nil {
					all[k] = &sums{reasons: map[share.Status]bitcoin.Work{}}
				}
				switch sum := all[k]; {
				case s.Status.IsStale():
					sum.stale = sum.stale.Add(work)
				case s.Status.IsAccepted():
					sum.accept = sum.accept.Add(work)
				default:
					sum.reject = sum.reject.Add(work)
					sum.reasons[s.Status] = sum.reasons[s.Status].Add(work)
				}
			}
		}
		if s.Status.IsAccepted() {
			last[worker] = s.Difficulty
		}
	}
	want := map[statisticsRow]bool{}
	for k, sum := range all {
		want[statisticsRow{
			k.user, k.worker, k.period, sum.accept.String(), sum.stale.String(), sum.reject.String(), fmt.Sprint(sum.reasons),
		}] = true
	}
	return want
}
