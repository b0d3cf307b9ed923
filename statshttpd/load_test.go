package statshttpd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/durable"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

var (
	load          = flag.Int("load", 0, "measure a statshttpd with so many `workers`, each with a share in 10 s")
	loadListeners = flag.Int("load-listeners", 0, "with so many that listen to events")
	loadHistory   = flag.Duration("load-history", time.Hour, "of how long shares are counted first")
	loadSince     = flag.Duration("load-since", 0, "then start with a checkpoint that is so old")
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

const (
	listenTo  = "STATSHTTPD_LISTEN" // in the environment of a process of listeners: the address
	loadUsers = 1000
)

// startListeners has another process, whose files and memory are its own, listen to events at address, and returns when all do.
// What it returns ends them, and says what they heard.
func startListeners(t *testing.T, address string) (end func() string) {
	if *loadListeners == 0 {
		return func() string { return "nothing" }
	}
	process := exec.Command(os.Args[0], "-test.run=^TestLoad$", fmt.Sprintf("-load-listeners=%d", *loadListeners))
	process.Env = append(os.Environ(), listenTo+"="+address)
	var said bytes.Buffer
	process.Stdout = &said
	stay, err := process.StdinPipe()
	if err == nil {
		err = process.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() string {
		stay.Close()
		if err := process.Wait(); err != nil {
			t.Error(err)
		}
		heard, _, _ := strings.Cut(said.String(), "\n")
		return heard
	}
}

// beListeners is that process.
func beListeners(t *testing.T, address string) {
	var heard [4]atomic.Int64
	names := [4]string{"pool", "user", "block", "failed"}
	for i := range *loadListeners {
		go func() {
			defer heard[3].Add(1)
			conn, err := net.Dial("tcp", address) // a client of net/http would need more memory than the server
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "GET /api/v1/events?user=user%04d HTTP/1.1\r\nHost: pool\r\n\r\n", i%loadUsers)
			for lines := bufio.NewReaderSize(conn, 512); ; {
				line, err := lines.ReadSlice('\n')
				if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
					return
				}
				for n, name := range names[:3] {
					if bytes.Equal(line, []byte("event: "+name+"\n")) {
						heard[n].Add(1)
					}
				}
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the other one closes it
	for n, name := range names {
		fmt.Printf("%d %s, ", heard[n].Load(), name)
	}
	fmt.Println()
	os.Exit(0) // with all that are listening
}

// restarted tells what it takes to take a checkpoint, and to start with it and the shares that came since.
func (s *Service) restarted(t *testing.T, sharesOf func(second int64) []bus.Message) {
	cfg := s.cfg
	cfg.Kafka = testkit.Broker(t)
	client := testkit.Bus(t, cfg.Kafka, cfg.Kafka.Topics.Share, cfg.Kafka.Topics.CommonEvents, cfg.Kafka.Topics.Job)
	cfg.CheckpointFile = filepath.Join(t.TempDir(), "checkpoint")
	clear(s.read)
	s.read[0] = bus.Mark{Offset: -1}
	begin, cpu := time.Now(), threadTime(t)
	frame, err := s.takeCheckpoint()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("checkpoint: %d bytes, taken in %.2f s, %.2f s of CPU", len(frame), time.Since(begin).Seconds(), (threadTime(t) - cpu).Seconds())
	if err := durable.Replace(cfg.CheckpointFile, frame, 0o600); err != nil {
		t.Fatal(err)
	}
	for second := range int64(loadSince.Seconds()) {
		if err := client.Write(t.Context(), cfg.Kafka.Topics.Share, sharesOf(time.Now().Unix()-int64(loadSince.Seconds())+second)...); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(cfg, service.Deps{Log: testDeps().Log})
	if err != nil {
		t.Fatal(err)
	}
	before := s.board.pool.accepted
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // most is of now on
		t.Fatal(err)
	}
	held, _ := resident(t)
	begin, cpu = time.Now(), processTime(t)
	stop := testkit.Run(t, again.Run)
	testkit.Until(t, 10*time.Minute, "ready", func(context.Context) error { return again.Ready() })
	took, cost := time.Since(begin), processTime(t)-cpu
	_, most := resident(t)
	t.Logf("a start with a checkpoint of %v is ready in %.1f s, %.1f s of CPU, %d MB more at most, the broker's included: %d shares",
		*loadSince, took.Seconds(), cost.Seconds(), most-held, again.board.pool.accepted-before)
	stop()
}

// processTime is the CPU's time of the process.
func processTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestLoad tells what a large pool costs: to count an hour of its shares, in memory, and a page while shares come in.
//
//	go test ./statshttpd -run 'TestLoad$' -v -load 100000 -load-listeners 9900 -load-since 5m
func TestLoad(t *testing.T) {
	if address := os.Getenv(listenTo); address != "" {
		beListeners(t, address)
		return
	}
	if *load == 0 {
		t.Skip("only with -load")
	}
	const users = loadUsers
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
	listeners := startListeners(t, srv.Listener.Addr().String())
	var late time.Duration
	mining, rest := context.WithCancel(ctx)
	rested := make(chan struct{})
	go func() { // shares come in as they do
		defer close(rested)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for mining.Err() == nil {
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
	testkit.Until(t, testkit.Patience, "all listeners", func(context.Context) error {
		if n := s.hub.size(); n != *loadListeners {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	runtime.GC()
	for _, of := range paths { // whoever comes first makes the orders
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, of(), nil))
	}
	begin, cpu := time.Now(), processTime(t)
	for end := begin.Add(*loadFor); time.Now().Before(end); {
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
	t.Logf("%.2f cores, with pages, shares and %d listeners, who heard %s", (processTime(t)-cpu).Seconds()/time.Since(begin).Seconds(), *loadListeners, listeners())
	rest()
	<-rested
	now, most = resident(t)
	runtime.GC()
	var heap runtime.MemStats
	runtime.ReadMemStats(&heap)
	t.Logf("%d MB on the heap", heap.HeapAlloc>>20)
	t.Logf("%d MB resident, %d at most; 20 ms of shares took %.1f ms at worst", now, most, late.Seconds()*1000)
	for name, all := range took {
		tell := func(of func(cost) time.Duration) string {
			slices.SortFunc(all, func(a, b cost) int { return cmp.Compare(of(a), of(b)) })
			ms := func(part float64) float64 { return of(all[int(part*float64(len(all)-1))]).Seconds() * 1000 }
			return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, worst %.2f ms", ms(0.5), ms(0.99), ms(1))
		}
		t.Logf("%-12s %s; CPU %s of %d", name, tell(func(c cost) time.Duration { return c.wall }), tell(func(c cost) time.Duration { return c.cpu }), len(all))
	}
	begin = time.Now()
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
	if *loadSince > 0 {
		s.restarted(t, func(second int64) (msgs []bus.Message) {
			for range rate {
				msgs = append(msgs, bus.Message{Value: message(nil, second)})
			}
			return msgs
		})
	}
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
