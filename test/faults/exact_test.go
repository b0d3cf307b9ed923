//go:build integration

package faults

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/spool"
	"btcpool/internal/store"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

var (
	exactShares = flag.Int("exact.shares", 300_000, "TestExact: how many shares are acknowledged")
	exactSeed   = flag.Uint64("exact.seed", exactEveryKind, "TestExact: what shares and faults are drawn from")
)

const (
	exactEveryKind = 312 // a seed that draws each kind once at least: see TestSeedsDrawEveryKind
	exactServers   = 3
	exactDays      = 3
	exactGroup     = 500 // shares that a server acknowledges together
	// Faults are drawn so often, or more for many shares, and as many parts of the shares are acknowledged while they
	// last.
	exactDraughts     = 6
	exactDraughtEvery = 100_000 // shares
	// exactSeals is about how often a day is sealed meanwhile.
	exactSeals = 10
)

// exactKinds are those faults that destroy nothing by their nature and leave the order of a worker's shares alone.
var exactKinds = []string{"kill", "stop", "disk", "clock", "drift", "kafka", "database"}

var exactServices = []string{"sharelogger", "slparser", "statshttpd"}

// TestExact has shares of several days, of all statuses, from as many servers, acknowledged by the spools that sserver
// has, while faults of all kinds meet whoever logs, counts and shows them, and days are sealed. In the end acknowledged
// shares, log, tables and the API are the same to the hash, and so is what is computed of the sealed days alone.
//
//	go test -tags integration -count=1 -v -timeout 2h -run TestExact ./test/faults -exact.shares 5000000 -exact.seed 7
func TestExact(t *testing.T) {
	t.Parallel()
	dir, began := t.TempDir(), time.Now()
	w := &world{
		t: t, dir: dir, began: began, clocks: map[string]*rig.Clock{}, kafka: rig.StartKafka(t, dir), db: rig.StartMariaDB(t, dir),
	}
	for _, service := range exactServices {
		w.clocks[service] = rig.NewClock(t)
	}
	topic := bus.DefaultConfig()
	topic.Brokers, topic.Partitions = []string{w.kafka.Addr}, 3
	client := testkit.Bus(t, topic, shareTopic)
	w.pool = rig.Setup{Kafka: w.kafka, DB: w.db, Clocks: w.clocks, Only: exactServices}.Start(t, dir)

	draughts := max(exactDraughts, *exactShares/exactDraughtEvery)
	books, servers := newBooks(), startServers(t, dir, client, *exactShares, draughts)
	var producing sync.WaitGroup
	for _, s := range servers {
		producing.Go(func() { s.produce(t, books) })
	}
	rng := exactRand(*exactSeed)
	sealedTimes := 0
	for _, d := range drawExact(rng, draughts) {
		for _, s := range servers {
			s.more <- s.shares / draughts
		}
		w.endure(d)
		w.faults += len(d.faults)
		if rng.IntN(draughts) < exactSeals && w.sealSome(t, books, rng) {
			sealedTimes++
		}
	}
	for _, s := range servers {
		s.more <- s.shares % draughts
		close(s.more)
	}
	producing.Wait()
	for _, clock := range w.clocks {
		clock.Right(t)
	}
	for _, service := range exactServices {
		w.ready(service)
	}
	for _, s := range servers {
		s.end(t)
	}
	if sealedTimes == 0 {
		t.Error("no day was sealed meanwhile")
	}
	t.Logf("%d shares acknowledged, %d faults, a day sealed %d times meanwhile, %v", books.count, w.faults, sealedTimes, time.Since(began).Round(time.Second))

	testkit.Until(t, patience, "the log holds what was acknowledged", func(context.Context) error { return books.equalLog(w.pool.Log) })
	conn := w.db.Open(t)
	slowly(t, "the tables say what was acknowledged", func(ctx context.Context) error { return books.stats.Compare(ctx, conn) })
	w.apis(t, books)
	t.Logf("log, %d rows and the API agree after %v", books.stats.Rows(), time.Since(began).Round(time.Second))
	w.fromSealed(t, books, conn)
	t.Logf("%d shares, %d faults, %d rows: zero difference after %v", books.count, w.faults, books.stats.Rows(), time.Since(began).Round(time.Second))
}

// slowly is testkit.Until for what is not asked for often.
func slowly(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Until(t, patience, what, func(ctx context.Context) error {
		err := check(ctx)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		return err
	})
}

func exactRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// drawExact draws n times one or two faults that may meet what is there.
func drawExact(rng *rand.Rand, n int) (drawn []draught) {
	for range n {
		d := draught{length: time.Duration(300+rng.IntN(1700)) * time.Millisecond}
		for n := 1 + rng.IntN(2); len(d.faults) < n; {
			f := drawFault(rng, exactKinds)
			there := f.target == "" || f.target == everybody || slices.Contains(exactServices, f.target)
			taken := slices.ContainsFunc(d.faults, func(g fault) bool {
				return slices.ContainsFunc(f.uses(), func(u string) bool { return slices.Contains(g.uses(), u) })
			})
			if there && !taken {
				d.faults = append(d.faults, f)
			}
		}
		drawn = append(drawn, d)
	}
	return drawn
}

// books are what was acknowledged.
type books struct {
	mu    sync.Mutex
	count int
	stats *rig.Statistics
	days  map[sharefile.Day]*records
}

// records name those of a day, in any order.
type records struct{ count, digest uint64 }

func (r *records) add(record []byte) {
	r.count++
	r.digest += xxhash.Sum64(record)
}

func newBooks() *books {
	return &books{stats: rig.NewStatistics(), days: map[sharefile.Day]*records{}}
}

func (b *books) add(shares []share.Share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var record []byte
	for i := range shares {
		s := &shares[i]
		day := b.days[sharefile.DayOf(s.Time)]
		if day == nil {
			day = new(records)
			b.days[sharefile.DayOf(s.Time)] = day
		}
		record = s.AppendBody(record[:0])
		day.add(record)
		b.stats.Add(s)
	}
	b.count += len(shares)
}

// equalLog holds the files against the books: as many records a day, and the same.
func (b *books) equalLog(dir string) error {
	days, err := sharefile.Days(dir, "BTC")
	if err != nil {
		return err
	}
	if len(days) != len(b.days) {
		return fmt.Errorf("files of %v, %d days were acknowledged", days, len(b.days))
	}
	for _, day := range days {
		got, err := readDay(sharefile.Path(dir, "BTC", day))
		if err != nil {
			return err
		}
		if want := b.days[day]; want == nil || *want != got {
			return fmt.Errorf("%d: %+v in the log, %+v acknowledged", day, got, want)
		}
	}
	return nil
}

func readDay(path string) (got records, err error) {
	r, err := sharefile.Open(path)
	if err != nil {
		return got, err
	}
	defer r.Close()
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got.add(record)
	}
}

// server acknowledges shares as sserver does: those that its spool has on disk.
type server struct {
	id      uint8
	spool   *spool.Spool
	stop    func()
	random  *rand.Rand
	workers []miner
	shares  int
	more    chan int // how many are to come; closed: no more
	start   int64
	done    int
}

// miner is a worker of one server.
type miner struct {
	worker     int64
	user       int32
	ip         netip.Addr
	difficulty bitcoin.Difficulty
}

func startServers(t *testing.T, dir string, client *bus.Client, shares, draughts int) (all []*server) {
	midnight := sharefile.DayOf(time.Now().Unix()).Start().Unix()
	for id := range exactServers {
		sp, err := spool.Open(spool.Config{Dir: filepath.Join(dir, fmt.Sprint("spool-", id))}, telemetry.Deps{Log: zerolog.Nop()}, "shares")
		if err != nil {
			t.Fatal(err)
		}
		s := &server{
			id: uint8(id + 1), spool: sp, random: rand.New(rand.NewPCG(*exactSeed, uint64(id+2))), shares: shares / exactServers,
			start: midnight - (exactDays-1)*86400, more: make(chan int, draughts+1),
			stop: testkit.Run(t, func(ctx context.Context) error { return sp.Run(ctx, client.Topic(shareTopic)) }),
		}
		for n := range max(shares/2500/exactServers, 20) {
			s.workers = append(s.workers, miner{
				share.WorkerID(fmt.Sprint("rig", id, ".", n)), int32(1 + n/10*exactServers + id), netip.AddrFrom4([4]byte{10, byte(id), byte(n >> 8), byte(n)}),
				bitcoin.Difficulty(n % 10),
			})
		}
		all = append(all, s)
	}
	return all
}

// produce has the shares acknowledged that are to come, the first of the first day, the last of now.
func (s *server) produce(t *testing.T, books *books) {
	now := time.Now().Unix()
	for more := range s.more {
		for end := s.done + more; s.done < end; {
			group := make([]share.Share, 0, exactGroup)
			var last uint64
			for range min(exactGroup, end-s.done) {
				sh := s.share(s.start + (now-s.start)*int64(s.done)/int64(s.shares))
				seq, err := s.spool.Append(uint64(sh.WorkerID), func(dst []byte, seq uint64) []byte {
					sh.ID = share.ID{Server: s.id, Epoch: s.spool.Epoch(), Seq: seq}
					return sh.AppendTo(dst)
				})
				if err != nil {
					t.Errorf("server %d: %v", s.id, err)
					return
				}
				last, group = seq, append(group, sh)
				s.done++
			}
			if err := s.spool.Wait(t.Context(), last); err != nil {
				t.Errorf("server %d: %v", s.id, err)
				return
			}
			books.add(group)
		}
	}
}

// share draws one of about a time. Some come hours late, to a day that may be sealed.
func (s *server) share(at int64) share.Share {
	m := &s.workers[s.random.IntN(len(s.workers))]
	if s.random.IntN(200) == 0 {
		m.difficulty = bitcoin.Difficulty(s.random.IntN(20))
	}
	if s.random.IntN(100) == 0 {
		at = max(at-int64(s.random.IntN(26*3600)), s.start)
	}
	status := share.StatusAccept
	if s.random.IntN(20) == 0 {
		all := share.Statuses()
		status = all[s.random.IntN(len(all))]
	}
	return share.Share{
		JobID: uint64(at)<<32 | 1, WorkerID: m.worker, UserID: m.user, Status: status, Time: at, IP: m.ip, Difficulty: m.difficulty,
		Bits: 0x207fffff, Height: uint32(100 + (at-s.start)/600), Nonce: s.random.Uint32(), SessionID: uint32(s.id)<<24 | uint32(s.random.IntN(1<<24)),
		VersionBits: s.random.Uint32() & 0x1fffe000, BitsReached: s.random.Uint32(),
	}
}

// end waits until the topic has all of the spool.
func (s *server) end(t *testing.T) {
	testkit.Until(t, patience, fmt.Sprintf("the spool of server %d is empty", s.id), func(context.Context) error {
		if n, _ := s.spool.Depth(); n > 0 {
			return fmt.Errorf("%d records", n)
		}
		return nil
	})
	s.stop()
	if err := s.spool.Close(); err != nil {
		t.Error(err)
	}
}

// sealSome seals a day that is over, beside who writes: what late shares come to it later is sealed then.
func (w *world) sealSome(t *testing.T, b *books, rng *rand.Rand) bool {
	t.Helper()
	over := b.over()
	if len(over) == 0 {
		return false
	}
	day := over[rng.IntN(len(over))]
	slowly(t, fmt.Sprintf("%d is sealed", day), func(context.Context) error { return w.seal(t, day) })
	return true
}

// over are the days before the newest.
func (b *books) over() []sharefile.Day {
	b.mu.Lock()
	defer b.mu.Unlock()
	days := slices.Sorted(maps.Keys(b.days))
	return days[:max(len(days)-1, 0)]
}

func (w *world) seal(t *testing.T, day sharefile.Day) error {
	t.Helper()
	code, printed := w.pool.Once(t, "sharelogger", "-seal", strconv.Itoa(int(day)))
	if code != 0 {
		return fmt.Errorf("code %d: %s", code, printed)
	}
	return nil
}

// apis holds what the services answer for hours that are over against the books.
func (w *world) apis(t *testing.T, b *books) {
	t.Helper()
	type series struct {
		Start                     time.Time
		Accepted, Stale, Rejected []*float64
		Reasons                   []struct {
			Status     share.Status
			Difficulty []float64
		}
	}
	for _, step := range []struct {
		name string
		long time.Duration
		kind store.StatsKind
	}{{"hour", time.Hour, store.Hour}, {"day", 24 * time.Hour, store.Day}} {
		testkit.Until(t, patience, "statshttpd's history by "+step.name, func(ctx context.Context) error {
			var a series
			if err := w.pool.Get(ctx, fmt.Sprintf("/api/v1/pool/rejects?step=%s&limit=%d", step.name, 24*exactDays), &a); err != nil {
				return err
			}
			told := 0
			for i, got := range a.Accepted {
				period := step.kind.Period(a.Start.Add(time.Duration(i) * step.long))
				want := b.stats.Pool(period)
				if got == nil {
					if !want.Accept.IsZero() {
						return fmt.Errorf("%d: nothing is known", period)
					}
					continue
				}
				told++
				if *got != inShares(want.Accept) || *a.Stale[i] != inShares(want.Stale) || *a.Rejected[i] != inShares(want.Reject) {
					return fmt.Errorf("%d: %v accepted, %v stale, %v rejected, want %+v", period, *got, *a.Stale[i], *a.Rejected[i], want)
				}
				for _, r := range a.Reasons {
					if r.Difficulty[i] != inShares(want.Reasons[r.Status]) {
						return fmt.Errorf("%d: %v rejected as %d, want %+v", period, r.Difficulty[i], r.Status, want)
					}
				}
			}
			if told < exactDays {
				return fmt.Errorf("%d parts are told", told)
			}
			return nil
		})
	}
	today := int(sharefile.DayOf(time.Now().Unix()))
	testkit.Until(t, patience, "slparser's answer for today", func(ctx context.Context) error {
		var a struct {
			Data map[string][]struct{ Accept, Stale, Reject uint64 }
		}
		if err := w.pool.GetStats(ctx, "/share_stats?user_id=0&worker_id=0&hour=24", &a); err != nil {
			return err
		}
		want, got := b.stats.Pool(today), a.Data["0"]
		if len(got) != 1 || got[0].Accept != want.Accept.Difficulty() || got[0].Stale != want.Stale.Difficulty() || got[0].Reject != want.Reject.Difficulty() {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
}

// inShares is work in shares of difficulty 1, of which there are whole ones here.
func inShares(work bitcoin.Work) float64 { return work.Float() / (1 << 32) }

// fromSealed seals and verifies all days, removes their sources and has what is left computed into a database of its
// own.
func (w *world) fromSealed(t *testing.T, b *books, conn *sql.DB) {
	t.Helper()
	for _, service := range exactServices {
		if code, err := w.pool.Service(service).Stop(); err != nil || code != 0 {
			t.Errorf("%s ended with code %d, %v", service, code, err)
		}
	}
	days, err := sharefile.Days(w.pool.Log, "BTC")
	if err != nil {
		t.Fatal(err)
	}
	for _, day := range days {
		if err := w.seal(t, day); err != nil {
			t.Fatal(err)
		}
		v, err := sealed.Verify(t.Context(), w.pool.Log, "BTC", day)
		if err != nil {
			t.Fatal(err)
		}
		got := records{uint64(v.Footer.Records), uint64(v.Footer.Digest)}
		if want := b.days[day]; want == nil || got != *want {
			t.Errorf("%d: %+v sealed, %+v acknowledged", day, got, want)
		}
		if err := os.Remove(sharefile.Path(w.pool.Log, "BTC", day)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.ExecContext(t.Context(), "CREATE DATABASE again CHARACTER SET utf8mb4"); err != nil {
		t.Fatal(err)
	}
	dsn := strings.TrimSuffix(w.db.DSN, "/pool") + "/again"
	config := filepath.Join(w.dir, "again.toml")
	text := fmt.Sprintf("network = \"regtest\"\ndata_dir = %q\n[database]\ndsn = %q\n", w.pool.Log, "mysql://"+dsn)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), rig.Bin(t, "slparser"), "-config", config,
		"-d", fmt.Sprintf("%d-%d", days[0], days[len(days)-1])).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	again, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := b.stats.Compare(t.Context(), again); err != nil {
		t.Errorf("computed of sealed days: %v", err)
	}
}
