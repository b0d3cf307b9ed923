package poll_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/poll"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = testkit.Patience

// rig is a loop that runs, and a listener whose links it can have.
type rig struct {
	tb         testing.TB
	loop       *poll.Loop
	listener   *poll.Listener
	client     *tls.Config // nil: plain
	goroutines sync.WaitGroup
}

// The kinds of connections: plain ones are streams where there is no epoll.
const (
	socket = "socket"
	stream = "stream"
	secure = "TLS"
)

// start returns a rig that ends with the test, when all its links are closed.
func start(tb testing.TB, kind string, writeTimeout time.Duration) *rig {
	tb.Helper()
	r := &rig{tb: tb}
	cfg := poll.Config{Addr: testkit.FreeAddr(tb), Log: zerolog.Nop(), Go: r.goroutines.Go, WriteTimeout: writeTimeout}
	if kind == secure {
		dir := tb.TempDir()
		cfg.CertFile, cfg.KeyFile = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
		r.client = &tls.Config{RootCAs: testkit.Certificate(tb, cfg.CertFile, cfg.KeyFile)}
	}
	var err error
	if r.listener, err = poll.Listen(cfg); err != nil {
		tb.Fatal(err)
	}
	if kind == stream {
		r.listener.OnlyStreams()
	}
	if r.loop, err = poll.NewLoop(); err != nil {
		tb.Fatal(err)
	}
	ended := false
	var running sync.WaitGroup
	running.Go(func() {
		for !ended {
			if err := r.loop.Wait(true); err != nil {
				tb.Error(err)
				return
			}
			r.loop.Turn()
		}
	})
	tb.Cleanup(func() {
		r.loop.Post(func() { ended = true })
		running.Wait()
		r.loop.Close()
		r.goroutines.Wait()
		if err := r.listener.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// each runs a test with each kind of connection.
func each(t *testing.T, kinds []string, test func(t *testing.T, kind string)) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

var all = []string{socket, stream, secure}

// do has the loop do something and waits for it.
func (r *rig) do(f func()) {
	r.tb.Helper()
	if err := r.loop.Call(r.tb.Context(), f); err != nil {
		r.tb.Fatal(err)
	}
}

// dial connects to the rig.
func (r *rig) dial() net.Conn {
	r.tb.Helper()
	conn, err := net.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		r.tb.Fatal(err)
	}
	if r.client != nil {
		cfg := r.client.Clone()
		cfg.ServerName = "127.0.0.1"
		return tls.Client(conn, cfg)
	}
	return conn
}

// connect returns both ends of a connection. The peer's belongs to a new owner that is served by the rig's loop and has
// shaken hands.
func (r *rig) connect() (net.Conn, *peer) {
	r.tb.Helper()
	conn := r.dial()
	link, ip, err := r.listener.Accept()
	if err != nil {
		r.tb.Fatal(err)
	}
	if want := netip.AddrFrom4([4]byte{127, 0, 0, 1}); ip != want {
		r.tb.Errorf("connection from %s", ip)
	}
	p := &peer{link: link, limit: 1 << 10, ended: make(chan error, 1)}
	r.do(func() { err = link.Attach(r.loop, p) })
	if err != nil {
		r.tb.Fatal(err)
	}
	if c, ok := conn.(*tls.Conn); ok {
		if err := c.Handshake(); err != nil {
			r.tb.Fatal(err)
		}
	}
	return conn, p
}

var errBroken = errors.New("broken")

// peer owns a link and sends back what comes, until an end or an error.
type peer struct {
	link   poll.Link
	outbox poll.Outbox
	limit  int
	serve  func(poll.Readiness) // nil: as described
	buf    [1 << 10]byte
	ended  chan error // gets the reason
}

func (p *peer) Serve(r poll.Readiness) {
	if p.serve != nil {
		p.serve(r)
		return
	}
	if r&poll.Broken != 0 {
		p.end(errBroken)
		return
	}
	if r&poll.CanWrite != 0 {
		if err := p.outbox.Flush(p.link, time.Now().Add(patience)); err != nil {
			p.end(err)
			return
		}
	}
	if r&poll.CanRead != 0 && p.outbox.Len() == 0 {
		n, err := p.link.Read(p.buf[:])
		if err == nil {
			err = p.send(p.buf[:n])
		}
		if err != nil {
			p.end(err)
			return
		}
	}
	p.link.Want(p.outbox.Len() == 0, p.outbox.Len() > 0)
}

func (p *peer) send(b []byte) error {
	return p.outbox.Send(p.link, b, p.limit, time.Now().Add(patience))
}

func (p *peer) end(why error) {
	p.link.Close()
	p.ended <- why
}

// wantEnd waits for the end of a peer and checks its reason.
func (r *rig) wantEnd(p *peer, want error) {
	r.tb.Helper()
	select {
	case err := <-p.ended:
		if !errors.Is(err, want) {
			r.tb.Errorf("ended by %v, want %v", err, want)
		}
	case <-time.After(patience):
		r.tb.Errorf("not ended, want %v", want)
	}
}

// A peer's bytes come back, many times more than any buffer holds.
func TestEcho(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		conn, p := r.connect()
		sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<17)
		var writer sync.WaitGroup
		writer.Go(func() {
			if _, err := conn.Write(sent); err != nil {
				t.Error(err)
			}
		})
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(conn, got); err != nil {
			t.Fatal(err)
		}
		writer.Wait()
		if !bytes.Equal(got, sent) {
			t.Error("other bytes came back")
		}
		conn.Close()
		r.wantEnd(p, io.EOF)
	})
}

// Who does not read what is sent is found out by how much waits.
func TestLimit(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		_, p := r.connect()
		text := make([]byte, 600)
		r.do(func() {
			for {
				if err := p.send(text); err != nil {
					p.end(err)
					return
				}
			}
		})
		r.wantEnd(p, poll.ErrSlow)
		if p.outbox.Len() > p.limit {
			t.Errorf("%d bytes wait", p.outbox.Len())
		}
	})
}

// Who does not read what is sent is found out by how long that waits: streams do it on their own.
func TestWriteTimeout(t *testing.T) {
	t.Parallel()
	each(t, []string{stream, secure}, func(t *testing.T, kind string) {
		r := start(t, kind, 50*time.Millisecond)
		_, p := r.connect()
		var err error
		r.do(func() {
			err = p.send(make([]byte, 64<<20)) // more than the system keeps
			if p.link.Sent() {
				t.Error("all of it sent")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		r.wantEnd(p, poll.ErrSlow)
	})
}

// An owner that does not want to read is not served, and misses nothing.
func TestWant(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		conn, p := r.connect()
		var served bool
		r.do(func() {
			p.serve = func(poll.Readiness) { served = true }
			p.link.Want(false, false)
		})
		if _, err := conn.Write([]byte("held back")); err != nil {
			t.Fatal(err)
		}
		r.echo("another's, by which time it could have been served")
		r.do(func() {
			if served {
				t.Error("served")
			}
			p.serve = nil
			p.link.Want(true, false)
		})
		got := make([]byte, len("held back"))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "held back" {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
		r.wantEnd(p, io.EOF)
	})
}

// echo has another peer send text back.
func (r *rig) echo(text string) {
	r.tb.Helper()
	conn, p := r.connect()
	if _, err := io.WriteString(conn, text); err != nil {
		r.tb.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		r.tb.Errorf("got %q, %v", got, err)
	}
	conn.Close()
	r.wantEnd(p, io.EOF)
}

// A link that breaks while its owner does not read is told of, where the system
// can: streams learn of it by reading.
func TestBroken(t *testing.T) {
	t.Parallel()
	if !poll.Epoll {
		t.Skip("all links are streams")
	}
	r := start(t, socket, patience)
	conn, p := r.connect()
	r.do(func() { p.link.Want(false, false) })
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	r.wantEnd(p, errBroken)
}

// The last words of an owner arrive that ends a connection before it has read everything, when it reads on for a
// moment.
func TestLinger(t *testing.T) {
	t.Parallel()
	each(t, []string{socket, stream}, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		conn, p := r.connect()
		const lastWords = "no more of this"
		said, closed := false, false
		r.do(func() {
			p.serve = func(poll.Readiness) {
				if !said {
					said = true
					if err := p.send([]byte(lastWords)); err != nil {
						t.Error(err)
					}
				}
				if !closed && p.link.Sent() {
					closed = p.link.CloseWrite()
				}
				if _, err := p.link.Read(p.buf[:]); err != nil {
					p.end(err)
				}
			}
		})
		if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
		got, err := io.ReadAll(conn)
		if string(got) != lastWords || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
		r.wantEnd(p, io.EOF)
	})
}

// A link that another's owner closes in the same turn is not served any more.
func TestClosedInTurn(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		var peers [2]*peer
		var conns [2]net.Conn
		served := make(chan int, 4)
		for i := range peers {
			conns[i], peers[i] = r.connect()
		}
		r.do(func() {
			for i, p := range peers {
				p.serve = func(poll.Readiness) {
					served <- i
					for _, p := range peers {
						p.end(nil)
					}
				}
			}
			for _, conn := range conns { // both are ready for the next turn
				if _, err := conn.Write([]byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
		for _, p := range peers {
			r.wantEnd(p, nil)
		}
		r.do(func() {})
		if len(served) != 1 {
			t.Errorf("%d served", len(served))
		}
	})
}

// Tasks of many goroutines are all done, each one's in its order.
func TestPost(t *testing.T) {
	t.Parallel()
	r := start(t, socket, patience)
	const posters, tasks = 8, 1000
	var next [posters]int
	var goroutines sync.WaitGroup
	for i := range posters {
		goroutines.Go(func() {
			for n := range tasks {
				if !r.loop.Post(func() {
					if next[i] != n {
						t.Errorf("task %d instead of %d", n, next[i])
					}
					next[i]++
				}) {
					t.Error("not taken")
				}
			}
		})
	}
	goroutines.Wait()
	r.do(func() {})
	for i, n := range next {
		if n != tasks {
			t.Errorf("%d tasks of goroutine %d", n, i)
		}
	}
}

// Call gives up with its context, and what it gave up is not done.
func TestCall(t *testing.T) {
	t.Parallel()
	r := start(t, socket, patience)
	ctx, cancel := context.WithCancel(t.Context())
	busy := make(chan struct{})
	r.loop.Post(func() { <-busy })
	cancel()
	if err := r.loop.Call(ctx, func() { t.Error("done") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(busy)
	r.do(func() {})
}

// TestCallEndsWithIt has what is called end the context: it was called nevertheless.
func TestCallEndsWithIt(t *testing.T) {
	t.Parallel()
	r := start(t, socket, patience)
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		if err := r.loop.Call(ctx, cancel); err != nil {
			t.Fatal(err)
		}
	}
}

// What a loop took before it was closed is done, and nothing else until it is opened again.
func TestCloseLoop(t *testing.T) {
	t.Parallel()
	loop, err := poll.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	done := 0
	for want := 1; want <= 2; want++ {
		if !loop.Post(func() { done++ }) {
			t.Error("not taken")
		}
		loop.Close()
		loop.Close()
		if done != want {
			t.Errorf("%d tasks done", done)
		}
		if loop.Post(func() { t.Error("done by a closed loop") }) {
			t.Error("taken by a closed loop")
		}
		if err := loop.Call(t.Context(), func() { t.Error("done by a closed loop") }); err != nil {
			t.Error(err)
		}
		if err := loop.Reopen(); err != nil {
			t.Fatal(err)
		}
		if err := loop.Wait(false); err != nil {
			t.Error(err)
		}
		loop.Turn()
	}
}

// A listener that is opened again has the address that it had.
func TestReopenListener(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		addr := r.listener.Addr().String()
		for range 2 {
			r.echo("before it is closed")
			closed := make(chan error)
			go func() {
				_, _, err := r.listener.Accept()
				closed <- err
			}()
			if err := errors.Join(r.listener.Close(), r.listener.Close()); err != nil {
				t.Fatal(err)
			}
			if err := <-closed; !errors.Is(err, net.ErrClosed) {
				t.Errorf("accepted %v", err)
			}
			if conn, err := net.Dial("tcp", addr); err == nil {
				conn.Close()
				t.Error("still listens")
			}
			if err := errors.Join(r.listener.Reopen(), r.listener.Reopen()); err != nil {
				t.Fatal(err)
			}
			if got := r.listener.Addr().String(); got != addr {
				t.Errorf("listens at %s, not %s", got, addr)
			}
		}
	})
}

func TestListenFaults(t *testing.T) {
	t.Parallel()
	r := start(t, socket, patience)
	taken := r.listener.Addr().String()
	if _, err := poll.Listen(poll.Config{Addr: taken}); err == nil {
		t.Error("an address was taken twice")
	}
	missing := filepath.Join(t.TempDir(), "cert")
	if _, err := poll.Listen(poll.Config{Addr: "127.0.0.1:0", CertFile: missing, KeyFile: missing}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Serving a socket allocates nothing.
func TestAllocations(t *testing.T) {
	if !poll.Epoll {
		t.Skip("all links are streams")
	}
	turn := pingPong(t)
	if n := testing.AllocsPerRun(100, turn); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// A turn with one packet in and one out, its peer's work included.
func BenchmarkEcho(b *testing.B) {
	turn := pingPong(b)
	b.ReportAllocs()
	for b.Loop() {
		turn()
	}
}

// pingPong returns what sends a line to a peer, has it answered and receives the answer, all on the caller's goroutine.
func pingPong(tb testing.TB) func() {
	loop, err := poll.NewLoop()
	if err != nil {
		tb.Fatal(err)
	}
	listener, err := poll.Listen(poll.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		tb.Fatal(err)
	}
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	link, _, err := listener.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	if err := link.Attach(loop, &peer{link: link, limit: 1 << 10}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		conn.Close()
		link.Close()
		loop.Close()
		listener.Close()
	})
	line := []byte("ping\n")
	return func() {
		if _, err := conn.Write(line); err != nil {
			tb.Fatal(err)
		}
		if err := loop.Wait(true); err != nil {
			tb.Fatal(err)
		}
		loop.Turn()
		if _, err := io.ReadFull(conn, line); err != nil {
			tb.Fatal(err)
		}
	}
}

// TestNoWakeUpIsLost has a line of one peer come about when the loop, having served another, goes to sleep: from then on
// nothing else would wake it.
func TestNoWakeUpIsLost(t *testing.T) {
	t.Parallel()
	loop, err := poll.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := poll.Listen(poll.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var conns [2]net.Conn
	var links [2]poll.Link
	for i := range conns {
		if conns[i], err = net.Dial("tcp", listener.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		if links[i], _, err = listener.Accept(); err != nil {
			t.Fatal(err)
		}
		if err := links[i].Attach(loop, &peer{link: links[i], limit: 1 << 10}); err != nil {
			t.Fatal(err)
		}
	}
	over, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		defer loop.Close()
		for {
			select {
			case <-over:
				links[0].Close()
				links[1].Close()
				ended <- nil
				return
			default:
			}
			if err := loop.Wait(true); err != nil {
				ended <- err
				return
			}
			loop.Turn()
		}
	}()
	var spun atomic.Int64
	line := []byte("ping\n")
	for n := range 20_000 {
		go func() { _, _ = conns[0].Write([]byte("ping\n")) }()
		for range n * 7919 % 20_000 { // some tens of microseconds at most
			spun.Add(1)
		}
		if _, err := conns[1].Write(line); err != nil {
			t.Fatal(err)
		}
		for _, conn := range conns {
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(conn, line); err != nil {
				t.Fatalf("round %d: %v", n, err)
			}
		}
	}
	close(over)
	loop.Post(func() {})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestGather has a peer's line wait until Gather is over, which what is posted ends at once.
func TestGather(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		conn, p := r.connect()
		served := make(chan struct{}, 1)
		posted := make(chan struct{})
		gathered := make(chan struct{})
		var arrived time.Duration
		r.do(func() {
			p.serve = func(poll.Readiness) {
				select {
				case served <- struct{}{}:
				default:
				}
				p.link.Want(false, false)
			}
		})
		r.loop.Post(func() {
			// In the loop's own goroutine, as between two turns.
			if _, err := conn.Write([]byte("ping\n")); err != nil {
				t.Error(err)
			}
			begin := time.Now()
			r.loop.Gather(50 * time.Millisecond)
			arrived = time.Since(begin)
			close(gathered)
			go func() {
				<-posted
				r.loop.Post(func() {})
			}()
		})
		<-gathered
		if arrived < 50*time.Millisecond {
			t.Errorf("gathered for %v only", arrived)
		}
		<-served // what came meanwhile has its turn though nobody rang
		r.loop.Post(func() {
			close(posted)
			begin := time.Now()
			r.loop.Gather(time.Hour)
			if took := time.Since(begin); took > patience {
				t.Errorf("what was posted waited %v", took)
			}
		})
		r.do(func() { p.link.Close() })
	})
}
