// Package storetest proves that a store keeps its promises, whatever engine is under it.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// Run runs the suite. create returns the DSN of a new, empty database at every call, and the database itself, which it
// closes by t.Cleanup.
func Run(t *testing.T, create func(t *testing.T) (dsn string, db *sql.DB)) {
	open := func(t *testing.T) (*store.Store, *sql.DB) {
		t.Helper()
		dsn, db := create(t)
		return openStore(t, dsn), db
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, *store.Store)
	}{
		{"blocks", testBlocks},
		{"block count", testBlockCount},
		{"merged blocks", testMergedBlocks},
		{"users", testUsers},
		{"users at once", testUsersAtOnce},
		{"stats", testStats},
		{"stats limits", testStatsLimits},
		{"stats in bulk", testStatsBulk},
		{"stats of a day replaced", testReplaceDay},
		{"stats are not lowered", testStatsNotLowered},
		{"length of the share log", testLogBytes},
		{"stats purged", testPurgeStats},
		{"many stats purged", testPurgeMany},
		{"stats purged by a wrong clock", testPurgeBelievesNoClock},
		{"workers", testWorkers},
		{"worker names", testWorkerNames},
		{"some workers", testSomeWorkers},
		{"workers purged", testPurge},
		{"records of workers", testRecords},
		{"recent workers", testRecentWorkers},
		{"minutes", testMinutes},
		{"work of hours", testHours},
		{"work of days", testDays},
		{"ended context", testEndedContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := open(t)
			test.run(t, s)
		})
	}
	t.Run("stats updated by btcpool", func(t *testing.T) {
		s, db := open(t)
		testUpdatedStats(t, s, db)
	})
	t.Run("work in SQL and in Go", func(t *testing.T) {
		s, db := open(t)
		testSumsAreReadings(t, s, db)
	})
	t.Run("reject reasons", func(t *testing.T) {
		s, db := open(t)
		testReasons(t, s, db)
	})
	for name, run := range map[string]func(*testing.T, *store.Store){
		"blocks": testBlocks, "merged blocks": testMergedBlocks, "users": testUsers, "stats": testStats, "workers": testWorkers,
		"records of workers": testRecords, "minutes": testMinutes,
	} {
		t.Run("schema of a later version: "+name, func(t *testing.T) {
			dsn, db := create(t)
			openStore(t, dsn)
			migrateLater(t, db)
			run(t, openStore(t, dsn))
		})
	}
}

func openStore(t *testing.T, dsn string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, s.Close()) })
	return s
}

// migrateLater does what migrations of versions to come may do, so that this one can still be gone back to: they add.
func migrateLater(t *testing.T, db *sql.DB) {
	t.Helper()
	statements := []string{
		"CREATE TABLE of_later (id INTEGER PRIMARY KEY)",
		"INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)",
	}
	for _, table := range []string{
		"found_blocks", "found_nmc_blocks", "mining_workers", "stats_minutes", "stats_pool_day", "stats_pool_hour", "stats_users_day",
		"stats_users_hour", "stats_workers_day", "stats_workers_hour", "users",
	} {
		statements = append(statements, "ALTER TABLE "+table+" ADD COLUMN of_later INTEGER NOT NULL DEFAULT 1")
	}
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// numbers compares big integers by value.
var numbers = cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, numbers, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// returns checks that a call succeeds and returns want.
func returns[T any](t *testing.T, want T) func(got T, err error) {
	t.Helper()
	return func(got T, err error) {
		t.Helper()
		check(t, err)
		equal(t, got, want)
	}
}

func block(n int) store.Block {
	return store.Block{
		UserID: 7, WorkerID: -9127309812730981273, WorkerName: "alice.rig1", JobID: 1<<63 + uint64(n), Height: int32(900000 + n),
		Hash: fmt.Sprintf("%064x", n), RewardSat: 312500000, Size: 1500000, PrevHash: fmt.Sprintf("%064x", n-1),
		Bits: 0xffffffff, Version: -536870912, CreatedAt: time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC), State: store.Submitted,
	}
}

func testBlocks(t *testing.T, s *store.Store) {
	ctx := t.Context()
	one, two, three := block(1), block(2), block(3)
	two.SubPool = strings.Repeat("f", 64)
	for _, b := range []store.Block{one, two, three} {
		check(t, s.AddBlock(ctx, b))
	}
	again := two
	again.UserID, again.State = 8, store.Accepted
	check(t, s.AddBlock(ctx, again)) // changes nothing

	returns(t, []store.Block{three, two})(s.Blocks(ctx, 2, 0))
	returns(t, []store.Block{one})(s.Blocks(ctx, 2, 2))

	check(t, s.SettleBlock(ctx, one.Hash, store.Accepted))
	check(t, s.SetBlockState(ctx, one.Hash, store.Confirmed, 100))
	check(t, s.SettleBlock(ctx, one.Hash, store.Rejected)) // is settled
	check(t, s.SetBlockState(ctx, two.Hash, store.Accepted, 3))
	check(t, s.SetBlockState(ctx, two.Hash, store.Accepted, 3)) // a row that stays as it is was found all the same
	two.State, two.Confirmations = store.Accepted, 3
	returns(t, []store.Block{two, three})(s.OpenBlocks(ctx, 10))
	returns(t, []store.Block{two})(s.OpenBlocks(ctx, 1))

	if err := s.SetBlockState(ctx, block(4).Hash, store.Accepted, 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("state of an unknown block: %v, want ErrNotFound", err)
	}

	long := block(5)
	long.WorkerName = strings.Repeat("é", 300)
	check(t, s.AddBlock(ctx, long))
	long.WorkerName = strings.Repeat("é", 255)
	returns(t, []store.Block{long})(s.Blocks(ctx, 1, 0))
}

func testMergedBlocks(t *testing.T, s *store.Store) {
	ctx := t.Context()
	one := store.MergedBlock{
		ParentHash: block(1).Hash, Hash: fmt.Sprintf("%064x", 100), Chain: "namecoin", Proof: "00ff", Response: "rejected",
		CreatedAt: time.Date(2026, 3, 1, 23, 59, 59, 0, time.UTC),
	}
	two := one
	two.Hash, two.Chain, two.Proof, two.Response = fmt.Sprintf("%064x", 200), strings.Repeat("é", 21), "", strings.Repeat("x", 300)
	check(t, s.AddMergedBlock(ctx, one))
	check(t, s.AddMergedBlock(ctx, two))
	one.ParentHash, one.Proof, one.Response, one.State = block(2).Hash, "0102", "true", store.Accepted // another share solved it better
	check(t, s.AddMergedBlock(ctx, one))
	late := one // once a node has it, a refusal of the same changes nothing
	late.ParentHash, late.Response, late.State = block(3).Hash, "duplicate", store.Rejected
	check(t, s.AddMergedBlock(ctx, late))

	two.Chain, two.Response, two.State = strings.Repeat("é", 20), strings.Repeat("x", 255), store.Submitted
	returns(t, []store.MergedBlock{two, one})(s.MergedBlocks(ctx, 10, 0))
	returns(t, []store.MergedBlock{two})(s.MergedBlocks(ctx, 1, 0))
	returns(t, []store.MergedBlock{one})(s.MergedBlocks(ctx, 1, 1))
	returns(t, int64(2))(s.MergedBlockCount(ctx))

	returns(t, []store.MergedBlock{one, two})(s.OpenMergedBlocks(ctx, 10))
	check(t, s.SetMergedBlockState(ctx, two.Hash, store.Orphaned, 0))
	check(t, s.SetMergedBlockState(ctx, one.Hash, store.Accepted, 5))
	one.Confirmations, two.State = 5, store.Orphaned
	returns(t, []store.MergedBlock{one})(s.OpenMergedBlocks(ctx, 10))
	returns(t, []store.MergedBlock{two, one})(s.MergedBlocks(ctx, 10, 0))
	if err := s.SetMergedBlockState(ctx, block(4).Hash, store.Accepted, 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("state of an unknown block: %v, want ErrNotFound", err)
	}
}

func testBlockCount(t *testing.T, s *store.Store) {
	ctx := t.Context()
	returns(t, map[store.BlockState]int64{})(s.BlockCount(ctx))
	for n := range 5 {
		check(t, s.AddBlock(ctx, block(n)))
	}
	check(t, s.SetBlockState(ctx, block(0).Hash, store.Orphaned, 0))
	check(t, s.SetBlockState(ctx, block(1).Hash, store.Rejected, 0))
	check(t, s.SetBlockState(ctx, block(2).Hash, store.Orphaned, 0))
	check(t, s.SetBlockState(ctx, block(2).Hash, store.Accepted, 1)) // back by a reorganisation
	returns(t, map[store.BlockState]int64{store.Submitted: 2, store.Orphaned: 1, store.Rejected: 1, store.Accepted: 1})(s.BlockCount(ctx))
}

func testUsers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	if _, err := s.UserID(ctx, "alice", false); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown user: %v, want ErrNotFound", err)
	}
	want := make(map[string]int32)
	for _, name := range []string{"alice", "Alice", "bob", strings.Repeat("x", 255), "jürgen", "jurgen"} {
		id, err := s.UserID(ctx, name, true)
		check(t, err)
		if id <= 0 {
			t.Errorf("id of %q is %d, want above 0", name, id)
		}
		want[name] = id
		for _, create := range []bool{true, false} {
			returns(t, id)(s.UserID(ctx, name, create))
		}
	}
	returns(t, want)(s.Users(ctx))

	paged := make(map[string]int32)
	for last := int32(0); ; {
		page, err := s.UsersAfter(ctx, last, 4)
		check(t, err)
		if len(page) == 0 {
			break
		}
		before := last
		for name, id := range page {
			if id <= before {
				t.Errorf("user %s: id %d after %d", name, id, before)
			}
			paged[name], last = id, max(last, id)
		}
	}
	equal(t, paged, want)

	for _, name := range []string{"", " alice", "alice ", strings.Repeat("x", 256), "\xff"} {
		if id, err := s.UserID(ctx, name, true); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("name %q: id %d, error %v, want refusal", name, id, err)
		}
	}
}

func testUsersAtOnce(t *testing.T, s *store.Store) {
	const starters, names = 8, 5
	ids := make([][names]int32, starters)
	var wg sync.WaitGroup
	for i := range starters {
		wg.Go(func() {
			for n := range names {
				id, err := s.UserID(t.Context(), fmt.Sprint("user", n), true)
				if err != nil {
					t.Error(err)
				}
				ids[i][n] = id
			}
		})
	}
	wg.Wait()
	for _, got := range ids {
		equal(t, got, ids[0])
	}
	users, err := s.Users(t.Context())
	check(t, err)
	equal(t, len(users), names)
}

// work is d shares of difficulty 1 and some hashes.
func work(d, hashes uint64) bitcoin.Work {
	return bitcoin.Work{Hi: d >> 32, Lo: d << 32}.Add(bitcoin.Work{Lo: hashes})
}

func number(t *testing.T, digits string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		t.Fatalf("%q is no number", digits)
	}
	return n
}

func testStats(t *testing.T, s *store.Store) {
	ctx := t.Context()
	of := func(user int32, worker int64, period int) store.Stats {
		return store.Stats{
			StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: period},
			Accept:   work(uint64(period), 5), Stale: work(3, 0), Reject: work(0, 77),
			RejectDetail: map[share.Status]bitcoin.Work{23: work(12345, 0), 22: work(0, 0)},
			Score:        number(t, "1234567890123456789012345"), EarnSat: number(t, "123456789012345678901"),
		}
	}
	pool, user, worker, other := of(0, 0, 20260301), of(7, 0, 20260301), of(7, -5, 20260301), of(8, 5, 20260301)
	hours := []store.Stats{of(7, -5, 2026030100), of(7, -5, 2026030123), of(0, 0, 2026030123)}
	check(t, s.WriteStats(ctx, []store.Stats{pool, user, worker, other}, hours))
	check(t, s.WriteStats(ctx, nil, nil))

	read := func(kind store.StatsKind, user int32, worker int64, from, to int) []store.Stats {
		t.Helper()
		got, err := s.ReadStats(ctx, kind, user, worker, from, to)
		check(t, err)
		return got
	}
	equal(t, read(store.Day, 0, 0, 20260301, 20260301), []store.Stats{pool})
	equal(t, read(store.Day, 7, 0, 20260201, 20260401), []store.Stats{user})
	equal(t, read(store.Day, 7, -5, 0, 99999999), []store.Stats{worker})
	equal(t, read(store.Day, 7, -5, 20260302, 99999999), []store.Stats{})
	equal(t, read(store.Hour, 7, -5, 2026030100, 2026030123), hours[:2])
	equal(t, read(store.Hour, 0, 0, 2026030100, 2026030123), hours[2:])

	worker.Accept, worker.RejectDetail, worker.Score, worker.EarnSat = work(30_000_000, 0), nil, number(t, "0"), number(t, "0")
	rewritten := worker
	rewritten.Score, rewritten.EarnSat = nil, nil
	check(t, s.WriteStats(ctx, []store.Stats{rewritten}, nil)) // values are absolute
	equal(t, read(store.Day, 7, -5, 20260301, 20260301), []store.Stats{worker})
	equal(t, read(store.Day, 8, 5, 20260301, 20260301), []store.Stats{other})
}

// testUpdatedStats has btcpool's slparser count on in our rows: it knows no column of hashes.
func testUpdatedStats(t *testing.T, s *store.Store, db *sql.DB) {
	ours := store.Stats{StatsKey: store.StatsKey{Period: 20260301}, Accept: work(5, 1<<31), Stale: work(0, 1), Reject: work(7, 0)}
	check(t, s.WriteStats(t.Context(), []store.Stats{ours}, nil))
	_, err := db.ExecContext(t.Context(), "UPDATE stats_pool_day SET share_accept = 2000000, share_reject = 0 WHERE day = 20260301")
	check(t, err)
	read := func() []bitcoin.Work {
		t.Helper()
		all, err := s.ReadStats(t.Context(), store.Day, 0, 0, 20260301, 20260301)
		check(t, err)
		if len(all) != 1 {
			t.Fatalf("%d rows, want 1", len(all))
		}
		return []bitcoin.Work{all[0].Accept, all[0].Stale, all[0].Reject}
	}
	equal(t, read(), []bitcoin.Work{work(2_000_000, 0), work(0, 1), {}})
	check(t, s.WriteStats(t.Context(), []store.Stats{ours}, nil))
	equal(t, read(), []bitcoin.Work{work(2_000_000, 0), work(0, 1), {}}) // theirs is more
	ours.Accept = work(2_000_000, 1<<31)
	check(t, s.WriteStats(t.Context(), []store.Stats{ours}, nil))
	equal(t, read(), []bitcoin.Work{ours.Accept, ours.Stale, ours.Reject})
}

// testSumsAreReadings wants the sums that SQL makes to be those of the rows that are read, ours, btcpool's, and ours that
// btcpool has counted on in.
func testSumsAreReadings(t *testing.T, s *store.Store, db *sql.DB) {
	const updated = "UPDATE stats_%s_hour SET share_accept = %d WHERE hour = %d"
	for i, row := range []struct {
		accept bitcoin.Work
		update int64 // of whole difficulties, without hashes; -1: none
	}{
		{work(0, 0), -1},
		{work(0, 1), -1},
		{work(0, 1<<32-1), -1},
		{work(1, 0), -1},
		{work(5, 1<<31), -1},
		{work(30_000_000, 1<<32-1), -1},
		{work(1<<50, 1<<32-1), -1},
		{work(1<<62, 1<<32-1), -1},
		{work(0, 0), 7},
		{work(5, 1<<31), 6},
		{work(5, 1<<31), 4},
		{work(5, 1<<31), 0},
		{work(1_000_000, 1<<31), 2_000_000},
		{work(2_000_000, 1<<31), 1_000_000},
		{work(1<<40, 5), 1<<40 + 1},
	} {
		hour := 2026030100 + i
		check(t, s.WriteStats(t.Context(), nil, []store.Stats{
			{StatsKey: store.StatsKey{Period: hour}, Accept: row.accept},
			{StatsKey: store.StatsKey{UserID: 7, WorkerID: 5, Period: hour}, Accept: row.accept},
		}))
		for _, scope := range []string{"pool", "workers"} {
			if row.update >= 0 {
				_, err := db.ExecContext(t.Context(), fmt.Sprintf(updated, scope, row.update, hour))
				check(t, err)
			}
		}
		read, err := s.ReadStats(t.Context(), store.Hour, 7, 5, hour, hour)
		check(t, err)
		sums, err := s.SumHours(t.Context(), hour, hour)
		check(t, err)
		hours, err := s.PoolHours(t.Context(), hour, hour)
		check(t, err)
		if len(read) != 1 || len(hours) != 1 {
			t.Fatalf("%v: %d rows of the worker, %d of the pool", row, len(read), len(hours))
		}
		want := read[0].Accept.Float()
		for _, got := range []float64{sums[store.WorkerKey{UserID: 7, WorkerID: 5}], sums[store.WorkerKey{}], hours[0].Hashes} {
			if got != want {
				t.Errorf("%v: SQL says %v, Go %v", row, got, want)
			}
		}
	}
}

// testStatsNotLowered has rows written by who has read less than who wrote them before.
func testStatsNotLowered(t *testing.T, s *store.Store) {
	ctx := t.Context()
	of := func(accept, stale, reject bitcoin.Work) store.Stats {
		return store.Stats{
			StatsKey: store.StatsKey{UserID: 7, WorkerID: 1, Period: 20260301}, Accept: accept, Stale: stale, Reject: reject,
			RejectDetail: map[share.Status]bitcoin.Work{23: reject}, Score: number(t, accept.String()), EarnSat: number(t, accept.String()),
		}
	}
	has := of(work(999, 5), work(3, 0), work(2, 0))
	check(t, s.WriteStats(ctx, []store.Stats{has}, nil))
	for name, less := range map[string]store.Stats{
		"accepted":                 of(work(998, 0), work(3, 0), work(2, 0)),
		"accepted, in hashes":      of(work(999, 4), work(3, 0), work(2, 0)),
		"accepted, but more stale": of(work(998, 0), work(900, 0), work(2, 0)),
		"stale":                    of(work(999, 5), work(2, 0), work(2, 0)),
		"rejected":                 of(work(999, 5), work(3, 0), work(1, 0)),
	} {
		check(t, s.WriteStats(ctx, []store.Stats{less}, nil))
		got, err := s.ReadStats(ctx, store.Day, 7, 1, 20260301, 20260301)
		check(t, err)
		if len(got) != 1 || got[0].Accept != has.Accept || got[0].Stale != has.Stale || got[0].Reject != has.Reject || got[0].Score.Cmp(has.Score) != 0 {
			t.Errorf("less %s: %+v", name, got)
		}
	}
	for _, more := range []store.Stats{
		of(work(999, 6), work(3, 0), work(2, 0)),
		of(work(999, 6), work(4, 0), work(2, 0)),
		of(work(999, 10), work(4, 0), work(3, 0)), // a digit more
		of(work(1000, 0), work(4, 0), work(1, 0)), // an accepted share changes what those before it count that were not
	} {
		check(t, s.WriteStats(ctx, []store.Stats{more}, nil))
		returns(t, []store.Stats{more})(s.ReadStats(ctx, store.Day, 7, 1, 20260301, 20260301))
	}
}

func testLogBytes(t *testing.T, s *store.Store) {
	ctx := t.Context()
	pool := func(day int) store.Stats {
		return store.Stats{StatsKey: store.StatsKey{Period: day}, Accept: work(1, 0)}
	}
	check(t, s.WriteStats(ctx, []store.Stats{pool(20260301), pool(20260302)}, nil))
	check(t, s.SetLogBytes(ctx, 20260302, 5<<40))
	check(t, s.SetLogBytes(ctx, 20260303, 7))
	returns(t, map[int]int64{20260301: -1, 20260302: 5 << 40})(s.LogBytes(ctx))
	check(t, s.WriteStats(ctx, []store.Stats{pool(20260302)}, nil))
	returns(t, map[int]int64{20260301: -1, 20260302: 5 << 40})(s.LogBytes(ctx))
	check(t, s.OverwriteStats(ctx, []store.Stats{pool(20260302)}, nil))
	check(t, s.SetLogBytes(ctx, 20260302, -1))
	returns(t, map[int]int64{20260301: -1, 20260302: -1})(s.LogBytes(ctx))
}

func testStatsLimits(t *testing.T, s *store.Store) {
	ctx := t.Context()
	most := bitcoin.Work{Hi: 1<<64 - 1, Lo: 1<<64 - 1}
	detail := make(map[share.Status]bitcoin.Work)
	for code := range share.Status(200) {
		detail[code] = work(1<<40+uint64(code), 0)
	}
	huge := store.Stats{
		StatsKey: store.StatsKey{Period: 20260301}, Accept: most, Stale: most, Reject: most, RejectDetail: detail,
		Score: new(big.Int).Lsh(big.NewInt(1), 500), EarnSat: new(big.Int).Lsh(big.NewInt(1), 500),
	}
	check(t, s.WriteStats(ctx, []store.Stats{huge}, nil))
	all, err := s.ReadStats(ctx, store.Day, 0, 0, 20260301, 20260301)
	check(t, err)
	if len(all) != 1 {
		t.Fatalf("%d rows, want 1", len(all))
	}
	got := all[0]
	equal(t, []bitcoin.Work{got.Accept, got.Stale, got.Reject}, []bitcoin.Work{most, most, most})
	nines := number(t, strings.Repeat("9", 35))
	equal(t, []*big.Int{got.Score, got.EarnSat}, []*big.Int{nines, nines})
	if n := len(got.RejectDetail); n < 40 || n >= len(detail) {
		t.Errorf("%d reasons of %d kept", n, len(detail))
	}
	for code, w := range got.RejectDetail {
		equal(t, w, detail[code])
		if int(code) < len(detail)-len(got.RejectDetail) {
			t.Errorf("reason %d kept, though greater ones were not", code)
		}
	}
}

func testStatsBulk(t *testing.T, s *store.Store) {
	const workers = 1201 // more than two statements
	var days []store.Stats
	for w := range int64(workers) {
		days = append(days, store.Stats{StatsKey: store.StatsKey{UserID: 1, WorkerID: w + 1, Period: 20260301}, Accept: work(uint64(w), 1)})
	}
	check(t, s.WriteStats(t.Context(), days, nil))
	for _, w := range []int64{1, 500, 501, workers} {
		got, err := s.ReadStats(t.Context(), store.Day, 1, w, 20260301, 20260301)
		check(t, err)
		if len(got) != 1 || got[0].Accept != days[w-1].Accept {
			t.Errorf("worker %d: %+v", w, got)
		}
	}
}

// testReplaceDay has a day computed anew: rows are lowered, and those go that nobody has worked for.
func testReplaceDay(t *testing.T, s *store.Store) {
	ctx := t.Context()
	of := func(user int32, worker int64, period int, d uint64) store.Stats {
		return store.Stats{
			StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: period}, Accept: work(d, 0), Score: new(big.Int), EarnSat: new(big.Int),
		}
	}
	keys := []store.StatsKey{{}, {UserID: 1}, {UserID: 1, WorkerID: 5}, {UserID: 2}, {UserID: 2, WorkerID: 6}}
	var days, hours []store.Stats
	for _, k := range keys {
		days = append(days, of(k.UserID, k.WorkerID, 20260228, 9), of(k.UserID, k.WorkerID, 20260301, 9), of(k.UserID, k.WorkerID, 20260302, 9))
		hours = append(hours, of(k.UserID, k.WorkerID, 2026022823, 9), of(k.UserID, k.WorkerID, 2026030100, 9),
			of(k.UserID, k.WorkerID, 2026030123, 9), of(k.UserID, k.WorkerID, 2026030200, 9))
	}
	check(t, s.WriteStats(ctx, days, hours))

	// User 2 never worked that day, and everybody's first hour was empty.
	days, hours = nil, nil
	stay := map[store.StatsKey]bool{}
	for _, k := range keys[:3] {
		days = append(days, of(k.UserID, k.WorkerID, 20260301, 7))
		hours = append(hours, of(k.UserID, k.WorkerID, 2026030123, 7))
		stay[days[len(days)-1].StatsKey], stay[hours[len(hours)-1].StatsKey] = true, true
	}
	check(t, s.OverwriteStats(ctx, days, hours))
	stays := func(_ store.StatsKind, k store.StatsKey) bool { return stay[k] }
	check(t, s.DropStats(ctx, 20260301, len(stay), stays))
	for i, k := range keys {
		wantDays := []store.Stats{of(k.UserID, k.WorkerID, 20260228, 9), of(k.UserID, k.WorkerID, 20260302, 9)}
		wantHours := []store.Stats{of(k.UserID, k.WorkerID, 2026022823, 9), of(k.UserID, k.WorkerID, 2026030200, 9)}
		if i < 3 {
			wantDays = []store.Stats{wantDays[0], days[i], wantDays[1]}
			wantHours = []store.Stats{wantHours[0], hours[i], wantHours[1]}
		}
		returns(t, wantDays)(s.ReadStats(ctx, store.Day, k.UserID, k.WorkerID, 0, 99999999))
		returns(t, wantHours)(s.ReadStats(ctx, store.Hour, k.UserID, k.WorkerID, 0, 1<<31-1))
	}
	check(t, s.DropStats(ctx, 20260301, len(stay), func(store.StatsKind, store.StatsKey) bool {
		t.Error("rows are looked at, though all stay")
		return true
	}))
}

// testReasons wants what was rejected back by reason to the hash, and by what btcpool says once it has written.
func testReasons(t *testing.T, s *store.Store, db *sql.DB) {
	ctx := t.Context()
	row := store.Stats{
		StatsKey: store.StatsKey{UserID: 7, WorkerID: 5, Period: 2026030112}, Score: new(big.Int), EarnSat: new(big.Int),
		RejectDetail: map[share.Status]bitcoin.Work{share.StatusDuplicate: work(0, 3), share.StatusLowDifficulty: {Hi: 5, Lo: 1<<32 + 1}, 31: work(7, 7)},
	}
	for _, w := range row.RejectDetail {
		row.Reject = row.Reject.Add(w)
	}
	check(t, s.WriteStats(ctx, nil, []store.Stats{row}))
	read := func() map[share.Status]bitcoin.Work {
		t.Helper()
		all, err := s.ReadStats(ctx, store.Hour, 7, 5, 2026030112, 2026030112)
		check(t, err)
		if len(all) != 1 {
			t.Fatalf("%d rows, want 1", len(all))
		}
		return all[0].RejectDetail
	}
	equal(t, read(), row.RejectDetail)
	_, err := db.ExecContext(ctx, `UPDATE stats_workers_hour SET share_reject = share_reject + 1, reject_detail = '{"22":1,"23":21474836481}'`)
	check(t, err)
	equal(t, read(), map[share.Status]bitcoin.Work{22: work(1, 0), 23: work(21474836481, 0)})

	all := store.Stats{StatsKey: store.StatsKey{Period: 20260301}, RejectDetail: map[share.Status]bitcoin.Work{}}
	for _, status := range share.Statuses() {
		if !status.IsAccepted() && !status.IsStale() {
			all.RejectDetail[status] = bitcoin.Work{Hi: 1<<64 - 1, Lo: uint64(status)}
		}
	}
	check(t, s.WriteStats(ctx, []store.Stats{all}, nil))
	rows, err := s.ReadStats(ctx, store.Day, 0, 0, 20260301, 20260301)
	check(t, err)
	equal(t, rows[0].RejectDetail, all.RejectDetail)
}

// testPurgeBelievesNoClock has a clock years ahead of the newest statistics.
func testPurgeBelievesNoClock(t *testing.T, s *store.Store) {
	ctx := t.Context()
	now := time.Date(2026, 5, 10, 12, 30, 0, 0, time.UTC)
	var days []store.Stats
	for _, k := range []store.StatsKey{{}, {UserID: 1, WorkerID: 2}} {
		k.Period = store.Day.Period(now)
		days = append(days, store.Stats{StatsKey: k})
	}
	keep := store.Keep{WorkerHours: 3, WorkerDays: 90, UserHours: 30}
	check(t, s.PurgeStats(ctx, now, keep)) // of an empty table
	check(t, s.WriteStats(ctx, days, nil))
	check(t, s.PurgeStats(ctx, now.AddDate(10, 0, 0), keep))
	got, err := s.ReadStats(ctx, store.Day, 1, 2, 0, 1<<31-1)
	check(t, err)
	equal(t, len(got), 1)
}

// testPurgeMany has more old rows than go at once.
func testPurgeMany(t *testing.T, s *store.Store) {
	ctx := t.Context()
	now := time.Date(2026, 5, 10, 12, 30, 0, 0, time.UTC)
	days, hours := []store.Stats{{StatsKey: store.StatsKey{Period: store.Day.Period(now)}}}, []store.Stats(nil)
	for w := range int64(350) {
		for h := range 10 {
			at := now.AddDate(0, 0, -4).Add(time.Duration(h*12) * time.Hour) // six of ten are older than a day
			hours = append(hours, store.Stats{StatsKey: store.StatsKey{UserID: 1, WorkerID: w + 1, Period: store.Hour.Period(at)}})
		}
	}
	check(t, s.WriteStats(ctx, days, hours))
	check(t, s.PurgeStats(ctx, now, store.Keep{WorkerHours: 1, WorkerDays: 90, UserHours: 90}))
	for _, w := range []int64{1, 175, 350} {
		rows, err := s.ReadStats(ctx, store.Hour, 1, w, 0, 1<<31-1)
		check(t, err)
		if len(rows) != 4 || rows[0].Period != store.Hour.Period(now.AddDate(0, 0, -1)) {
			t.Errorf("worker %d: %d hours are left", w, len(rows))
		}
	}
}

func testPurgeStats(t *testing.T, s *store.Store) {
	ctx := t.Context()
	now := time.Date(2026, 5, 10, 12, 30, 0, 0, time.UTC)
	day := func(user int32, worker int64, at time.Time) store.Stats {
		return store.Stats{StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: store.Day.Period(at)}}
	}
	hour := func(user int32, worker int64, at time.Time) store.Stats {
		return store.Stats{StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: store.Hour.Period(at)}}
	}
	check(t, s.WriteStats(ctx,
		[]store.Stats{
			day(1, 2, now.AddDate(0, 0, -90)), day(1, 2, now.AddDate(0, 0, -91)),
			day(1, 0, now.AddDate(-5, 0, 0)), day(0, 0, now.AddDate(-5, 0, 0)), day(0, 0, now),
		},
		[]store.Stats{
			hour(1, 2, now.Add(-72*time.Hour)), hour(1, 2, now.Add(-73*time.Hour)),
			hour(1, 0, now.AddDate(0, 0, -30)), hour(1, 0, now.AddDate(0, 0, -30).Add(-time.Hour)),
			hour(0, 0, now.AddDate(-5, 0, 0)),
		}))
	check(t, s.PurgeStats(ctx, now, store.Keep{WorkerHours: 3, WorkerDays: 90, UserHours: 30}))
	for _, want := range []struct {
		kind   store.StatsKind
		user   int32
		worker int64
		rows   int
	}{
		{store.Day, 1, 2, 1},
		{store.Day, 1, 0, 1},
		{store.Day, 0, 0, 2},
		{store.Hour, 1, 2, 1},
		{store.Hour, 1, 0, 1},
		{store.Hour, 0, 0, 1},
	} {
		got, err := s.ReadStats(ctx, want.kind, want.user, want.worker, 0, 1<<31-1)
		check(t, err)
		if len(got) != want.rows {
			t.Errorf("%s of user %d, worker %d: %d rows left, want %d", want.kind, want.user, want.worker, len(got), want.rows)
		}
	}
}

func testWorkers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	busy := store.Worker{
		UserID: 7, WorkerID: -5,
		Accept1m: work(1, 0), Accept5m: work(5, 0), Accept15m: work(15, 0), Accept1h: work(60, 0),
		Stale15m: work(2, 0), Stale1h: work(3, 0), Reject15m: work(4, 0), Reject1h: work(1<<40, 0),
		RejectDetail15m: map[share.Status]bitcoin.Work{23: work(4, 0)},
		RejectDetail1h:  map[share.Status]bitcoin.Work{22: work(1<<39, 0), 23: work(1<<39, 0)},
		AcceptCount:     12, LastShareIP: "203.0.113.9", LastShareTime: time.Date(2026, 3, 1, 12, 0, 1, 0, time.UTC),
	}
	idle := store.Worker{UserID: 7, WorkerID: 9, LastShareIP: "2001:db8:1111:2222:3333:4444:5555:6666"}
	user := store.Worker{UserID: 7, Accept1h: work(60, 0), AcceptCount: 12}
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{busy, idle, user}))
	returns(t, []store.Worker{busy, user, idle})(s.Workers(ctx))

	busy.Accept1m, busy.RejectDetail15m, busy.LastShareIP = work(0, 0), nil, "::1"
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{busy}))
	check(t, s.UpsertWorkerStats(ctx, nil))
	returns(t, []store.Worker{busy, user, idle})(s.Workers(ctx))

	fast := busy
	fast.Accept1h, fast.AcceptCount = bitcoin.Work{Hi: 1<<64 - 1}, 1<<40
	fast.LastShareTime = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	fast.Accept5m = bitcoin.Work{Lo: 1<<33 - 1} // whole difficulties are kept
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{fast}))
	fast.Accept1h, fast.Accept5m, fast.AcceptCount = work(1<<63-1, 0), work(1, 0), 1<<31-1
	fast.LastShareTime = time.Unix(1<<31-1, 0).UTC()
	returns(t, []store.Worker{fast, user, idle})(s.Workers(ctx))
}

func testWorkerNames(t *testing.T, s *store.Store) {
	ctx := t.Context()
	named := store.Worker{UserID: 7, WorkerID: 5, Name: "alice.rig1", UserName: "alice", Agent: "cgminer/4.12"}
	check(t, s.UpsertWorkerNames(ctx, []store.Worker{named})) // before any statistics
	counted := store.Worker{UserID: 7, WorkerID: 5, AcceptCount: 3, LastShareIP: "203.0.113.9"}
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{counted})) // names stay
	want := named
	want.AcceptCount, want.LastShareIP = 3, "203.0.113.9"
	returns(t, []store.Worker{want})(s.Workers(ctx))

	named.Name, named.Agent = strings.Repeat("n", 60), strings.Repeat("ü", 40)
	check(t, s.UpsertWorkerNames(ctx, []store.Worker{named})) // statistics stay
	want.Name, want.Agent = strings.Repeat("n", 50), strings.Repeat("ü", 30)
	returns(t, []store.Worker{want})(s.Workers(ctx))
}

func testSomeWorkers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	var all []store.Worker
	for i := range int64(1200) { // of more than one statement
		all = append(all, store.Worker{UserID: 7, WorkerID: i - 600, LastShareIP: "0.0.0.0"})
	}
	all[3].Accept1h, all[4].Stale1h, all[5].Reject1h = work(1, 0), work(2, 0), work(3, 0)
	check(t, s.UpsertWorkerStats(ctx, all))
	returns(t, all[3:6])(s.BusyWorkers(ctx))

	keys := []store.WorkerKey{{UserID: 8, WorkerID: 1}}
	for _, w := range all {
		keys = append(keys, store.WorkerKey{UserID: w.UserID, WorkerID: w.WorkerID})
	}
	if found, err := s.FindWorkers(ctx, keys); err != nil || len(found) != len(all) {
		t.Errorf("%d workers found, %v", len(found), err)
	}
	returns(t, []store.Worker(nil))(s.FindWorkers(ctx, nil))

	alice, err := s.UserID(ctx, "alice", true)
	check(t, err)
	returns(t, map[int32]string{alice: "alice"})(s.UserNames(ctx, []int32{alice, alice + 1, alice}))
	returns(t, map[int32]string{})(s.UserNames(ctx, nil))
}

func testPurge(t *testing.T, s *store.Store) {
	ctx := t.Context()
	now := time.Now()
	ids := func() (ids []int64) {
		t.Helper()
		workers, err := s.Workers(ctx)
		check(t, err)
		for _, w := range workers {
			ids = append(ids, w.WorkerID)
		}
		return ids
	}
	purge := func(silent, never time.Time, limit, want int) {
		t.Helper()
		if n, err := s.PurgeWorkers(ctx, silent, never, limit); err != nil || n != want {
			t.Errorf("%d purged, %v, want %d", n, err, want)
		}
	}
	var rows []store.Worker
	for i, last := range []time.Time{{}, {}, now.Add(-200 * time.Hour), now.Add(-time.Hour)} {
		rows = append(rows, store.Worker{UserID: 7, WorkerID: int64(i + 1), LastShareTime: last})
	}
	check(t, s.UpsertWorkerStats(ctx, rows)) // now: nothing is old enough whose row is this young
	purge(now.Add(-100*time.Hour), now.Add(-24*time.Hour), 10, 0)
	later := now.Add(time.Minute) // as if the rows had been written long ago
	purge(time.Time{}, later, 1, 1)
	purge(time.Time{}, later, 10, 1)
	if got := ids(); len(got) != 2 || got[0] != 3 {
		t.Errorf("%v are left of those that had a share", got)
	}
	purge(later, later, 10, 2)
	if got := ids(); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

func testRecords(t *testing.T, s *store.Store) {
	ctx := t.Context()
	want := store.Worker{
		UserID: 7, WorkerID: 5, LastShareIP: "192.0.2.1", FirstShare: 1000,
		Best: store.Record{Bits: 0x1a00ffff, At: 1500}, RoundBest: store.Record{Bits: 0x1c00ffff, At: 1900},
	}
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{want}))
	later := want // what knows less, but of a newer round
	later.FirstShare, later.Best = 1800, store.Record{Bits: 0x1b00ffff, At: 1800}
	later.RoundBest = store.Record{Bits: 0x1d00ffff, At: 2000}
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{later}))
	want.RoundBest = later.RoundBest
	returns(t, []store.Worker{want})(s.Workers(ctx))
	later.FirstShare, later.Best = 0, store.Record{} // what knows nothing
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{later}))
	returns(t, []store.Worker{want})(s.Workers(ctx))
	want.FirstShare, want.Best = 900, store.Record{Bits: 0x1900ffff, At: 2500}
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{want}))
	returns(t, []store.Worker{want})(s.Workers(ctx))
}

func testRecentWorkers(t *testing.T, s *store.Store) {
	ctx := t.Context()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	of := func(worker int64, ago time.Duration) store.Worker {
		return store.Worker{UserID: 7, WorkerID: worker, LastShareIP: "192.0.2.1", LastShareTime: at.Add(-ago)}
	}
	user, never := of(0, time.Hour), of(9, 0)
	never.LastShareTime = time.Time{}
	check(t, s.UpsertWorkerStats(ctx, []store.Worker{of(1, 3*time.Hour), of(2, time.Hour), of(3, 2*time.Hour), user, never}))
	returns(t, []store.Worker{user, of(2, time.Hour), of(3, 2*time.Hour)})(s.RecentWorkers(ctx, 3))
	if all, err := s.RecentWorkers(ctx, 10); err != nil || len(all) != 4 {
		t.Errorf("%d rows, %v", len(all), err)
	}
}

func testMinutes(t *testing.T, s *store.Store) {
	ctx := t.Context()
	of := func(user int32, worker int64, hour, from, to int) store.Minutes {
		m := store.Minutes{StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: hour}, From: from, To: to}
		for i := from; i < to; i++ {
			m.Accept[i] = float64(i) * (1 << 40)
		}
		m.Reject[from] = 1 << 32
		return m
	}
	check(t, s.WriteMinutes(ctx, []store.Minutes{of(7, -5, 2026030100, 0, 60), of(7, 0, 2026030100, 0, 60), of(0, 0, 2026030100, 0, 60)}))
	check(t, s.WriteMinutes(ctx, []store.Minutes{of(7, -5, 2026030100, 30, 60), of(7, -5, 2026030101, 30, 60)}))
	check(t, s.WriteMinutes(ctx, nil))
	returns(t, []store.Minutes{of(7, -5, 2026030100, 0, 60), of(7, -5, 2026030101, 30, 60)})(s.ReadMinutes(ctx, 7, -5, 2026030100, 2026030101))
	returns(t, []store.Minutes(nil))(s.ReadMinutes(ctx, 7, -5, 2026030102, 2026030199))
	check(t, s.WriteMinutes(ctx, []store.Minutes{of(7, -5, 2026030101, 0, 60)})) // that knows more
	returns(t, []store.Minutes{of(7, -5, 2026030101, 0, 60)})(s.ReadMinutes(ctx, 7, -5, 2026030101, 2026030101))
	for i, want := range []int{2, 1, 0} {
		if n, err := s.PurgeMinutes(ctx, time.Date(2026, 3, 1, 1, 59, 0, 0, time.UTC), 2); err != nil || n != want {
			t.Errorf("purge %d: %d, %v, want %d", i, n, err, want)
		}
	}
	returns(t, []store.Minutes{of(7, -5, 2026030101, 0, 60)})(s.ReadMinutes(ctx, 7, -5, 0, 2026030199))
}

func testHours(t *testing.T, s *store.Store) {
	ctx := t.Context()
	of := func(user int32, worker int64, hour int, d uint64) store.Stats {
		return store.Stats{StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: hour}, Accept: work(d, 5)}
	}
	check(t, s.WriteStats(ctx, nil, []store.Stats{
		of(0, 0, 2026030100, 1), of(0, 0, 2026030101, 2), of(0, 0, 2026030102, 4),
		of(7, 0, 2026030101, 8), of(7, -5, 2026030100, 16), of(7, -5, 2026030101, 32), of(7, 6, 2026030103, 64),
	}))
	type sums = map[store.WorkerKey]float64
	one := work(1, 5).Float()
	returns(t, sums{
		{}: work(3, 10).Float(), {UserID: 7}: work(8, 5).Float(), {UserID: 7, WorkerID: -5}: work(48, 10).Float(),
	})(s.SumHours(ctx, 2026030100, 2026030101))
	returns(t, []store.HourWork{{Hour: 2026030100, Hashes: one}, {Hour: 2026030101, Hashes: work(2, 5).Float()}})(s.PoolHours(ctx, 0, 2026030101))
}

func testDays(t *testing.T, s *store.Store) {
	ctx := t.Context()
	of := func(user int32, worker int64, day int, d uint64) store.Stats {
		return store.Stats{StatsKey: store.StatsKey{UserID: user, WorkerID: worker, Period: day}, Accept: work(d, 5)}
	}
	check(t, s.WriteStats(ctx, []store.Stats{
		of(7, 0, 20260301, 8), of(7, -5, 20260301, 1), of(7, -5, 20260302, 2), of(7, 6, 20260301, 4), of(7, 9, 20260301, 16),
		of(7, 6, 20260228, 32), of(8, 6, 20260301, 64), of(8, 0, 20260301, 64),
	}, nil))
	returns(t, map[int64]float64{0: work(8, 5).Float(), -5: work(3, 10).Float(), 6: work(4, 5).Float()})(
		s.SumDays(ctx, 7, []int64{-5, 6, 77}, 20260301, 20260302))
	returns(t, map[int64]float64{0: work(64, 5).Float()})(s.SumDays(ctx, 8, nil, 20260301, 20260302))
	returns(t, map[int64]float64{})(s.SumDays(ctx, 9, []int64{6}, 20260301, 20260302))
}

func testEndedContext(t *testing.T, s *store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.AddBlock(ctx, block(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("AddBlock: %v, want context.Canceled", err)
	}
	if err := s.WriteStats(ctx, []store.Stats{{}}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("WriteStats: %v, want context.Canceled", err)
	}
}
