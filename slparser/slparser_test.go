package slparser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/durable"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
	"btcpool/slparser"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shareLog writes day files.
type shareLog struct {
	*sharefile.Writer
	offset int64
}

func newShareLog(t *testing.T, dir string) *shareLog {
	t.Helper()
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &shareLog{Writer: w}
}

func newShare(user int32, worker int64, at time.Time) share.Share {
	return share.Share{
		JobID: 7, WorkerID: worker, UserID: user, Status: share.StatusAccept, Time: at.Unix(),
		IP: netip.MustParseAddr("192.0.2.1"), Difficulty: 10, Bits: 0x1b00ffff, Height: 840000, Nonce: 0xdeadbeef, SessionID: 42,
	}
}

func (l *shareLog) write(t *testing.T, shares ...share.Share) {
	t.Helper()
	for _, s := range shares {
		l.offset++
		if _, err := l.Add(&bus.Message{Offset: l.offset}, &s, s.AppendBody(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Flush(); err != nil {
		t.Fatal(err)
	}
}

func testConfig(t *testing.T) slparser.Config {
	cfg := slparser.DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.Listen = "127.0.0.1:0"
	cfg.FlushDBInterval = config.Duration(20 * time.Millisecond)
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	return cfg
}

// start runs a service until stop is called or the test ends.
func start(t *testing.T, cfg slparser.Config) (svc *slparser.Service, stop func()) {
	t.Helper()
	svc, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return svc, testkit.Run(t, svc.Run)
}

// run has a mode that exits do its work.
func run(t *testing.T, cfg slparser.Config) error {
	t.Helper()
	svc, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return svc.Run(t.Context())
}

func openStore(t *testing.T, cfg slparser.Config) *store.Store {
	t.Helper()
	db, err := store.Open(t.Context(), cfg.Database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// accepted is the work that a table has for a key and a day.
func accepted(t *testing.T, db *store.Store, day sharefile.Day, user int32, worker int64) bitcoin.Work {
	t.Helper()
	rows, err := db.ReadStats(t.Context(), store.Day, user, worker, int(day), int(day))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		return bitcoin.Work{}
	}
	return rows[0].Accept
}

// shares is the work of n shares of newShare.
func shares(n uint64) bitcoin.Work { return bitcoin.Work{Lo: n << 42} }

func get(t *testing.T, svc *slparser.Service, path string) map[string]any {
	t.Helper()
	res, err := http.Get("http://" + svc.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, res)
}

func decode(t *testing.T, res *http.Response) map[string]any {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/json" {
		t.Errorf("status %s, type %s", res.Status, res.Header.Get("Content-Type"))
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return answer
}

func TestFollowsTwoDays(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.LateShares = config.Duration(24 * time.Hour)
	log := newShareLog(t, cfg.DataDir)
	now := time.Now()
	today, yesterday := sharefile.DayOf(now.Unix()), sharefile.DayOf(now.Unix()-86400)
	log.write(t, newShare(1, 11, now), newShare(1, 11, now.Add(-24*time.Hour)))
	svc, stop := start(t, cfg)
	testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })
	db := openStore(t, cfg)
	testkit.Eventually(t, "both days", func() bool {
		return accepted(t, db, today, 1, 11) == shares(1) && accepted(t, db, yesterday, 1, 11) == shares(1)
	})
	log.write(t, newShare(1, 12, now), newShare(2, 11, now.Add(-24*time.Hour)))
	testkit.Eventually(t, "late shares", func() bool {
		return accepted(t, db, today, 1, 0) == shares(2) && accepted(t, db, yesterday, 0, 0) == shares(2)
	})
	stop()

	log.write(t, newShare(1, 12, now))
	_, stop = start(t, cfg)
	testkit.Eventually(t, "what came meanwhile", func() bool { return accepted(t, db, today, 1, 12) == shares(2) })
	stop()
	rows, err := db.ReadStats(t.Context(), store.Day, 0, 0, int(today), int(today))
	if err != nil || len(rows) != 1 {
		t.Fatalf("%+v, %v", rows, err)
	}
	// Three shares of 2^10 at network difficulty 2^16 and a subsidy of 3.125 BTC.
	score := new(big.Int).Exp(big.NewInt(10), big.NewInt(25), nil)
	score.Div(score.Mul(score, big.NewInt(3)), big.NewInt(64))
	want := store.Stats{
		StatsKey: store.StatsKey{Period: int(today)}, Accept: shares(3), Score: score, EarnSat: big.NewInt(14648438), // 14648437.5, rounded
	}
	if diff := cmp.Diff(want, rows[0], cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }),
		cmp.Comparer(func(a, b map[share.Status]bitcoin.Work) bool { return len(a) == len(b) })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFolderMissing has a data_dir that is not sharelogger's: no statistics would ever come, so it must not seem ready.
func TestFolderMissing(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.DataDir = filepath.Join(cfg.DataDir, "sharelog")
	svc, _ := start(t, cfg)
	testkit.Eventually(t, "the missing folder is told", func() bool {
		err := svc.Ready()
		return err != nil && strings.Contains(err.Error(), `sharelog": there is no such folder: it must be sharelogger's`)
	})
	newShareLog(t, cfg.DataDir)
	testkit.Eventually(t, "ready once the folder is there", func() bool { return svc.Ready() == nil })
}

// TestDatabaseAway has no folder for the database at first.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	folder := filepath.Join(t.TempDir(), "later")
	cfg.Database.DSN = "sqlite:" + filepath.Join(folder, "pool.db")
	log := newShareLog(t, cfg.DataDir)
	now := time.Now()
	svc, _ := start(t, cfg)
	log.write(t, newShare(1, 11, now))
	testkit.Eventually(t, "the share over HTTP", func() bool {
		return accept(t, get(t, svc, "/share_stats?user_id=1&worker_id=11&hour=24"), "11") == 1024
	})
	if err := svc.Ready(); err == nil || !strings.Contains(err.Error(), "database") {
		t.Errorf("ready without a database: %v", err)
	}
	if err := os.Mkdir(folder, 0o750); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })
	db := openStore(t, cfg)
	testkit.Eventually(t, "the share", func() bool { return accepted(t, db, sharefile.DayOf(now.Unix()), 1, 11) == shares(1) })
}

// accept is a worker's accepted difficulty in the first of the hours of an answer.
func accept(t *testing.T, answer map[string]any, worker string) float64 {
	t.Helper()
	data, _ := answer["data"].(map[string]any)
	hours, _ := data[worker].([]any)
	if len(hours) == 0 {
		t.Fatalf("no worker %s in %v", worker, answer)
	}
	return hours[0].(map[string]any)["accept"].(float64)
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	log := newShareLog(t, cfg.DataDir)
	now := time.Now()
	rejected := newShare(1, 11, now)
	rejected.Status = share.StatusLowDifficulty
	log.write(t, newShare(1, 11, now), newShare(2, -5, now), rejected)
	svc, _ := start(t, cfg)
	testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })

	data := get(t, svc, "/")["data"].(map[string]any)
	if keys := slices.Sorted(maps.Keys(data)); !slices.Equal(keys, []string{"pool", "repbytes", "request", "uptime"}) || data["request"] != 1.0 ||
		!strings.HasPrefix(data["uptime"].(string), "0000 d 00 h 0") {
		t.Errorf("%v", data)
	}
	for _, part := range []string{"today", "curr_hour"} {
		keys := slices.Sorted(maps.Keys(data["pool"].(map[string]any)[part].(map[string]any)))
		if !slices.Equal(keys, []string{"accept", "earn", "hashrate_t", "reject", "reject_detail", "reject_rate", "stale"}) {
			t.Errorf("%s has %v", part, keys)
		}
	}
	pool := data["pool"].(map[string]any)["today"].(map[string]any)
	for name, want := range map[string]any{
		"accept": 2048.0, "stale": 0.0, "reject": 1024.0, "reject_detail": map[string]any{"23": 1024.0}, "reject_rate": 1.0 / 3,
		"earn": 9765625.0,
	} {
		if diff := cmp.Diff(want, pool[name]); diff != "" {
			t.Errorf("pool's %s (-want +got):\n%s", name, diff)
		}
	}
	zero := map[string]any{"accept": 0.0, "stale": 0.0, "reject": 0.0, "reject_detail": map[string]any{}, "reject_rate": 0.0, "earn": 0.0}
	hour := func(h float64, m map[string]any) map[string]any {
		out := map[string]any{"hour": h}
		for k, v := range m {
			out[k] = v
		}
		return out
	}
	answer := get(t, svc, "/share_stats?user_id=2&worker_id=-5,99&hour=24,-24,7")
	of5 := map[string]any{"accept": 1024.0, "stale": 0.0, "reject": 0.0, "reject_detail": map[string]any{}, "reject_rate": 0.0, "earn": 4882813.0}
	if diff := cmp.Diff(map[string]any{"err_no": 0.0, "err_msg": "", "data": map[string]any{
		"-5": []any{hour(24, of5), hour(-24, zero), hour(7, zero)},
		"99": []any{hour(24, zero), hour(-24, zero), hour(7, zero)},
	}}, answer); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := accept(t, get(t, svc, "/share_stats?user_id=0&worker_id=0&hour=24"), "0"); got != 2048 {
		t.Errorf("the pool has %v", got)
	}
	var many strings.Builder
	for id := range 30_000 {
		fmt.Fprintf(&many, ",%d", id)
	}
	res, err := http.Post("http://"+svc.Addr().String()+"/share_stats/", "text/plain",
		strings.NewReader("user_id=1&hour=24&worker_id=0"+many.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got := accept(t, decode(t, res), "0"); got != 1024 {
		t.Errorf("user 1 has %v", got)
	}
	form, err := http.PostForm("http://"+svc.Addr().String()+"/share_stats", url.Values{"user_id": {"2"}, "worker_id": {"-5"}, "hour": {"0,24"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := accept(t, decode(t, form), "-5"); got != 0 && got != 1024 { // the hour may be over
		t.Errorf("by a form: worker -5 has %v", got)
	}
	head, err := http.Head("http://" + svc.Addr().String() + "/share_stats?user_id=1&worker_id=0&hour=24")
	if err != nil {
		t.Fatal(err)
	}
	head.Body.Close()
	if head.StatusCode != http.StatusOK || head.Header.Get("Content-Type") != "text/json" || head.ContentLength <= 0 {
		t.Errorf("HEAD: %+v", head)
	}
	for _, query := range []string{"", "?user_id=1", "?user_id=x&worker_id=0&hour=0", "?user_id=1&worker_id=1,,2&hour=0", "?user_id=1&worker_id=0" + strings.Repeat(",0", 500) + "&hour=0" + strings.Repeat(",0", 500)} {
		if diff := cmp.Diff(map[string]any{"err_no": 1.0, "err_msg": "invalid args"}, get(t, svc, "/share_stats"+query)); diff != "" {
			t.Errorf("%.40s (-want +got):\n%s", query, diff)
		}
	}
}

func TestComputeDay(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Day = 20231120
	log := newShareLog(t, cfg.DataDir)
	at := cfg.Day.Start()
	for i := range 50 {
		log.write(t, newShare(1, int64(i%5)+1, at.Add(time.Duration(i)*time.Minute)))
	}
	for range 2 {
		if err := run(t, cfg); err != nil {
			t.Fatal(err)
		}
		if got := accepted(t, openStore(t, cfg), cfg.Day, 0, 0); got != shares(50) {
			t.Errorf("the pool has %s hashes, want %s", got, shares(50))
		}
	}

	// What is not in the file goes.
	db := openStore(t, cfg)
	hour := store.Stats{StatsKey: store.StatsKey{UserID: 1, WorkerID: 99, Period: int(cfg.Day)*100 + 23}, Accept: shares(1)}
	day := hour
	day.Period = int(cfg.Day)
	if err := db.WriteStats(t.Context(), []store.Stats{day}, []store.Stats{hour}); err != nil {
		t.Fatal(err)
	}
	if err := run(t, cfg); err != nil {
		t.Fatal(err)
	}
	if got := accepted(t, db, cfg.Day, 1, 99); !got.IsZero() {
		t.Errorf("a worker who did nothing has %s hashes", got)
	}
	hours, err := db.ReadStats(t.Context(), store.Hour, 1, 99, hour.Period, hour.Period)
	if err != nil || len(hours) != 0 {
		t.Errorf("%d hours of a worker who did nothing: %v", len(hours), err)
	}

	path := sharefile.Path(cfg.DataDir, "BTC", cfg.Day)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[len(file)-12] ^= 1
	if err := os.WriteFile(path, file, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, day := range []sharefile.Day{20231120, 20231121} { // corrupt, missing
		cfg.Day = day
		if err := run(t, cfg); err == nil {
			t.Errorf("%d is computed", day)
		}
	}
}

// damage flips a bit in the middle of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[len(file)/2] ^= 1
	if err := os.WriteFile(path, file, 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedFile has a bit flipped in the middle of a day whose rows are there, and slparser started again: the rows
// stay, and shares that come later count.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.LateShares = config.Duration(24 * time.Hour)
	log := newShareLog(t, cfg.DataDir)
	now := time.Now()
	today := sharefile.DayOf(now.Unix())
	for worker := range int64(9) {
		log.write(t, newShare(1, worker+1, now), newShare(1, worker+1, now))
	}
	db := openStore(t, cfg)
	_, stop := start(t, cfg)
	testkit.Eventually(t, "all rows", func() bool { return accepted(t, db, today, 0, 0) == shares(18) })
	stop()

	damage(t, sharefile.Path(cfg.DataDir, "BTC", today))
	registry := prometheus.NewRegistry()
	svc, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, svc.Run)
	log.write(t, newShare(2, 11, now))
	testkit.Eventually(t, "the new share", func() bool { return accepted(t, db, today, 2, 11) == shares(1) })
	if got := accepted(t, db, today, 0, 0); got != shares(18) {
		t.Errorf("the pool has %s hashes, want %s", got, shares(18))
	}
	for worker := range int64(9) {
		if got := accepted(t, db, today, 1, worker+1); got != shares(2) {
			t.Errorf("worker %d has %s hashes", worker+1, got)
		}
	}
	testkit.Eventually(t, "the damage is told", func() bool {
		return testkit.Metric(t, registry, "btcpool_slparser_damaged_bytes") > 0 && testkit.Metric(t, registry, "btcpool_slparser_days_short") == 1
	})
	log.write(t, newShare(2, 11, now), newShare(2, 11, now), newShare(2, 11, now))
	testkit.Eventually(t, "rows rise again", func() bool { return accepted(t, db, today, 0, 0) == shares(20) })
}

// metered runs a service until stop is called or the test ends.
func metered(t *testing.T, cfg slparser.Config) (metric func(name string) float64, stop func()) {
	t.Helper()
	registry := prometheus.NewRegistry()
	svc, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	stop = testkit.Run(t, svc.Run)
	testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })
	return func(name string) float64 { return testkit.Metric(t, registry, "btcpool_slparser_"+name) }, stop
}

// TestLateShares has shares come to files of past days at any time: while slparser runs, and while it is away.
func TestLateShares(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.LateShares = 0
	log := newShareLog(t, cfg.DataDir)
	now := time.Now()
	ago := func(days int) (time.Time, sharefile.Day) {
		at := now.AddDate(0, 0, -days)
		return at, sharefile.DayOf(at.Unix())
	}
	// More days than are in memory at once, of which the database has none.
	const days = 9
	for n := range days {
		at, _ := ago(n)
		log.write(t, newShare(1, 11, at))
	}
	db := openStore(t, cfg)
	has := func(n int, want uint64) func() bool {
		return func() bool {
			_, day := ago(n)
			return accepted(t, db, day, 0, 0) == shares(want)
		}
	}
	metric, stop := metered(t, cfg)
	for n := range days {
		testkit.Eventually(t, fmt.Sprintf("the day %d days ago", n), has(n, 1))
	}
	testkit.Eventually(t, "all days done", func() bool { return metric("days_waiting") == 0 })
	before := metric("late_files_total")
	at, _ := ago(5)
	log.write(t, newShare(2, 12, at))
	testkit.Eventually(t, "a share of a past day", has(5, 2))
	if got := metric("late_files_total") - before; got != 1 {
		t.Errorf("%v files of past days were counted again", got)
	}
	stop()

	at, _ = ago(7)
	log.write(t, newShare(2, 12, at))
	metric, stop = metered(t, cfg)
	testkit.Eventually(t, "a share that came meanwhile", has(7, 2))
	if got := metric("late_files_total"); got != 1 {
		t.Errorf("%v files of past days were counted again, one has changed", got)
	}
	stop()
}

// TestFileReplaced puts another file in the place of one that was read: it is what counts now.
func TestFileReplaced(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	now := time.Now()
	today := sharefile.DayOf(now.Unix())
	log := newShareLog(t, cfg.DataDir)
	log.write(t, newShare(1, 11, now))
	start(t, cfg)
	db := openStore(t, cfg)
	testkit.Eventually(t, "a share", func() bool { return accepted(t, db, today, 1, 11) == shares(1) })
	dir := t.TempDir()
	newShareLog(t, dir).write(t, newShare(1, 11, now), newShare(1, 11, now), newShare(1, 12, now))
	file, err := os.ReadFile(sharefile.Path(dir, "BTC", today))
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(sharefile.Path(cfg.DataDir, "BTC", today), file, 0o640); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the other file's shares", func() bool {
		return accepted(t, db, today, 1, 11) == shares(2) && accepted(t, db, today, 1, 12) == shares(1)
	})
}

// TestComputeRefuses has a day computed anew of a file that is not what it was: its rows stay unless it is forced, and
// then a file that was not read whole is counted again once it is mended.
func TestComputeRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func([]byte) []byte
		says   string
		left   uint64
		whole  bool // nothing of the file was left out
	}{
		"torn":    {func(b []byte) []byte { return b[:len(b)-5] }, "ends in the middle of a flush", 2, false},
		"empty":   {func([]byte) []byte { return nil }, "holds no share", 0, false},
		"shorter": {func(b []byte) []byte { return b[:len(b)/3] }, "the database 13194139533312", 1, true},
		"damaged": {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "bytes at", 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			cfg.Day = 20231120
			log := newShareLog(t, cfg.DataDir)
			for range 3 { // members of one size
				log.write(t, newShare(1, 11, cfg.Day.Start()))
			}
			if err := run(t, cfg); err != nil {
				t.Fatal(err)
			}
			path := sharefile.Path(cfg.DataDir, "BTC", cfg.Day)
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.change(file), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := run(t, cfg); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			db := openStore(t, cfg)
			if got := accepted(t, db, cfg.Day, 0, 0); got != shares(3) {
				t.Errorf("the pool has %s hashes", got)
			}
			cfg.Force = true
			if err := run(t, cfg); err != nil {
				t.Error(err)
			}
			if got := accepted(t, db, cfg.Day, 0, 0); got != shares(c.left) {
				t.Errorf("the pool has %s hashes, want %s", got, shares(c.left))
			}
			days, err := db.LogBytes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if bytes, known := days[int(cfg.Day)]; known && bytes > 0 != c.whole {
				t.Errorf("%d bytes are noted as counted", bytes)
			}
		})
	}
}

// TestClose wants nothing to be left of a service that has not run: another one has
// its port.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	first, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = first.Addr().String()
	if _, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop()}); err == nil || !strings.Contains(err.Error(), "listen = ") {
		t.Errorf("two at one port: %v", err)
	}
	for range 2 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	second, stop := start(t, cfg)
	get(t, second, "/")
	stop()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func ExampleService_Run() {
	dir, err := os.MkdirTemp("", "slparser")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		panic(err)
	}
	defer w.Close()
	cfg := slparser.DefaultConfig()
	cfg.DataDir, cfg.Day = dir, 20231120
	for i, user := range []int32{1, 2, 1} {
		s := newShare(user, 11, cfg.Day.Start().Add(time.Hour))
		s.Nonce = uint32(i)
		if _, err := w.Add(&bus.Message{Offset: int64(i)}, &s, s.AppendBody(nil)); err != nil {
			panic(err)
		}
	}
	if _, err := w.Flush(); err != nil {
		panic(err)
	}
	for _, user := range []string{"2", "0"} {
		cfg.Print.User = user
		svc, err := slparser.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
		if err != nil {
			panic(err)
		}
		fmt.Println("user", user)
		if err := svc.Run(context.Background()); err != nil {
			panic(err)
		}
	}
	// Output:
	// user 2
	// job=7 ip=192.0.2.1 user=2 worker=11 time=2023-11-20T01:00:00Z height=840000 bits=1b00ffff/65536.000 difficulty=1024 nonce=00000001 session=0000002a version_bits=00000000 status=1798084231/"Share accepted"
	// user 0
	// job=7 ip=192.0.2.1 user=1 worker=11 time=2023-11-20T01:00:00Z height=840000 bits=1b00ffff/65536.000 difficulty=1024 nonce=00000000 session=0000002a version_bits=00000000 status=1798084231/"Share accepted"
	// job=7 ip=192.0.2.1 user=2 worker=11 time=2023-11-20T01:00:00Z height=840000 bits=1b00ffff/65536.000 difficulty=1024 nonce=00000001 session=0000002a version_bits=00000000 status=1798084231/"Share accepted"
	// job=7 ip=192.0.2.1 user=1 worker=11 time=2023-11-20T01:00:00Z height=840000 bits=1b00ffff/65536.000 difficulty=1024 nonce=00000002 session=0000002a version_bits=00000000 status=1798084231/"Share accepted"
}
