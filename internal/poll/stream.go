package poll

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// streamBytes is how much a stream reads ahead.
const streamBytes = 4 << 10

// stream is the link of a connection that a loop cannot poll: TLS, and any where there is no epoll. A goroutine reads,
// and reads on when its owner has taken what it got; another lives as long as it has something to write.
type stream struct {
	conn    net.Conn
	run     func(func()) // starts the goroutines
	timeout time.Duration
	loop    *Loop
	owner   Owner
	closed  bool
	taken   chan struct{} // to the reader: go on
	done    chan struct{} // closed with the link

	mu      sync.Mutex
	in      []byte
	inErr   error // after in
	reads   bool  // the owner wants to
	writing bool
	relay   *relay // nil: the owner is of this process

	wrote sync.Mutex // held while something is written
	pass  *relay     // what Pass has readied
}

// NewStream returns a link that uses conn by goroutines, which run starts; they end when the link is closed. A peer is
// slow that takes longer than timeout to take what was written: reading fails then.
func NewStream(conn net.Conn, run func(func()), timeout time.Duration) Link {
	return &stream{
		conn:    conn,
		run:     run,
		timeout: timeout,
		taken:   make(chan struct{}, 1),
		done:    make(chan struct{}),
		reads:   true,
	}
}

func (c *stream) Attach(l *Loop, o Owner) error {
	c.loop, c.owner = l, o
	c.run(c.readAll)
	return nil
}

func (c *stream) ready(r Readiness) {
	c.loop.post(func() {
		if !c.closed {
			c.owner.Serve(r)
		}
	}, false)
}

func (c *stream) readAll() {
	buf := make([]byte, streamBytes)
	for {
		n, err := c.conn.Read(buf)
		c.mu.Lock()
		if r := c.relay; r != nil {
			c.mu.Unlock()
			if !r.take(buf[:n], err) {
				return
			}
			continue
		}
		c.in = buf[:n]
		c.inErr = errors.Join(c.inErr, err)
		c.offer()
		c.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-c.taken:
		case <-c.done:
			return
		}
	}
}

// offer has the owner read if it wants to and can. The caller holds c.mu.
func (c *stream) offer() {
	if c.reads && (len(c.in) > 0 || c.inErr != nil) {
		c.ready(CanRead)
	}
}

func (c *stream) Want(read, _ bool) { // it is served after each write anyway
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.reads
	if c.reads = read; !before {
		c.offer()
	}
}

func (c *stream) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.in) == 0 {
		return 0, c.inErr
	}
	n := copy(b, c.in)
	if c.in = c.in[n:]; len(c.in) == 0 {
		c.taken <- struct{}{} // has room: the reader waits for it
	}
	c.offer()
	return n, nil
}

func (c *stream) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing {
		return 0, nil
	}
	c.writing = true
	c.wrote.Lock()
	data := append([]byte(nil), b...)
	c.run(func() {
		defer c.wrote.Unlock()
		_ = c.conn.SetWriteDeadline(time.Now().Add(c.timeout)) // fails only with the write
		_, err := c.conn.Write(data)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = ErrSlow
		}
		c.mu.Lock()
		c.writing = false
		if err != nil {
			c.in, c.inErr = nil, errors.Join(c.inErr, err)
			c.offer()
		}
		c.mu.Unlock()
		c.ready(CanWrite)
	})
	return len(b), nil
}

func (c *stream) Sent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.writing
}

func (c *stream) CloseWrite() bool {
	tcp, ok := c.conn.(*net.TCPConn)
	return ok && tcp.CloseWrite() == nil
}

func (c *stream) Close() {
	c.closed = true
	close(c.done)
	if _, ok := c.conn.(*tls.Conn); ok {
		c.run(func() { c.conn.Close() }) // says good-bye, which may take a while
		return
	}
	c.conn.Close()
}
