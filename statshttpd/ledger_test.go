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

func TestReadWork(t *testing.T) {
	t.Parallel()
	s := newTestService(t, noon)
	db := s.db.Load()
	for day := range 10 { // 1 an hour, 24 a day
		start := noon.Truncate(24*time.Hour).AddDate(0, 0, -day)
		writeWork(t, db, store.Day, start, 24)
		for hour := range 24 {
			writeWork(t, db, store.Hour, start.Add(time.Duration(hour)*time.Hour), 1)
		}
	}
	top := noon.Truncate(time.Hour)
	tests := []struct {
		name string
		from time.Time
		want float64
	}{
		{"this hour", top.Add(time.Minute), 0},
		{"the hour before", top.Add(-time.Hour), 1},
		{"half of the hour before", top.Add(-30 * time.Minute), 0.5},
		{"this morning", top.Add(-11*time.Hour - 15*time.Minute), 11.25},
		{"since midnight", top.Add(-12 * time.Hour), 12},
		{"yesterday evening", top.Add(-15 * time.Hour), 15},
		{"days ago", top.Add(-100*time.Hour - 30*time.Minute), 100.5},
		{"ever", time.Time{}, 9*24 + 12},
	}
	for _, test := range tests {
		got, err := readWork(t.Context(), db, test.from, top)
		if err != nil || math.Abs(got/hashesPerDifficulty-test.want) > 1e-9 {
			t.Errorf("%s: %v, %v, want %v", test.name, got/hashesPerDifficulty, err, test.want)
		}
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
		writeWork(t, db, store.Day, now.AddDate(0, 0, -1), 90000)
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
