package statshttpd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/service"
	"btcpool/internal/share"
)

var (
	load          = flag.Int("load", 0, "measure a statshttpd with so many `workers`, each with a share in 10 s")
	loadListeners = flag.Int("load-listeners", 0, "with so many that listen to events")
	loadHistory   = flag.Duration("load-history", time.Hour, "of how long shares are counted first")
	loadFor       = flag.Duration("load-for", 20*time.Second, "how long to look at pages")
)

// resident is the process's memory in MB, now and at most.
func resident(t *testing.T) (now, most int) {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb int
		if _, err := fmt.Sscanf(lines.Text(), "VmRSS: %d", &kb); err == nil {
			now = kb / 1024
		}
		if _, err := fmt.Sscanf(lines.Text(), "VmHWM: %d", &kb); err == nil {
			most = kb / 1024
		}
	}
	return now, most
}

// threadTime is the CPU's time of the thread.
func threadTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	const thread = 1
	if err := syscall.Getrusage(thread, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestLoad tells what a large pool costs: to count an hour of its shares, in memory, and a page while shares come in.
//
//	go test ./statshttpd -run TestLoad -v -load 100000 -load-listeners 9900
func TestLoad(t *testing.T) {
	if *load == 0 {
		t.Skip("only with -load")
	}
	const users = 1000
	runtime.LockOSThread() // whose time is told
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as in cmd/statshttpd
	s := newTestService(t, time.Now())
	s.cfg.MaxWorkers, s.cfg.MaxConnections, s.cfg.MaxEventClients = *load, 1<<20, 1<<20
	s.board.limit = *load
	ids := make([]int64, *load)
	for i := range ids {
		name := fmt.Sprintf("rig-%06d", i)
		ids[i] = share.WorkerID(name)
		e := share.Event{
			Time: s.now(), Action: share.MinerConnect, UserID: int32(1 + i%users), UserName: fmt.Sprintf("user%04d", i%users),
			WorkerID: ids[i], WorkerName: name, Agent: "bmminer/2.0.0 S21", SessionID: 1<<24 | uint32(i),
		}
		s.board.addEvent(s.now(), &e, true)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var one share.Share
	seq := uint64(0)
	refused := 20 // one share of so many, while history is made with a tenth of its shares
	message := func(dst []byte, at int64) []byte {
		i := random.IntN(*load)
		seq++
		one = share.Share{
			ID: share.ID{Server: 1, Epoch: 7, Seq: seq}, JobID: 1 << 60, UserID: int32(1 + i%users), WorkerID: ids[i], Status: share.StatusAccept,
			Time: at, Difficulty: 17, Bits: 0x17023a04, Height: 946_123, BitsReached: 0x1900ffff + random.Uint32N(1<<24), SessionID: 1<<24 | uint32(i),
		}
		if random.IntN(refused) == 0 {
			one.Status = []share.Status{share.StatusStale, share.StatusLowDifficulty, share.StatusDuplicate}[random.IntN(3)]
		}
		return one.AppendTo(dst)
	}
	rate := *load / 10 // shares a second
	history := rate / 10
	start := time.Now()
	s.now = func() time.Time { return start }
	var counting, cpuOfCounting time.Duration
	var buf []byte
	ends := make([]int, history)
	for second := int64(hour) - int64(loadHistory.Seconds()); second < int64(hour)-1; second++ {
		buf = buf[:0]
		for i := range ends {
			buf = message(buf, start.Unix()-int64(hour)+second+1)
			ends[i] = len(buf)
		}
		begin, cpu, from := time.Now(), threadTime(t), 0
		for _, end := range ends {
			if err := s.handleShare(bus.Message{Value: buf[from:end]}); err != nil {
				t.Fatal(err)
			}
			from = end
		}
		counting += time.Since(begin)
		cpuOfCounting += threadTime(t) - cpu
	}
	now, most := resident(t)
	var counted runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&counted)
	t.Logf("%d MB on the heap", counted.HeapAlloc>>20)
	t.Logf("%d workers: %d shares counted in %.1f s, %.2f µs of CPU each; %d MB resident, %d at most",
		*load, seq, counting.Seconds(), cpuOfCounting.Seconds()*1e6/float64(seq), now, most)

	s.now, refused = time.Now, 200
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go s.turnEvents(ctx)
	var heard atomic.Int64
	for i := range *loadListeners {
		go func() {
			conn, err := net.Dial("tcp", srv.Listener.Addr().String()) // a client of net/http would need more memory than the server
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			fmt.Fprintf(conn, "GET /api/v1/events?user=user%04d HTTP/1.1\r\nHost: pool\r\n\r\n", i%users)
			for buf := make([]byte, 2048); ; {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				heard.Add(int64(bytes.Count(buf[:n], []byte("event: user")))) // all but those in two parts
			}
		}()
	}
	var late time.Duration
	go func() { // shares come in as they do
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			begin := time.Now()
			for range rate / 50 {
				buf = message(buf[:0], begin.Unix())
				_ = s.handleShare(bus.Message{Value: buf})
			}
			late = max(late, time.Since(begin))
		}
	}()
	paths := map[string]func() string{
		"workers": func() string { return "/api/v1/workers" },
		"user's page": func() string {
			return fmt.Sprintf("/api/v1/workers?state=all&sort=last_share&user=user%04d", rand.IntN(users))
		},
		"search": func() string { return fmt.Sprintf("/api/v1/workers?q=rig-%04d", rand.IntN(10_000)) },
		"users":  func() string { return "/api/v1/users" },
		"user":   func() string { return fmt.Sprintf("/api/v1/users/user%04d", rand.IntN(users)) },
		"worker": func() string {
			i := rand.IntN(*load)
			return fmt.Sprintf("/api/v1/workers/user%04d/rig-%06d", i%users, i)
		},
		"minutes": func() string {
			i := rand.IntN(*load)
			return fmt.Sprintf("/api/v1/workers/user%04d/rig-%06d/history", i%users, i)
		},
		"pool":        func() string { return "/api/v1/pool" },
		"pool_status": func() string { return "/pool_status" },
	}
	type cost struct{ wall, cpu time.Duration }
	took := make(map[string][]cost)
	h := s.Handler()
	runtime.GC()
	for _, of := range paths { // whoever comes first makes the orders
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, of(), nil))
	}
	for end := time.Now().Add(*loadFor); time.Now().Before(end); {
		for name, of := range paths {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, of(), nil)
			begin, cpu := time.Now(), threadTime(t)
			h.ServeHTTP(w, r)
			took[name] = append(took[name], cost{time.Since(begin), threadTime(t) - cpu})
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", name, w.Code, w.Body)
			}
		}
		time.Sleep(10 * time.Millisecond) // 100 of each a second at most
	}
	now, most = resident(t)
	runtime.GC()
	var heap runtime.MemStats
	runtime.ReadMemStats(&heap)
	t.Logf("%d MB on the heap", heap.HeapAlloc>>20)
	t.Logf("%d MB resident, %d at most; 20 ms of shares took %.1f ms at worst; %d events heard", now, most, late.Seconds()*1000, heard.Load())
	for name, all := range took {
		tell := func(of func(cost) time.Duration) string {
			slices.SortFunc(all, func(a, b cost) int { return cmp.Compare(of(a), of(b)) })
			ms := func(part float64) float64 { return of(all[int(part*float64(len(all)-1))]).Seconds() * 1000 }
			return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, worst %.2f ms", ms(0.5), ms(0.99), ms(1))
		}
		t.Logf("%-12s %s; CPU %s of %d", name, tell(func(c cost) time.Duration { return c.wall }), tell(func(c cost) time.Duration { return c.cpu }), len(all))
	}
	begin := time.Now()
	s.flush(t.Context(), s.db.Load())
	t.Logf("first flush, SQLite: %.1f s", time.Since(begin).Seconds())
	begin = time.Now()
	rows := s.board.cutHour(time.Now().Truncate(time.Hour).Add(-time.Hour), 0)
	size := 0
	for _, row := range rows {
		size += len(row.bytes)
	}
	t.Logf("an hour of minutes: %d rows, %d bytes each, cut in %.2f s", len(rows), size/len(rows), time.Since(begin).Seconds())
	s.cuts = append(s.cuts, hourCut{time.Now(), rows})
	begin = time.Now()
	if err := s.writeMinutes(t.Context(), s.db.Load()); err != nil {
		t.Fatal(err)
	}
	t.Logf("written, SQLite: %.1f s", time.Since(begin).Seconds())
	again, err := New(s.cfg, service.Deps{Log: testDeps().Log})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.stats.Store(s.db.Load())
	begin = time.Now()
	if err := again.learn(t.Context(), s.db.Load()); err != nil {
		t.Fatal(err)
	}
	t.Logf("a start has read %d workers in %.1f s", len(again.board.workers), time.Since(begin).Seconds())
}
