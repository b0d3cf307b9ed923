package statshttpd

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// Options that btcpool has too.

func TestAcceptStale(t *testing.T) {
	t.Parallel()
	for _, accept := range []bool{false, true} {
		s := newTestService(t, noon)
		s.cfg.AcceptStale, s.board.acceptStale = accept, accept
		for _, status := range []share.Status{share.StatusAcceptStale, share.StatusAccept, share.StatusStale} {
			s.mine(t, share.Share{UserID: 1, WorkerID: 5, Time: noon.Unix(), Status: status})
		}
		v := s.board.find(noon, "1", "5")
		want := [2]uint64{1, 2}
		if accept {
			want = [2]uint64{2, 1}
		}
		if got := [2]uint64{v.Accepted.Shares, v.Stale.Shares}; got != want {
			t.Errorf("accept_stale is %t: accepted and stale %v, want %v", accept, got, want)
		}
	}
}

func TestSingleUser(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.cfg.SingleUserPUID = 7
	for _, e := range []share.Event{
		{UserID: 7, UserName: "all", ExtUserID: 41, WorkerID: 5, WorkerName: "ann.rig.1"},
		{UserID: 7, UserName: "all", WorkerID: 6, WorkerName: "nobody's"},
		{UserID: 8, UserName: "other", ExtUserID: 42, WorkerID: 6, WorkerName: "bob.rig"},
	} {
		e.Time, e.Action = noon, share.MinerConnect
		if err := s.handleEvent(bus.Message{Value: e.AppendTo(nil)}, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, one := range []share.Share{{UserID: 7, ExtUserID: 41, WorkerID: 5}, {UserID: 7, WorkerID: 5}, {UserID: 8, ExtUserID: 41, WorkerID: 5}} {
		one.Time, one.Status = noon.Unix(), share.StatusAccept
		s.mine(t, one)
	}
	v := s.board.find(noon, "ann", "rig.1")
	if v == nil || v.UserID != 41 || v.Accepted.Shares != 1 || len(s.board.workers) != 1 {
		t.Errorf("%+v of %d workers", v, len(s.board.workers))
	}
	if got := s.board.pool.acceptedSum(noon.Unix(), hour).Shares; got != 1 {
		t.Errorf("the pool counts %d shares", got)
	}
}

func TestNamesAreOthers(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	s.cfg.UpdateWorkerName = false
	s.cfg.FileLastFlushTime = filepath.Join(t.TempDir(), "flushed")
	id := s.connect(t, noon, 1, "ann", "rig", "cgminer")
	s.mine(t, share.Share{UserID: 1, WorkerID: id, Time: noon.Unix(), Status: share.StatusAccept})
	s.flush(t.Context(), s.db.Load())
	workers, err := s.db.Load().Workers(t.Context())
	if err != nil || len(workers) != 2 || workers[1].Name+workers[0].Name != "" {
		t.Errorf("%v, rows %+v", err, workers)
	}
	if text, err := os.ReadFile(s.cfg.FileLastFlushTime); err != nil || string(text) != strconv.FormatInt(noon.Unix(), 10) {
		t.Errorf("the file says %q, %v", text, err)
	}
}

// Statistics may be in a database of their own.
func TestTwoDatabases(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	stats, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "stats.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stats.Close() })
	s.stats.Store(stats)
	writeWork(t, stats, store.Hour, noon.Add(-time.Hour), 70)
	writeWork(t, s.db.Load(), store.Hour, noon.Add(-time.Hour), 9999)
	s.look(t)
	if got := s.ledger.Load().Work.upTo(noon) / hashesPerDifficulty; got != 70 {
		t.Errorf("the ledger has %v shares", got)
	}
	p := newParts(steps["hour"], noon, 2)
	if err := s.fromTables(t.Context(), p, store.StatsKey{}); err != nil || p.accepted[0] != 70*hashesPerDifficulty {
		t.Errorf("%v, history %v", err, p.accepted)
	}
}
