package statshttpd

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"btcpool/internal/share"
	"btcpool/internal/store"
)

// Figures that cannot be written now are written later, names too.
func TestFlushIsRetried(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.connect(t, noon, 1, "ann", "rig", "cgminer")
	s.mine(t, share.Share{UserID: 1, WorkerID: share.WorkerID("rig"), Time: noon.Unix(), Status: share.StatusAccept})

	closed, err := store.Open(t.Context(), s.cfg.Database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	s.flush(t.Context(), closed)
	if s.flushed.Load() != 0 {
		t.Error("flushed into a closed database")
	}
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "workers not written") {
		t.Errorf("ready: %v", err)
	}
	s.replayed.Store(false)
	s.flush(t.Context(), s.db.Load())
	if s.flushed.Load() != 0 {
		t.Error("flushed while history was read")
	}
	s.replayed.Store(true)
	s.flush(t.Context(), s.db.Load())
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	workers, err := s.db.Load().Workers(t.Context())
	if err != nil || len(workers) != 2 || workers[1].Name != "rig" || workers[1].Agent != "cgminer" || workers[1].UserName != "ann" ||
		workers[1].Accept1m != difficulties(1) || workers[0].Accept1h != difficulties(1) {
		t.Errorf("%v, rows %+v", err, workers)
	}
	if s.flushed.Load() != noon.Unix() {
		t.Errorf("flushed at %d", s.flushed.Load())
	}
}

// What a row says of the time before is read before the row of who comes back is written, though events name him.
func TestFlushKeepsRecords(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	db, id := s.db.Load(), share.WorkerID("rig")
	before := noon.Add(-20 * time.Minute)
	best := store.Record{Bits: 0x1a00ffff, At: before.Unix()}
	var rows []store.Worker
	for _, worker := range []int64{0, id} {
		rows = append(rows, store.Worker{UserID: 1, WorkerID: worker, LastShareTime: before, FirstShare: 1000, Best: best, RoundBest: best})
	}
	if err := db.UpsertWorkerStats(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	s.connect(t, noon, 1, "ann", "rig", "cgminer")
	s.mine(t, share.Share{UserID: 1, WorkerID: id, Time: noon.Unix(), Status: share.StatusAccept, BitsReached: 0x1c00ffff})
	s.flush(t.Context(), db)
	rows, err := db.Workers(t.Context())
	if err != nil || len(rows) != 2 {
		t.Fatalf("%v, rows %+v", err, rows)
	}
	for _, row := range rows {
		if row.RoundBest != best || row.Accept1m != difficulties(1) {
			t.Errorf("row %+v", row)
		}
	}
	if w := s.board.find(noon, "ann", "rig"); w.First != 1000 || w.RoundBest != record(best) {
		t.Errorf("%+v", w.past)
	}
}

// A flush that says that all is written has read and written all newcomers, and says so when it could not.
func TestFlushHasAllNewcomers(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	const workers = 2300
	s.board.limit = workers + 1
	db := s.db.Load()
	for i := range int64(workers) {
		s.mine(t, share.Share{UserID: 1, WorkerID: i + 1, Time: noon.Unix(), Status: share.StatusAccept})
	}
	s.flush(t.Context(), db)
	rows, err := db.Workers(t.Context())
	if err != nil || len(rows) != workers+1 || s.flushed.Load() != noon.Unix() {
		t.Fatalf("%v, %d rows of %d workers and their user, flushed at %d", err, len(rows), workers, s.flushed.Load())
	}

	raw, err := sql.Open("sqlite", strings.TrimPrefix(s.cfg.Database.DSN, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	rename := func(from, to string) {
		t.Helper()
		if _, err := raw.ExecContext(t.Context(), "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
			t.Fatal(err)
		}
	}
	rename("users", "elsewhere")
	later := noon.Add(time.Minute)
	s.now = func() time.Time { return later }
	for _, user := range []int32{1, 2} {
		s.mine(t, share.Share{UserID: user, WorkerID: 1, Time: later.Unix(), Status: share.StatusAccept})
	}
	s.flush(t.Context(), db)
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "rows of new workers not read") {
		t.Errorf("ready: %v", err)
	}
	if failed := testutil.ToFloat64(s.metrics.flushes.WithLabelValues("failed")); failed != 1 || s.flushed.Load() != noon.Unix() {
		t.Errorf("%v flushes failed, flushed at %d", failed, s.flushed.Load())
	}
	of := func(user int32) (accepted int64) {
		t.Helper()
		rows, err := db.FindWorkers(t.Context(), []store.WorkerKey{{UserID: user, WorkerID: 1}})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			accepted = row.AcceptCount
		}
		return accepted
	}
	if known, newcomer := of(1), of(2); known != 2 || newcomer != 0 {
		t.Errorf("of who is known %d shares are written, of who is not %d", known, newcomer)
	}
	rename("elsewhere", "users")
	s.flush(t.Context(), db)
	if err := s.Ready(); err != nil || of(2) != 1 || s.flushed.Load() != later.Unix() {
		t.Errorf("ready: %v; %d shares, flushed at %d", err, of(2), s.flushed.Load())
	}
}

// Who keeps the rows of workers for ever keeps those of workers that had a share.
func TestPurgeForEver(t *testing.T) {
	t.Parallel()
	now := time.Now().Add(2 * purgeFor) // rows are written at the database's time
	s := newTestService(t, now)
	s.cfg.WorkersRetention = 0
	db := s.db.Load()
	if err := db.UpsertWorkerStats(t.Context(), []store.Worker{
		{UserID: 1, WorkerID: 1}, {UserID: 1, WorkerID: 2, LastShareTime: now.AddDate(-10, 0, 0)},
	}); err != nil {
		t.Fatal(err)
	}
	s.purge(t.Context(), db)
	workers, err := db.Workers(t.Context())
	if err != nil || len(workers) != 1 || workers[0].WorkerID != 2 {
		t.Errorf("%v, rows %+v", err, workers)
	}
}
