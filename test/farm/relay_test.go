package farm

import (
	"net"
	"sync"
	"testing"
)

// relay is a line between a proxy and a pool that can be cut and silenced.
type relay struct {
	tb     testing.TB
	ln     net.Listener
	target string

	mu      sync.Mutex
	conns   map[net.Conn]net.Conn // the proxy's, and the pool's
	refuses int                   // connections to be closed at once; negative: all
	silent  chan struct{}         // nil: what the pool says goes through
	hung    chan struct{}         // closed: what is connected by now hears nothing of the other side any more, nor of its end
	over    chan struct{}         // closed when the test is over
	made    int
}

func newRelay(tb testing.TB, target string) *relay {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &relay{tb: tb, ln: ln, target: target, conns: make(map[net.Conn]net.Conn), hung: make(chan struct{}), over: make(chan struct{})}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			done.Go(func() { r.carry(conn) })
		}
	})
	tb.Cleanup(func() {
		ln.Close()
		close(r.over)
		r.speak()
		r.cut(-1)
		done.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.ln.Addr().String() }

func (r *relay) carry(conn net.Conn) {
	defer conn.Close()
	r.mu.Lock()
	r.made++
	refuse := r.refuses != 0
	if r.refuses > 0 {
		r.refuses--
	}
	target, hung := r.target, r.hung
	r.mu.Unlock()
	if refuse {
		return
	}
	pool, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer pool.Close()
	r.mu.Lock()
	r.conns[conn] = pool
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.conns, conn)
		r.mu.Unlock()
	}()
	hangs := func() bool {
		select {
		case <-hung:
			<-r.over
			return true
		default:
			return false
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4<<10)
		for {
			n, err := conn.Read(buf)
			if hangs() || err != nil {
				break
			}
			if _, err := pool.Write(buf[:n]); err != nil {
				break
			}
		}
		pool.Close()
	}()
	buf := make([]byte, 4<<10)
	for {
		n, err := pool.Read(buf)
		if hangs() || err != nil {
			break
		}
		r.mu.Lock()
		silent := r.silent
		r.mu.Unlock()
		if silent != nil {
			<-silent
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			break
		}
	}
	conn.Close()
	pool.Close()
	<-done
}

// cut ends n connections, all if n is negative.
func (r *relay) cut(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn, pool := range r.conns {
		if n == 0 {
			return
		}
		n--
		conn.Close()
		pool.Close()
	}
}

// hang has all connections that there are go on without a word, and without an end.
func (r *relay) hang() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.hung)
	r.hung = make(chan struct{})
	clear(r.conns)
}

// refuse has the next n connections closed at once; negative: all.
func (r *relay) refuse(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = n
}

// silence holds back what the pool says until speak.
func (r *relay) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = make(chan struct{})
}

func (r *relay) speak() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent != nil {
		close(r.silent)
		r.silent = nil
	}
}
