package statshttpd

import (
	"fmt"
	"math"
	"testing"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// difficulties is that many shares of difficulty 1.
func difficulties(n uint64) bitcoin.Work { return bitcoin.Work{Lo: n << 32} }

// writeWork writes the pool's statistics of an hour or a day.
func writeWork(t *testing.T, db *store.Store, kind store.StatsKind, at time.Time, n uint64) {
	t.Helper()
	rows := []store.Stats{{StatsKey: store.StatsKey{Period: kind.Period(at)}, Accept: difficulties(n)}}
	days, hours := rows, []store.Stats(nil)
	if kind == store.Hour {
		days, hours = nil, rows
	}
	if err := db.WriteStats(t.Context(), days, hours); err != nil {
		t.Fatal(err)
	}
}

func TestWorkBetween(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	db := s.db.Load()
	for ago := range 10 * 24 { // 1 an hour
		writeWork(t, db, store.Hour, noon.Add(-time.Duration(ago)*time.Hour), 1)
	}
	s.look(t)
	top := noon.Truncate(time.Hour)
	tests := []struct {
		name string
		from time.Time
		want float64
	}{
		{"the hour before", top.Add(-time.Hour), 1},
		{"this morning", top.Add(-11*time.Hour - 15*time.Minute), 11.25},
		{"since midnight", top.Add(-12 * time.Hour), 12},
		{"yesterday evening", top.Add(-15 * time.Hour), 15},
		{"days ago", top.Add(-100*time.Hour - 30*time.Minute), 100.5},
		{"ever", time.Time{}, 10*24 - 1},
	}
	for _, test := range tests {
		if got := s.between(s.ledger.Load().Work, test.from, noon) / hashesPerDifficulty; math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// A young block does not keep the statistics from being read again.
func TestLedgerAfterABlock(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	db := s.db.Load()
	if err := db.AddBlock(t.Context(), store.Block{Hash: fmt.Sprintf("%064d", 1), CreatedAt: noon.Add(-time.Minute)}); err != nil {
		t.Fatal(err)
	}
	s.look(t)
	writeWork(t, db, store.Hour, noon.Add(-time.Hour), 70)
	for _, later := range []time.Duration{s.cfg.FlushDBInterval.Std() - time.Second, s.cfg.FlushDBInterval.Std()} {
		s.now = func() time.Time { return noon.Add(later) }
		s.look(t)
	}
	if got := s.ledger.Load().Work.upTo(noon) / hashesPerDifficulty; got != 70 {
		t.Errorf("the tables have %v shares, want 70", got)
	}
}

// The effort of a round joins statistics of past hours with the shares of this one.
func TestEffort(t *testing.T) {
	t.Parallel()
	now := noon.Add(30 * time.Minute)
	type found struct {
		ago   time.Duration
		state store.BlockState
	}
	tests := []struct {
		name    string
		blocks  []found // oldest first
		want    float64 // in shares, of which one came each second of the last hour
		unknown bool    // when the round began
	}{
		{"no block ever", nil, 90000 + 7000 + 1807, true},
		{"only a rejected one", []found{{time.Minute, store.Rejected}}, 90000 + 7000 + 1807, true},
		{"ten minutes ago", []found{{10 * time.Minute, store.Accepted}}, 600, false},
		{"just now", []found{{0, store.Submitted}}, 0, false},
		{"an orphan counts", []found{{20 * time.Minute, store.Confirmed}, {10 * time.Minute, store.Orphaned}}, 600, false},
		{"within the hour, before it turned", []found{{40 * time.Minute, store.Confirmed}}, 2400, false},
		{"half way through the hour before", []found{{60*time.Minute + 7*time.Second, store.Confirmed}}, 3500 + 1807, false},
		{"yesterday", []found{{36*time.Hour + 30*time.Minute, store.Confirmed}}, 7000 + 1807, false},
	}
	for _, test := range tests {
		s := newTestService(t, now)
		db := s.db.Load()
		writeWork(t, db, store.Hour, now.Add(-time.Hour), 7000)
		writeWork(t, db, store.Hour, now.AddDate(0, 0, -2), 90000)
		for second := range 3600 {
			s.mine(t, share.Share{UserID: 1, WorkerID: 1, Time: now.Unix() - int64(second), Status: share.StatusAccept})
		}
		s.network.Store(&network{Height: 1, Difficulty: 100})
		for i, b := range test.blocks {
			hash := fmt.Sprintf("%064d", i)
			err := db.AddBlock(t.Context(), store.Block{Hash: hash, CreatedAt: now.Add(-b.ago)})
			if err == nil {
				err = db.SetBlockState(t.Context(), hash, b.state, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s.look(t)
		hashes, effort, ok := s.effort(now)
		got := hashes / hashesPerDifficulty
		if last := s.ledger.Load().Last; !ok || math.Abs(effort-got/100) > 1e-9 || (last == nil) != test.unknown {
			t.Errorf("%s: effort %v of %v, known is %t, last block %v", test.name, effort, got, ok, last)
		}
		if math.Abs(got-test.want) > 10 { // the part of a bucket is an estimate
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
