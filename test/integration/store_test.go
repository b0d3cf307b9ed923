//go:build integration

package integration

import (
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"btcpool/internal/store"
	"btcpool/internal/store/storetest"
	"btcpool/test/integration/rig"
)

// TestStoreOnMariaDB holds MariaDB to the suite that SQLite passes.
func TestStoreOnMariaDB(t *testing.T) {
	t.Parallel()
	server := rig.StartMariaDB(t, t.TempDir())
	db := server.Open(t)
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) (string, *sql.DB) {
		t.Helper()
		name := fmt.Sprintf("pool%d", n.Add(1))
		if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
			t.Fatal(err)
		}
		dsn := strings.TrimSuffix(server.DSN, "pool") + name
		own, err := sql.Open("mysql", dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { own.Close() })
		return "mysql://" + dsn, own
	})
}

// TestPurgeBesideWriters has old statistics removed while another connection has rows of the present locked, of the
// same workers: neither waits for the other.
func TestPurgeBesideWriters(t *testing.T) {
	t.Parallel()
	server := rig.StartMariaDB(t, t.TempDir())
	s, err := store.Open(t.Context(), "mysql://"+server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Date(2026, 5, 10, 12, 30, 0, 0, time.UTC)
	row := func(worker int64, kind store.StatsKind, at time.Time) store.Stats {
		return store.Stats{StatsKey: store.StatsKey{UserID: min(int32(worker), 1), WorkerID: worker, Period: kind.Period(at)}}
	}
	days, hours := []store.Stats{row(0, store.Day, now)}, []store.Stats(nil)
	for worker := range int64(700) {
		for _, at := range []time.Time{now, now.Add(-time.Hour), now.AddDate(0, 0, -5), now.AddDate(0, 0, -4), now.AddDate(0, 0, -3)} {
			hours = append(hours, row(worker+1, store.Hour, at))
		}
	}
	if err := s.WriteStats(t.Context(), days, hours); err != nil {
		t.Fatal(err)
	}
	db := server.Open(t)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for worker := range 700 { // as writers do, by key: rows that are there, and new ones
		for _, hour := range []int{store.Hour.Period(now), store.Hour.Period(now.Add(time.Hour))} {
			_, err := tx.ExecContext(t.Context(), "INSERT INTO stats_workers_hour (puid, worker_id, hour) VALUES (1, ?, ?) ON DUPLICATE KEY UPDATE share_accept = 1", worker+1, hour)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.PurgeStats(t.Context(), now, store.Keep{WorkerHours: 2, WorkerDays: 90, UserHours: 90}); err != nil {
		t.Errorf("purge waits for a writer: %v", err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM stats_workers_hour").Scan(&left); err != nil || left != 3*700 {
		t.Errorf("%d rows are left, %v", left, err)
	}
}
