package slparser_test

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
	"btcpool/slparser"
)

var statsTables = []string{
	"stats_pool_day", "stats_pool_hour", "stats_users_day", "stats_users_hour", "stats_workers_day", "stats_workers_hour",
}

// raw is the database itself.
func raw(t *testing.T, cfg slparser.Config) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(cfg.Database.DSN, "sqlite:")+"?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// dump is all that the tables of statistics say, but for when it was written.
func dump(t *testing.T, cfg slparser.Config) (all []string) {
	t.Helper()
	db := raw(t, cfg)
	for _, table := range statsTables {
		rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table+" ORDER BY 1, 2, 3")
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			line := table
			for i, c := range columns {
				if c != "created_at" && c != "updated_at" {
					line += fmt.Sprintf(" %s=%v", c, *values[i].(*any))
				}
			}
			all = append(all, line)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// day is a day of shares of all kinds.
func day(n int, start time.Time) (shares []share.Share) {
	statuses := []share.Status{
		share.StatusAccept, share.StatusAccept, share.StatusAccept, share.StatusDuplicate, share.StatusLowDifficulty, share.StatusStale,
		share.StatusAcceptStale, share.StatusJobNotFound, share.StatusTimeTooOld, 4711,
	}
	for i := range n {
		s := newShare(int32(1+i%3), int64(1+i%7)-9, start.Add(time.Duration(i)*86400*time.Second/time.Duration(n)))
		s.Status, s.Nonce, s.Difficulty = statuses[i*i%len(statuses)], uint32(i), s.Difficulty-20
		shares = append(shares, s)
	}
	return shares
}

// TestSameRowsAgain counts days in every way there is, and again: the rows are the same to the last digit. One of the
// days is of another sharelogger.
func TestSameRowsAgain(t *testing.T) {
	t.Parallel()
	followed := testConfig(t)
	log := newShareLog(t, followed.DataDir)
	today := sharefile.DayOf(time.Now().Unix())
	first, last := today.Before().Before(), today.Before()
	for _, d := range []sharefile.Day{first, today} {
		for shares := day(500, d.Start()); len(shares) > 0; shares = shares[50:] {
			log.write(t, shares[:50]...)
		}
	}
	testkit.AppendShares(t, followed.DataDir, "BTC", day(500, last.Start()))

	// written tells whether all of a database's rows are written.
	written := func(db *store.Store) func() bool {
		return func() bool {
			counted, err := db.LogBytes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range []sharefile.Day{first, last, today} {
				info, err := os.Stat(sharefile.Path(followed.DataDir, followed.Chain, d))
				if err != nil || counted[int(d)] != info.Size() {
					return false
				}
			}
			return true
		}
	}
	_, stop := start(t, followed)
	testkit.Eventually(t, "all is counted", written(openStore(t, followed)))
	stop()
	want := dump(t, followed)
	if len(want) < 1000 {
		t.Fatalf("only %d rows", len(want))
	}

	computed := followed
	computed.Database.DSN = testConfig(t).Database.DSN
	computed.Day, computed.LastDay = first, today
	for range 2 {
		if err := run(t, computed); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, dump(t, computed)); diff != "" {
			t.Fatalf("(-followed +computed):\n%s", diff)
		}
	}
	computed.Day, computed.LastDay = 0, 0
	svc, stop := start(t, computed)
	testkit.Eventually(t, "today is counted again", func() bool { return svc.Ready() == nil })
	stop()
	if diff := cmp.Diff(want, dump(t, computed)); diff != "" {
		t.Errorf("(-followed +computed, then followed):\n%s", diff)
	}
}

// TestComputeDays has a day of three without a file: the others are computed, and it is told.
func TestComputeDays(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Day, cfg.LastDay = 20231120, 20231122
	log := newShareLog(t, cfg.DataDir)
	log.write(t, newShare(1, 11, cfg.Day.Start()), newShare(1, 11, cfg.LastDay.Start()))
	if err := run(t, cfg); err == nil || !strings.Contains(err.Error(), "day 20231121: open ") {
		t.Errorf("%v, want it to name the day", err)
	}
	db := openStore(t, cfg)
	for d, want := range map[sharefile.Day]uint64{20231120: 1, 20231121: 0, 20231122: 1} {
		if got := accepted(t, db, d, 0, 0); got != shares(want) {
			t.Errorf("%d: the pool has %s hashes", d, got)
		}
	}
}

// TestComputeInterrupted has computing end after it began to write: the day is counted again by whoever follows.
func TestComputeInterrupted(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Day = 20231120
	log := newShareLog(t, cfg.DataDir)
	log.write(t, newShare(1, 11, cfg.Day.Start()))
	if err := run(t, cfg); err != nil {
		t.Fatal(err)
	}
	db := openStore(t, cfg)
	direct := raw(t, cfg)
	forbid := "CREATE TRIGGER forbid BEFORE UPDATE ON stats_workers_hour BEGIN SELECT RAISE(ABORT, 'disk full'); END"
	if _, err := direct.ExecContext(t.Context(), forbid); err != nil {
		t.Fatal(err)
	}
	if err := run(t, cfg); err == nil || !strings.Contains(err.Error(), "only a part of the statistics is written: ") || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("%v, want what the database says", err)
	}
	bytes, err := db.LogBytes(t.Context())
	if err != nil || bytes[int(cfg.Day)] != -1 {
		t.Errorf("%v bytes are noted as counted, %v", bytes, err)
	}
	if _, err := direct.ExecContext(t.Context(), "DROP TRIGGER forbid"); err != nil {
		t.Fatal(err)
	}
	if err := run(t, cfg); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(sharefile.Path(cfg.DataDir, cfg.Chain, cfg.Day))
	if err != nil {
		t.Fatal(err)
	}
	if bytes, err = db.LogBytes(t.Context()); err != nil || bytes[int(cfg.Day)] != info.Size() {
		t.Errorf("%v bytes are noted as counted, %v, want %d", bytes, err, info.Size())
	}
}

// TestSingleUser counts for external users what one user brings.
func TestSingleUser(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Day, cfg.SingleUserPUID = 20231120, 7
	log := newShareLog(t, cfg.DataDir)
	of := func(user, extUser int32) share.Share {
		s := newShare(user, 11, cfg.Day.Start())
		s.ExtUserID = extUser
		return s
	}
	log.write(t, of(7, 1), of(7, 1), of(7, 2), of(7, 0), of(1, 1))
	if err := run(t, cfg); err != nil {
		t.Fatal(err)
	}
	db := openStore(t, cfg)
	for user, want := range map[int32]uint64{0: 3, 1: 2, 2: 1, 7: 0} {
		if got := accepted(t, db, cfg.Day, user, 0); got != shares(want) {
			t.Errorf("user %d has %s hashes", user, got)
		}
	}
	rows, err := db.ReadStats(t.Context(), store.Hour, 1, 11, 2023112000, 2023112023)
	if err != nil || len(rows) != 1 || rows[0].Accept != shares(2) {
		t.Errorf("%+v, %v", rows, err)
	}
}
