package statshttpd

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/httpapi"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

var (
	show     = flag.String("show", "", "serve the fixture `name` (farm, empty) on -show-addr until the test's time is over")
	showAddr = flag.String("show-addr", "127.0.0.1:0", "where -show serves")
)

// Names that would be markup, or a script's, if they were anything but text.
const (
	hostileUser   = `</script><script>alert(3)</script>&amp;'"`
	hostileWorker = "<img src=x onerror=alert(1)>"
)

var noon = time.Date(2026, 3, 14, 12, 0, 7, 0, time.UTC)

func testDeps() service.Deps { return service.Deps{Log: zerolog.Nop()} }

// newTestService returns a service that has not been run, whose clock stands at now and whose database is its own.
func newTestService(t testing.TB, now time.Time) *Service {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.StratumURL = "stratum+tcp://pool.example.org:3333"
	cfg.MaxWorkers = 1000
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	s, err := New(cfg, testDeps())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.now = func() time.Time { return now }
	s.started = now.Add(-26*time.Hour - 3*time.Minute)
	s.replayed.Store(true)
	s.countedSince.Store(now.Unix() - int64(hour))
	s.heard.Store(now.Unix())
	db, err := store.Open(t.Context(), cfg.Database.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s.db.Store(db)
	return s
}

// mine delivers a share as the topic does.
func (s *Service) mine(t testing.TB, one share.Share) {
	t.Helper()
	one.JobID, one.Height, one.Bits = 1<<40, 946_123, 0x17023a04
	if err := s.handleShare(bus.Message{Value: one.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
}

func (s *Service) connect(t testing.TB, at time.Time, userID int32, user, name, agent string) int64 {
	t.Helper()
	e := share.Event{
		Time: at, Action: share.MinerConnect, UserID: userID, UserName: user,
		WorkerID: share.WorkerID(name), WorkerName: name, Agent: agent, Desc: "new_conn",
	}
	if err := s.handleEvent(bus.Message{Value: e.AppendTo(nil)}, true); err != nil {
		t.Fatal(err)
	}
	return e.WorkerID
}

// farm fills s with an hour of a small farm on mainnet, and its blocks.
func (s *Service) farm(t *testing.T) {
	t.Helper()
	s.cfg.Network = "mainnet"
	now := s.now()
	random := rand.New(rand.NewPCG(1, 2))
	type rig struct {
		user   int32
		id     int64
		rate   float64 // H/s
		from   time.Duration
		until  time.Duration // before now
		reject float64
	}
	var rigs []rig
	add := func(userID int32, user, name, agent string, terahash float64, from, until time.Duration, reject float64) {
		id := s.connect(t, now.Add(-from), userID, user, name, agent)
		rigs = append(rigs, rig{userID, id, terahash * 1e12, from, until, reject})
	}
	for i := range 9 {
		from := time.Hour - time.Second
		if i > 5 {
			from = 31 * time.Minute
		}
		add(1, "aurora", fmt.Sprintf("s21-%02d", i+1), "bmminer/2.0.0 S21", 198+random.Float64()*8, from, 0, 0.002)
	}
	add(2, "basement", "m60s", "whatsminer/v1.2", 176, time.Hour-time.Second, 0, 0.001)
	add(2, "basement", "bitaxe-gamma", "bitaxe/BM1370/v2.9.1", 1.2, time.Hour-time.Second, 0, 0.004)
	add(2, "basement", "nerdqaxe", "NerdQAxe++", 4.8, 50*time.Minute, 0, 0)
	add(2, "basement", "s19-old", "bmminer/1.0.0", 95, 55*time.Minute, 22*time.Minute, 0.11)
	add(3, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "garage", "cgminer/4.12.1", 14, 40*time.Minute, 0, 0.07)
	add(4, hostileUser, hostileWorker, `<svg onload=alert(2)>"'`, 3, 40*time.Minute, 0, 0.03)
	add(4, hostileUser, "=HYPERLINK(\"https://example.org\")"+strings.Repeat("w", 80), "@SUM(1+1)|x", 2, 40*time.Minute, 0, 0)

	const second = time.Second
	for at := -time.Hour + second; at <= 0; at += second {
		for i, r := range rigs {
			if -at > r.from || -at < r.until {
				continue
			}
			difficulty := bitcoin.DifficultyAtLeast(r.rate * 8 / hashesPerDifficulty)
			wobble := 1 + 0.08*math.Sin(at.Minutes()/7+float64(i))
			if random.Float64() > r.rate*wobble/difficulty.Hashes().Float() {
				continue
			}
			one := share.Share{
				UserID: r.user, WorkerID: r.id, Difficulty: difficulty, Time: now.Add(at).Unix(),
				Status: share.StatusAccept, IP: netip.AddrFrom4([4]byte{192, 168, 1, byte(i + 10)}), ID: share.ID{Server: uint8(1 + i%2)},
				BitsReached: (difficulty + bitcoin.Difficulty(random.ExpFloat64()*math.Log2E)).Target().Bits(),
			}
			if random.Float64() < r.reject {
				one.Status = []share.Status{share.StatusLowDifficulty, share.StatusStale, share.StatusDuplicate}[random.IntN(3)]
			}
			s.mine(t, one)
		}
	}
	s.network.Store(&network{Height: 946_124, Difficulty: 128.4e12, JobTime: now.Add(-11 * time.Second)})
	var known []store.Worker
	for _, r := range rigs {
		known = append(known, store.Worker{UserID: r.user, WorkerID: r.id, LastShareTime: now.Add(-r.until), FirstShare: now.AddDate(0, -5, 0).Unix()})
	}
	known = append(known, store.Worker{
		UserID: 1, WorkerID: share.WorkerID("s17-retired"), Name: "s17-retired", UserName: "aurora", Agent: "bmminer/1.0.0 S17",
		LastShareTime: now.AddDate(0, 0, -3), FirstShare: now.AddDate(-1, 0, 0).Unix(), LastShareIP: "192.168.1.99",
		Best: store.Record{Bits: bitcoin.Difficulty(38).Target().Bits(), At: now.AddDate(0, -2, 0).Unix()},
	})
	for user := range int32(4) {
		known = append(known, store.Worker{
			UserID: user + 1, LastShareTime: now, FirstShare: now.AddDate(-1, 0, 0).Unix(),
			Best: store.Record{Bits: bitcoin.Difficulty(38).Target().Bits(), At: now.AddDate(0, -2, 0).Unix()},
		})
	}
	s.board.learn(now, known, nil)
	series := make(map[store.StatsKey]func(at time.Time) float64) // hashes a second
	for i, r := range rigs {
		series[store.StatsKey{UserID: r.user, WorkerID: r.id}] = func(at time.Time) float64 {
			return r.rate * (1 + 0.05*math.Sin(float64(at.Unix())/9000+float64(i)) + 0.03*random.NormFloat64())
		}
	}
	s.past(t, series)
	s.addBlocks(t)
}

// past writes a year of days, a month of hours and a day of minutes of workers that have mined as fast as series say.
func (s *Service) past(t *testing.T, series map[store.StatsKey]func(at time.Time) float64) {
	t.Helper()
	db, now := s.db.Load(), s.now()
	work := func(hashes float64) bitcoin.Work { return workOf(math.Round(hashes)) }
	rows := func(kind store.StatsKind, long time.Duration, n int) {
		var all []store.Stats
		for i := range n {
			at := now.Truncate(long).Add(-time.Duration(i) * long)
			sums := make(map[store.StatsKey]store.Stats)
			for key, of := range series {
				hashes := of(at) * min(long, now.Sub(at)).Seconds()
				reject := work(hashes * 0.001 * float64(1+i%5))
				for _, k := range []store.StatsKey{key, {UserID: key.UserID}, {}} {
					k.Period = kind.Period(at)
					sum := sums[k]
					sum.StatsKey = k
					sum.Accept, sum.Stale, sum.Reject = sum.Accept.Add(work(hashes)), sum.Stale.Add(work(hashes*0.002)), sum.Reject.Add(reject)
					if sum.RejectDetail == nil {
						sum.RejectDetail = make(map[share.Status]bitcoin.Work)
					}
					reason := []share.Status{share.StatusLowDifficulty, share.StatusDuplicate, share.StatusJobNotFound}[i%3]
					sum.RejectDetail[reason] = sum.RejectDetail[reason].Add(reject)
					sums[k] = sum
				}
			}
			all = slices.AppendSeq(all, maps.Values(sums))
		}
		for chunk := range slices.Chunk(all, 2000) {
			days, hours := chunk, []store.Stats(nil)
			if kind == store.Hour {
				days, hours = nil, chunk
			}
			if err := db.WriteStats(t.Context(), days, hours); err != nil {
				t.Fatal(err)
			}
		}
	}
	rows(store.Day, 24*time.Hour, 366)
	rows(store.Hour, time.Hour, 31*24)
	var minutes []store.Minutes
	for i := 1; i <= 24; i++ {
		start := now.Truncate(time.Hour).Add(-time.Duration(i) * time.Hour)
		sums := make(map[store.StatsKey]*store.Minutes)
		for key, of := range series {
			for minute := range store.MinutesPerHour {
				hashes := of(start.Add(time.Duration(minute)*time.Minute)) * 60
				for _, k := range []store.StatsKey{key, {UserID: key.UserID}, {}} {
					k.Period = store.Hour.Period(start)
					if sums[k] == nil {
						sums[k] = &store.Minutes{StatsKey: k, To: store.MinutesPerHour}
					}
					sums[k].Accept[minute] += math.Round(hashes)
				}
			}
		}
		for m := range maps.Values(sums) {
			minutes = append(minutes, *m)
		}
	}
	if err := db.WriteMinutes(t.Context(), minutes); err != nil {
		t.Fatal(err)
	}
	if err := s.readHours(t.Context(), db); err != nil {
		t.Fatal(err)
	}
}

func (s *Service) addBlocks(t *testing.T) {
	t.Helper()
	db, now := s.db.Load(), s.now()
	blocks := []struct {
		height        int32
		ago           time.Duration
		finder        string
		sat           int64
		state         store.BlockState
		confirmations int64
	}{
		{931_007, 105 * 24 * time.Hour, "aurora.s21-03", 315_820_114, store.Confirmed, 100},
		{938_551, 52 * 24 * time.Hour, "basement.m60s", 314_009_327, store.Confirmed, 100},
		{941_202, 33 * 24 * time.Hour, "aurora.s21-07", 313_377_000, store.Orphaned, 0},
		{944_870, 8 * 24 * time.Hour, "basement.bitaxe-gamma", 312_500_000, store.Confirmed, 100},
		{946_002, 19 * time.Hour, hostileUser + "." + hostileWorker, 319_004_218, store.Rejected, 0},
		{946_088, 6 * time.Hour, "aurora.s21-01", 317_260_551, store.Accepted, 36},
		{946_119, 41 * time.Minute, "aurora.s21-05", 314_158_926, store.Accepted, 5},
		{946_123, 4 * time.Second, "aurora.s21-02", 315_000_777, store.Submitted, 0},
	}
	for i, b := range blocks {
		hash := fmt.Sprintf("0000000000000000000%045x", uint64(b.height)*0x9e3779b97f4a7c15)
		if err := db.AddBlock(t.Context(), store.Block{
			UserID: 1, WorkerID: int64(i + 1), WorkerName: b.finder, JobID: uint64(i + 1), Height: b.height, Hash: hash,
			RewardSat: b.sat, Size: 1_500_000, PrevHash: hash, Bits: 0x17023a04, Version: 0x20000000, CreatedAt: now.Add(-b.ago),
			SubPool: map[int32]string{946_119: "farm"}[b.height],
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.SetBlockState(t.Context(), hash, b.state, b.confirmations); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range []store.MergedBlock{
		{Chain: "nmc", CreatedAt: now.Add(-50 * time.Hour), State: store.Confirmed, Confirmations: 100},
		{Chain: hostileWorker, CreatedAt: now.Add(-9 * time.Hour), State: store.Orphaned},
		{Chain: "rsk", CreatedAt: now.Add(-7 * time.Minute), State: store.Accepted, Confirmations: 3},
	} {
		b.Hash, b.ParentHash = fmt.Sprintf("%064x", i+7), fmt.Sprintf("%064x", i+70)
		if err := db.AddMergedBlock(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	s.look(t)
}

// look reads the ledger.
func (s *Service) look(t testing.TB) {
	t.Helper()
	l, err := s.readLedger(t.Context(), s.db.Load(), s.ledger.Load())
	if err != nil {
		t.Fatal(err)
	}
	s.ledger.Store(l)
}

// TestShow is for looking at the page in a browser: it serves a fixture until shortly before -timeout.
func TestShow(t *testing.T) {
	if *show == "" {
		t.Skip("only with -show")
	}
	s := newTestService(t, time.Now().Truncate(time.Second))
	if *show == "farm" {
		s.farm(t)
	} else {
		s.network.Store(&network{Height: 946_124, Difficulty: 128.4e12, JobTime: s.now()})
		s.look(t)
	}
	ln, err := net.Listen("tcp", *showAddr)
	if err != nil {
		t.Fatal(err)
	}
	deadline, ok := t.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Hour)
	}
	ctx, cancel := context.WithDeadline(t.Context(), deadline.Add(-time.Second))
	defer cancel()
	turned := make(chan struct{})
	go func() {
		defer close(turned)
		s.turnEvents(ctx)
	}()
	defer func() { <-turned }()
	t.Logf("http://%s/", ln.Addr())
	if err := httpapi.Serve(ctx, ln, s.Handler(), time.Second); err != nil {
		t.Fatal(err)
	}
}
