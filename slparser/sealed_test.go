package slparser_test

import (
	"math/big"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/sealed"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
	"btcpool/slparser"
)

// TestSealedDay wants a sealed day, whose file is gone, to give the same rows, with rejected shares between accepted
// ones of several difficulties, by whose order they count, and several that are alike.
func TestSealedDay(t *testing.T) {
	t.Parallel()
	live := testConfig(t)
	live.Day = 20231120
	log := newShareLog(t, live.DataDir)
	random := rand.New(rand.NewPCG(1, 2))
	var all []share.Share
	statuses := []share.Status{share.StatusAccept, share.StatusAccept, share.StatusStale, share.StatusDuplicate, share.StatusAcceptStale}
	for len(all) < 4000 {
		s := newShare(int32(len(all)%3)+1, int64(len(all)%7)+1, live.Day.Start().Add(time.Duration(random.IntN(86400))*time.Second))
		s.Difficulty = bitcoin.Difficulty(10 + random.IntN(12))
		s.Status = statuses[random.IntN(len(statuses))]
		for range 1 + random.IntN(4) {
			all = append(all, s)
		}
	}
	log.write(t, all...)
	gone := testConfig(t)
	gone.Day, gone.DataDir = live.Day, live.DataDir
	rows := func(cfg slparser.Config) (rows []store.Stats) {
		if err := run(t, cfg); err != nil {
			t.Fatal(err)
		}
		db := openStore(t, cfg)
		for user := range int32(4) {
			for worker := range int64(8) {
				day := int(cfg.Day)
				days, err := db.ReadStats(t.Context(), store.Day, user, worker, day, day)
				if err != nil {
					t.Fatal(err)
				}
				hours, err := db.ReadStats(t.Context(), store.Hour, user, worker, day*100, day*100+23)
				if err != nil {
					t.Fatal(err)
				}
				rows = append(append(rows, days...), hours...)
			}
		}
		return rows
	}
	want := rows(live)
	if _, err := sealed.Seal(t.Context(), live.DataDir, "BTC", live.Day); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(sharefile.Path(live.DataDir, "BTC", live.Day)); err != nil {
		t.Fatal(err)
	}
	got := rows(gone)
	if len(want) < 100 {
		t.Fatalf("%d rows", len(want))
	}
	big := cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })
	if diff := cmp.Diff(want, got, big); diff != "" {
		t.Errorf("(-live +sealed):\n%s", diff)
	}
}

// TestLateToSealed wants shares that come to a sealed day whose file is gone to leave its rows as they are, until all of
// the day is computed.
func TestLateToSealed(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Day = sharefile.DayOf(time.Now().Unix()).Before()
	log := newShareLog(t, cfg.DataDir)
	log.write(t, day(500, cfg.Day.Start())...)
	if _, err := sealed.Seal(t.Context(), cfg.DataDir, "BTC", cfg.Day); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(sharefile.Path(cfg.DataDir, "BTC", cfg.Day)); err != nil {
		t.Fatal(err)
	}
	if err := run(t, cfg); err != nil {
		t.Fatal(err)
	}
	logged := func() int64 {
		days, err := openStore(t, cfg).LogBytes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return days[int(cfg.Day)]
	}
	if got := logged(); got != -1 {
		t.Errorf("log_bytes %d of a day that has no file, want -1", got)
	}
	want := dump(t, cfg)

	log.write(t, newShare(1, 1, cfg.Day.Start()), newShare(77, 7, cfg.Day.Start()))
	late, err := os.Stat(sharefile.Path(cfg.DataDir, "BTC", cfg.Day))
	if err != nil {
		t.Fatal(err)
	}
	follow, registry := cfg, prometheus.NewRegistry()
	follow.Day = 0
	svc, err := slparser.New(follow, service.Deps{Log: zerolog.Nop(), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	stop := testkit.Run(t, svc.Run)
	testkit.Eventually(t, "the short day", func() bool { return testkit.Metric(t, registry, "btcpool_slparser_days_short") == 1 })
	stop()
	if diff := cmp.Diff(want, dump(t, cfg)); diff != "" {
		t.Errorf("(-had +has):\n%s", diff)
	}
	if err := run(t, cfg); err != nil {
		t.Fatal(err)
	}
	if got := logged(); got != late.Size() {
		t.Errorf("log_bytes %d, want the %d of the day's file", got, late.Size())
	}
	if accepted(t, openStore(t, cfg), cfg.Day, 77, 7) != shares(1) {
		t.Error("computing the day leaves late shares out")
	}
}

// TestSealedDamaged wants a day's file to be counted, and counted again when it is another one, though what was sealed of
// it cannot be read.
func TestSealedDamaged(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	today := sharefile.DayOf(time.Now().Unix())
	past := today.Before()
	log := newShareLog(t, cfg.DataDir)
	log.write(t, newShare(1, 1, past.Start()))
	if _, err := sealed.Seal(t.Context(), cfg.DataDir, "BTC", past); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sealed.Path(cfg.DataDir, "BTC", past), 100); err != nil {
		t.Fatal(err)
	}
	svc, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, svc.Run)
	db := openStore(t, cfg)
	counted := func(n uint64) func() bool {
		return func() bool { return accepted(t, db, past, 1, 1) == shares(n) && svc.Ready() == nil }
	}
	testkit.Eventually(t, "the day's file to be counted", counted(1))

	path := sharefile.Path(cfg.DataDir, "BTC", past)
	log.write(t, newShare(1, 1, past.Start()))
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the file in its place to be counted", counted(2))
}
