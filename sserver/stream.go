package sserver

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// stream is the link of a connection that a loop cannot poll: TLS, and any where
// there is no poller. A goroutine reads, and the next waits until what it got is
// taken; another lives as long as it has something to write.
type stream struct {
	conn    net.Conn
	run     func(func()) // starts the goroutines
	timeout time.Duration
	ready   func(readiness)
	taken   chan struct{} // to the reader: go on
	done    chan struct{} // closed with the link

	mu      sync.Mutex
	in      []byte
	inErr   error // after in
	reads   bool  // the session wants it
	writing bool
}

func newStream(conn net.Conn, srv *Service) *stream {
	return &stream{
		conn:    conn,
		run:     srv.goroutines.Go,
		timeout: srv.cfg.WriteTimeout.Std(),
		taken:   make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
}

func (c *stream) attach(l *loop, s *session) error {
	c.ready = func(r readiness) {
		l.post(func() {
			if s.pos >= 0 {
				l.serve(s, r)
			}
		})
	}
	c.run(c.readAll)
	return nil
}

func (c *stream) readAll() {
	buf := make([]byte, readBytes)
	for {
		n, err := c.conn.Read(buf)
		c.mu.Lock()
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

// offer has the session read if it wants to and can. The caller holds c.mu.
func (c *stream) offer() {
	if c.reads && (len(c.in) > 0 || c.inErr != nil) {
		c.ready(canRead)
	}
}

func (c *stream) want(read, _ bool) { // it is served after each write anyway
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.reads
	if c.reads = read; !before {
		c.offer()
	}
}

func (c *stream) read(b []byte) (int, error) {
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

func (c *stream) write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing {
		return 0, nil
	}
	c.writing = true
	data := append([]byte(nil), b...)
	c.run(func() {
		_ = c.conn.SetWriteDeadline(time.Now().Add(c.timeout)) // fails only with the write
		_, err := c.conn.Write(data)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errSlow
		}
		c.mu.Lock()
		c.writing = false
		if err != nil {
			c.in, c.inErr = nil, errors.Join(c.inErr, err)
			c.offer()
		}
		c.mu.Unlock()
		c.ready(canWrite)
	})
	return len(b), nil
}

func (c *stream) sent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.writing
}

func (c *stream) closeWrite() bool {
	tcp, ok := c.conn.(*net.TCPConn)
	return ok && tcp.CloseWrite() == nil
}

func (c *stream) close() {
	close(c.done)
	if _, ok := c.conn.(*tls.Conn); ok {
		c.run(func() { c.conn.Close() }) // says good-bye, which may take a while
		return
	}
	c.conn.Close()
}
