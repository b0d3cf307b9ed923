package slparser

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
)

func TestKnownDays(t *testing.T) {
	t.Parallel()
	got := (&Service{}).knownDays(map[int]int64{
		20260301: 0, 20260302: 77, 20260303: -1, 20260308: 0, 20260309: 0, 20260310: 0,
	}, 20260312)
	want := map[sharefile.Day]counted{20260301: {size: -1}, 20260302: {size: 77}, 20260303: {}, 20260308: {size: -1}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(counted{}, flaws{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// attempt is a slparser that is driven step by step.
type attempt struct {
	*Service
	db *store.Store
}

func begin(t rapid.TB, cfg Config, registry *prometheus.Registry, db *store.Store) attempt {
	t.Helper()
	s, err := New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	return attempt{s, db}
}

func (a attempt) end() {
	for _, f := range a.files {
		f.reader.Close()
	}
	a.Close()
}

// settle works until nothing changes any more.
func (a attempt) settle(t rapid.TB, now time.Time) {
	t.Helper()
	ctx := context.Background()
	if err := a.ask(ctx, a.db); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		waiting, err := a.lookAtFiles(now)
		if err != nil {
			t.Fatal(err)
		}
		for more := true; more; {
			more, _ = a.readFiles() // a damaged end is an error
		}
		a.flush(ctx, a.db)
		if waiting == 0 {
			return
		}
	}
	t.Fatal("files have to wait for ever")
}

// TestDaysShort has the database know more of a day than its file, and wants that told until the file is gone, however
// the day is written meanwhile.
func TestDaysShort(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.DataDir, cfg.Listen, cfg.LateShares = t.TempDir(), "127.0.0.1:0", 0
	cfg.Database.DSN = "sqlite:unused"
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "pool.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const day = sharefile.Day(20220101)
	key := store.StatsKey{Period: int(day)}
	if err := db.WriteStats(t.Context(), []store.Stats{{StatsKey: key, Accept: bitcoin.Work{Hi: 1}}}, nil); err != nil {
		t.Fatal(err)
	}
	w, err := sharefile.OpenWriter(cfg.DataDir, "BTC", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	offset := int64(0)
	write := func(shares int) {
		for range shares {
			s := share.Share{
				JobID: 7, WorkerID: 1, UserID: 1, Status: share.StatusAccept, Time: day.Start().Unix(), IP: netip.MustParseAddr("192.0.2.1"),
				Bits: 0x1b00ffff, Height: 840000, Nonce: uint32(offset),
			}
			if _, err := w.Add(&bus.Message{Offset: offset}, &s, s.AppendBody(nil)); err != nil {
				t.Fatal(err)
			}
			offset++
		}
		if _, err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	registry := prometheus.NewRegistry()
	reader := begin(t, cfg, registry, db)
	defer reader.end()
	now := day.Start().Add(time.Hour)
	look := func() {
		t.Helper()
		if _, err := reader.lookAtFiles(now); err != nil {
			t.Fatal(err)
		}
	}
	short := func(when string, want float64) {
		t.Helper()
		look()
		if got := testkit.Metric(t, registry, "btcpool_slparser_days_short"); got != want {
			t.Errorf("%s: %v days are short, want %v", when, got, want)
		}
	}
	write(1)
	reader.settle(t, now)
	short("file read", 1)

	write(1)
	write(1)
	look()
	if more, err := reader.readFiles(); !more || err != nil {
		t.Fatal(more, err)
	}
	reader.flush(t.Context(), db)
	short("read in part", 1)

	if _, err := reader.readFiles(); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	reader.flush(ended, db)
	short("not written", 1)

	reader.settle(t, now)
	now = now.AddDate(0, 0, 1)
	short("let go of", 1)
	if err := os.Remove(sharefile.Path(cfg.DataDir, "BTC", day)); err != nil {
		t.Fatal(err)
	}
	short("file removed", 0)
}

// TestReadToTheEndLater has rows written before the end of their file is known: how much of it they are of is noted all
// the same, or the next process would take it for one that has grown.
func TestReadToTheEndLater(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.DataDir, cfg.Listen, cfg.LateShares = t.TempDir(), "127.0.0.1:0", 0
	cfg.Database.DSN = "sqlite:unused"
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "pool.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const day = sharefile.Day(20220101)
	w, err := sharefile.OpenWriter(cfg.DataDir, "BTC", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s := share.Share{
		JobID: 7, WorkerID: 1, UserID: 1, Status: share.StatusAccept, Time: day.Start().Unix(), IP: netip.MustParseAddr("192.0.2.1"),
		Bits: 0x1b00ffff, Height: 840000,
	}
	if _, err := w.Add(&bus.Message{}, &s, s.AppendBody(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	reader := begin(t, cfg, prometheus.NewRegistry(), db)
	defer reader.end()
	now := day.Start().AddDate(0, 0, 1)
	if _, err := reader.lookAtFiles(now); err != nil {
		t.Fatal(err)
	}
	if more, err := reader.readFiles(); !more || err != nil {
		t.Fatal(more, err)
	}
	reader.flush(t.Context(), db)
	if more, err := reader.readFiles(); more || err != nil {
		t.Fatal(more, err)
	}
	reader.flush(t.Context(), db)
	info, err := os.Stat(sharefile.Path(cfg.DataDir, "BTC", day))
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := db.LogBytes(t.Context())
	if diff := cmp.Diff(map[int]int64{int(day): info.Size()}, bytes); diff != "" || err != nil {
		t.Errorf("(-want +got):\n%s%v", diff, err)
	}
}

// TestRowsNeverFall damages files at random while writer and reader start again and again. No row ever gets less, none
// has more than there was, and in the end all have what can be read.
func TestRowsNeverFall(t *testing.T) {
	t.Parallel()
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "pool.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	first := sharefile.Day(20220101)
	rapid.Check(t, func(t *rapid.T) {
		const days = 5
		start := first
		now := start.Start().Add(days*24*time.Hour + time.Hour)
		for range 2 * days { // so that one database is enough for all
			first = first.Next()
		}
		dir, err := os.MkdirTemp("", "slparser")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		cfg := DefaultConfig()
		cfg.DataDir, cfg.Listen, cfg.LateShares = dir, "127.0.0.1:0", 0
		cfg.Database.DSN = "sqlite:unused"

		var topic []share.Share
		written := make(map[sharefile.Day]uint64) // shares of the topic
		flush := func(n int) {
			for range n {
				s := share.Share{
					ID: share.ID{Server: 1, Epoch: 1700000000, Seq: uint64(len(topic)) + 1}, JobID: 7, WorkerID: 1, UserID: 1,
					Status: share.StatusAccept, Time: start.Start().Unix() + 86400*rapid.SampledFrom([]int64{0, 0, 0, 1, 2, 3, 4}).Draw(t, "day"),
					IP: netip.MustParseAddr("192.0.2.1"), Bits: 0x1b00ffff, Height: 840000, Nonce: uint32(len(topic)),
				}
				topic = append(topic, s)
				written[sharefile.DayOf(s.Time)]++
			}
			w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			for next := w.Next(); next[0] < int64(len(topic)); next[0]++ {
				s := topic[next[0]]
				if _, err := w.Add(&bus.Message{Offset: next[0]}, &s, s.AppendBody(nil)); err != nil {
					t.Fatal(err)
				}
				if next[0]%7 == 0 {
					if _, err := w.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		had := make(map[store.StatsKey]bitcoin.Work)
		check := func(readable bool) {
			var total uint64
			for day := start; day < first; day = day.Next() {
				for _, k := range []store.StatsKey{{}, {UserID: 1}, {UserID: 1, WorkerID: 1}} {
					var got bitcoin.Work
					rows, err := db.ReadStats(t.Context(), store.Day, k.UserID, k.WorkerID, int(day), int(day))
					if err != nil {
						t.Fatal(err)
					}
					if len(rows) > 0 {
						got = rows[0].Accept
					}
					if k.Period = int(day); got.Cmp(had[k]) < 0 {
						t.Fatalf("%+v fell from %s to %s", k, had[k], got)
					}
					had[k] = got
					if all := (bitcoin.Work{Lo: written[day] << 32}); got.Cmp(all) > 0 {
						t.Fatalf("%+v: %s hashes, more than the %s that there were", k, got, all)
					}
					there := readableShares(t, dir, day)
					if total += there; readable && got.Cmp(bitcoin.Work{Lo: there << 32}) < 0 {
						t.Fatalf("%+v: %s hashes, %d shares can be read", k, got, there)
					}
				}
			}
			if readable && total == 0 {
				t.Fatal("nothing can be read")
			}
		}
		reader := begin(t, cfg, prometheus.NewRegistry(), db)
		defer func() { reader.end() }()
		for range rapid.IntRange(4, 12).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"write", "write", "damage", "read", "read", "restart"}).Draw(t, "step") {
			case "write":
				flush(rapid.IntRange(1, 6).Draw(t, "shares"))
			case "damage":
				days, err := sharefile.Days(dir, "BTC")
				if err != nil {
					t.Fatal(err)
				}
				if len(days) > 0 {
					spoil(t, sharefile.Path(dir, "BTC", days[rapid.SampledFrom([]int{0, 0, len(days) - 1}).Draw(t, "damaged file")]))
				}
			case "read":
				reader.settle(t, now)
				check(false)
			case "restart":
				reader.end()
				reader = begin(t, cfg, prometheus.NewRegistry(), db)
			}
		}
		flush(1)
		reader.settle(t, now)
		reader.settle(t, now) // what the last look let go of in favour of others
		check(true)
		reader.end()
		reader = begin(t, cfg, prometheus.NewRegistry(), db)
		reader.settle(t, now)
		check(true)
	})
}

// spoil flips a bit of a file, or cuts it.
func spoil(t *rapid.T, path string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(file) == 0 {
		return
	}
	at := rapid.IntRange(0, len(file)-1).Draw(t, "at")
	if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
		file = file[:at]
	} else {
		file[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	}
	if err := os.WriteFile(path, file, 0o640); err != nil {
		t.Fatal(err)
	}
}

func readableShares(t *rapid.T, dir string, day sharefile.Day) uint64 {
	t.Helper()
	s := Service{cfg: DefaultConfig(), metrics: newMetrics(prometheus.NewRegistry()), log: zerolog.Nop()}
	s.cfg.DataDir, s.rules.network = dir, mainnet(t)
	_, count, _, err := s.count(t.Context(), day, func(int64, int64) {})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return uint64(count.shares)
}
