//go:build integration

package integration

import (
	"database/sql"
	"fmt"
	"os"
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

// Who reads the table that btcpool has for a sub-pool reads on, as docs/migrating.md says: its rows of before, and what
// blkmaker adds.
func TestSubPoolTable(t *testing.T) {
	t.Parallel()
	db := rig.StartMariaDB(t, t.TempDir())
	s, err := store.Open(t.Context(), "mysql://"+db.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	text, err := os.ReadFile("../../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(text), "```text\nINSERT")
	script, _, found := strings.Cut("INSERT"+script, "```")
	if !found {
		t.Fatal("docs/migrating.md has no such script")
	}
	conn := db.Open(t)
	run := func(statement string) {
		t.Helper()
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(statement, err)
		}
	}
	run("CREATE TABLE found_blocks_farm LIKE found_blocks")
	for _, column := range []string{"state", "confirmations", "sub_pool"} { // btcpool's has none of them
		run("ALTER TABLE found_blocks_farm DROP COLUMN " + column)
	}
	run("INSERT INTO found_blocks_farm VALUES (1, 7, 5, 'alice.rig', 9, 800, 0, '" + strings.Repeat("a", 64) + "', 5, 6, '', 1, 2, NULL)")
	for statement := range strings.SplitSeq(script, ";\n") {
		if strings.TrimSpace(statement) != "" {
			run(statement)
		}
	}
	for hash, of := range map[string]string{strings.Repeat("b", 64): "farm", strings.Repeat("c", 64): ""} {
		if err := s.AddBlock(t.Context(), store.Block{Hash: hash, Height: 801, SubPool: of}); err != nil {
			t.Fatal(err)
		}
	}
	var heights string
	if err := conn.QueryRowContext(t.Context(), "SELECT GROUP_CONCAT(height ORDER BY height) FROM found_blocks_farm").Scan(&heights); err != nil || heights != "800,801" {
		t.Errorf("heights %s, %v", heights, err)
	}
}
