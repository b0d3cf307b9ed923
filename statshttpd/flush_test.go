package statshttpd

import (
	"strings"
	"testing"
	"time"

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
