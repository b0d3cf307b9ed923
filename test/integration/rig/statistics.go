//go:build integration

package rig

import (
	"context"
	"database/sql"
	"errors"
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

// CompareStatistics says how the tables differ from the sums of the log.
func CompareStatistics(ctx context.Context, conn *sql.DB, log []share.Share) error {
	type row struct {
		User   int32
		Worker int64
		Day    int
		Accept string
	}
	want := map[row]bool{}
	sums := map[row]bitcoin.Work{}
	for _, s := range log {
		if s.Status != share.StatusAccept {
			continue
		}
		day := int(sharefile.DayOf(s.Time))
		for _, r := range []row{{Day: day}, {User: s.UserID, Day: day}, {User: s.UserID, Worker: s.WorkerID, Day: day}} {
			sums[r] = sums[r].Add(s.Difficulty.Hashes())
		}
	}
	for r, sum := range sums {
		r.Accept = sum.String()
		want[r] = true
	}
	got := map[row]bool{}
	for _, query := range []string{
		"SELECT 0, 0, day, accept_hashes FROM stats_pool_day",
		"SELECT puid, 0, day, accept_hashes FROM stats_users_day",
		"SELECT puid, worker_id, day, accept_hashes FROM stats_workers_day",
	} {
		rows, err := conn.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // what went wrong, Err says
		for rows.Next() {
			var r row
			if err := rows.Scan(&r.User, &r.Worker, &r.Day, &r.Accept); err != nil {
				return err
			}
			if r.Accept != "0" { // of workers whose shares were all refused
				got[r] = true
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return errors.New(diff)
	}
	return nil
}
