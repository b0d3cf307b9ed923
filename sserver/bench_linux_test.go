package sserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"btcpool/internal/poll"
)

// The limit of BenchmarkBroadcast: a bare write of as much to the same sockets, from as many goroutines.
func BenchmarkBareWrites(b *testing.B) {
	s := benchService(b)
	benchMiners(b, s)
	text := benchSession(b, s).announce(nil, announcement{work: s.chains[0].jobs.newest(), number: 200, clean: true})
	links := make(map[*loop][]poll.Link)
	for _, session := range s.allSessions(b.Context()) {
		links[session.loop] = append(links[session.loop], session.link)
	}
	for b.Loop() {
		var wg sync.WaitGroup
		for _, part := range links {
			wg.Go(func() {
				for _, link := range part {
					if n, err := link.Write(text); n != len(text) {
						b.Error(n, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

// crowd is a process of its own, so that this one's resources are the server's: miners that say what they are told to.
type crowd struct {
	b   *testing.B
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

const crowdKey = "SSERVER_BENCH_CROWD" // address and number of connections

// newCrowd returns miners that have sent greeting and got an answer that holds want.
func newCrowd(b *testing.B, addr string, conns int) *crowd {
	c := &crowd{b: b, cmd: exec.Command(os.Args[0], "-test.run=^TestCrowd$")}
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", crowdKey, addr, conns))
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.in.Close()
		_ = c.cmd.Wait() // what it did is known
	})
	return c
}

// do has the crowd send n lines and get their answers.
func (c *crowd) do(n int, line string) {
	c.b.Helper()
	if _, err := fmt.Fprintf(c.in, "%d %s\n", n, line); err != nil {
		c.b.Fatal(err)
	}
	if answer, err := c.out.ReadString('\n'); err != nil || answer != "done\n" {
		c.b.Fatalf("crowd: %q, %v", answer, err)
	}
}

// TestCrowd is the process of a crowd.
func TestCrowd(t *testing.T) {
	addr, text, ok := strings.Cut(os.Getenv(crowdKey), " ")
	if !ok {
		t.Skip("is for benchmarks")
	}
	conns, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(addr)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	fds := make([]int, conns)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(os.Getpid()), byte(1 + i/10_000)}})
		}
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		}
		if err == nil {
			err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	const (
		window  = 500 // answers that are waited for
		result  = `{"id":9,`
		counter = "COUNTER0"
	)
	var (
		in     = bufio.NewReader(os.Stdin)
		events [256]unix.EpollEvent
		buf    [1 << 16]byte
		count  int
	)
	for {
		order, err := in.ReadString('\n')
		if err != nil {
			return
		}
		number, line, _ := strings.Cut(order, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		line = strings.ReplaceAll(line, "|", "\n")
		for sent, got := 0, 0; got < n; {
			for ; sent < n && sent-got < window; sent++ {
				count++
				text := strings.Replace(line, counter, fmt.Sprintf("%08x", count), 1)
				if _, err := io.WriteString(fdWriter(fds[sent%conns]), text); err != nil {
					t.Fatal(err)
				}
			}
			ready, err := unix.EpollWait(epoll, events[:], 10_000)
			if err != nil && err != unix.EINTR || ready == 0 {
				t.Fatalf("%d of %d answers: %v", got, n, err)
			}
			for _, e := range events[:max(ready, 0)] {
				size, err := unix.Read(int(e.Fd), buf[:])
				if err != nil || size == 0 {
					t.Fatalf("%d of %d answers: %v", got, n, err)
				}
				got += bytes.Count(buf[:size], []byte(result))
			}
		}
		fmt.Fprintln(os.Stdout, "done")
	}
}

type fdWriter int

func (w fdWriter) Write(b []byte) (int, error) { return unix.Write(int(w), b) }

const crowdLogin = `{"id":1,"method":"mining.subscribe","params":["bench/1"]}|{"id":9,"method":"mining.authorize","params":["alice.rig","x"]}`

// benchConns is as many as the limit of descriptors lets there be, up to n.
func benchConns(b *testing.B, n int) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	return min(n, int(limit.Cur)-500)
}

// benchCrowd has a server serve conns miners that have logged in.
func benchCrowd(b *testing.B, conns int) (*Service, *crowd) {
	s := benchService(b)
	p := s.ports[0]
	p.difficulty, p.vardiff.Min, p.vardiff.Max = -32, -32, -32
	ctx, cancel := context.WithCancel(b.Context())
	var loops, rest errgroup.Group
	for _, l := range s.loops {
		loops.Go(l.run)
	}
	rest.Go(func() error { return s.chains[0].shares.Run(ctx, nowhere{}) })
	rest.Go(func() error { return s.tick(ctx) })
	rest.Go(func() error { return s.accept(ctx, p) })
	b.Cleanup(func() {
		if err := s.stopListening(); err != nil {
			b.Error(err)
		}
		if err := s.hangUp(&loops); err != nil {
			b.Error(err)
		}
		cancel()
		if err := rest.Wait(); err != nil {
			b.Error(err)
		}
	})
	return s, newCrowd(b, s.Addr().String(), conns)
}

// cpu returns the time that this process has computed.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const benchBatch = 20_000

// An accepted share of 10,000 miners, from its packet to the packet with its answer, the disk in between.
func BenchmarkShare(b *testing.B) {
	conns := benchConns(b, 10_000)
	s, crowd := benchCrowd(b, conns)
	if _, err := s.chains[0].jobs.add(benchJob(1), merged{}, time.Now()); err != nil {
		b.Fatal(err)
	}
	crowd.do(conns, crowdLogin)
	w := s.chains[0].jobs.newest()
	line := fmt.Sprintf(`{"params":["alice.rig","0","00000000COUNTER0","%08x","00000000"],"id":9,"method":"mining.submit"}`, w.Time)
	shares := 0
	before := cpu(b)
	for b.Loop() {
		crowd.do(benchBatch, line)
		shares += benchBatch
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(shares), "cpu-us/share")
	b.ReportMetric(0, "ns/op")
}

// echo owns a link, answers its lines and knows nothing of mining.
type echo struct {
	link poll.Link
	*echoes
}

type echoes struct {
	answer []byte
	buf    [readBytes]byte
	left   int // lines to answer
	err    error
}

func (c echo) Serve(poll.Readiness) {
	n, err := c.link.Read(c.buf[:])
	for range bytes.Count(c.buf[:n], []byte("\n")) {
		_, writeErr := c.link.Write(c.answer)
		err = errors.Join(err, writeErr)
		c.left--
	}
	if err != nil {
		c.err = err
	}
}

// The limit of BenchmarkShare: read(2) and write(2) of as much.
func BenchmarkBareEcho(b *testing.B) {
	conns := benchConns(b, 10_000)
	s := benchService(b)
	var (
		loop  = s.loops[0].Loop
		crowd = newCrowd(b, s.Addr().String(), conns)
		all   = &echoes{answer: []byte(`{"id":9,"result":true,"error":null}` + "\n")}
		links []poll.Link
	)
	for range conns {
		link, _, err := s.ports[0].Accept()
		if err != nil {
			b.Fatal(err)
		}
		links = append(links, link)
		if err := link.Attach(loop, echo{link, all}); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, link := range links {
			link.Close()
		}
	})
	n := 0
	line := `{"params":["alice.rig","0","00000000COUNTER0","00000000","00000000"],"id":9,"method":"mining.submit"}`
	before := cpu(b)
	for b.Loop() {
		n += benchBatch
		var answers errgroup.Group
		answers.Go(func() error {
			for all.left = benchBatch; all.left > 0 && all.err == nil; {
				if err := loop.Wait(true); err != nil {
					return err
				}
				loop.Turn()
			}
			return all.err
		})
		crowd.do(benchBatch, line)
		if err := answers.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(n), "cpu-us/share")
	b.ReportMetric(0, "ns/op")
}

// What a miner costs that is logged in and knows five jobs. It is run once, whatever b.N.
func BenchmarkConnection(b *testing.B) {
	for _, n := range []int{10_000, 50_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			conns := benchConns(b, n)
			if conns < n {
				b.Skipf("the limit of descriptors allows for %d", conns)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			rss, computed, start := residentBytes(b), cpu(b), time.Now()
			s, crowd := benchCrowd(b, conns)
			if _, err := s.chains[0].jobs.add(benchJob(1), merged{}, time.Now()); err != nil {
				b.Fatal(err)
			}
			crowd.do(conns, crowdLogin)
			b.ReportMetric(time.Since(start).Seconds(), "s/logins")
			b.ReportMetric((cpu(b) - computed).Seconds(), "cpu-s/logins")
			for prev := range byte(4) {
				if _, err := s.chains[0].jobs.add(benchJob(2+prev), merged{}, time.Now()); err != nil {
					b.Fatal(err)
				}
				tellAll(s)
			}
			b.ReportMetric((residentBytes(b)-rss)/float64(conns), "rss-bytes/conn")
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(conns), "heap-bytes/conn")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func residentBytes(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}

// deaf is a link that takes all and says nothing.
type deaf struct{}

func (deaf) Attach(*poll.Loop, poll.Owner) error { return nil }
func (deaf) Want(bool, bool)                     {}
func (deaf) Read([]byte) (int, error)            { return 0, nil }
func (deaf) Write(b []byte) (int, error)         { return len(b), nil }
func (deaf) Sent() bool                          { return true }
func (deaf) CloseWrite() bool                    { return false }
func (deaf) Close()                              {}
func (deaf) Copy() (int, error)                  { return -1, nil }
func (deaf) Pass() (int, error)                  { return -1, nil }
func (deaf) Keep()                               {}
func (deaf) Leave() func()                       { return nil }

// The same without sockets, for as many connections as descriptors do not allow.
func BenchmarkConnectionWithoutSocket(b *testing.B) {
	for _, n := range []int{10_000, 50_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			s := benchService(b)
			if _, err := s.chains[0].jobs.add(benchJob(1), merged{}, time.Now()); err != nil {
				b.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			rss := residentBytes(b)
			login := []byte(strings.ReplaceAll(crowdLogin, "|", "\n") + "\n")
			for i := range n {
				l := s.loops[i%len(s.loops)]
				l.now = time.Now()
				c := &session{state: state{IP: netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)})}, srv: s, port: s.ports[0], loop: l, link: deaf{}}
				if refusal := s.admit(c, l.now); refusal != "" {
					b.Fatal(refusal)
				}
				l.add(c)
				c.receive(login)
			}
			for prev := range byte(4) {
				if _, err := s.chains[0].jobs.add(benchJob(2+prev), merged{}, time.Now()); err != nil {
					b.Fatal(err)
				}
				for _, l := range s.loops {
					for _, c := range l.sessions {
						l.refresh(c)
					}
				}
			}
			b.ReportMetric((residentBytes(b)-rss)/float64(n), "rss-bytes/conn")
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "heap-bytes/conn")
			b.ReportMetric(0, "ns/op")
			if c := s.loops[0].sessions[0]; c.Phase != authorized || len(c.Jobs) != 5 {
				b.Fatalf("%s with %d jobs", c.Phase, len(c.Jobs))
			}
		})
	}
}
