//go:build unix

package poll

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// relay connects a stream with the process that serves it now: TLS has state that no descriptor carries.
type relay struct {
	there net.Conn // the other end is that process'
	fd    int      // that end, until it is there; -1 then
}

func newRelay() (*relay, error) {
	syscall.ForkLock.RLock()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(ends[0])
		unix.CloseOnExec(ends[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	here := os.NewFile(uintptr(ends[0]), "relay")
	defer here.Close()
	there, err := net.FileConn(here)
	if err != nil {
		_ = unix.Close(ends[1])
		return nil, err
	}
	return &relay{there, ends[1]}, nil
}

// take passes on what the peer has sent, and its end.
func (r *relay) take(b []byte, end error) (more bool) {
	if _, err := r.there.Write(b); err != nil {
		return false
	}
	if end != nil {
		_ = r.there.(*net.UnixConn).CloseWrite()
	}
	return end == nil
}

// dropFD closes the end that is not ours.
func (r *relay) dropFD() {
	_ = unix.Close(r.fd)
	r.fd = -1
}

func (c *stream) Pass() (fd int, err error) {
	if c.pass, err = newRelay(); err != nil {
		return -1, err
	}
	return c.pass.fd, nil
}

// Copy returns none: what the peer says is known here alone.
func (c *stream) Copy() (int, error) { return -1, nil }

func (c *stream) Keep() {
	if c.pass != nil {
		c.pass.there.Close()
		c.pass.dropFD()
		c.pass = nil
	}
}

func (c *stream) Leave() (stop func()) {
	c.closed = true
	r := c.pass
	r.dropFD()
	c.mu.Lock()
	in, inErr := c.in, c.inErr
	c.relay, c.in = r, nil
	c.mu.Unlock()
	if len(in) > 0 || inErr != nil {
		c.run(func() {
			if r.take(in, inErr) {
				c.taken <- struct{}{} // has room: the reader waits for it
			}
		})
	}
	stop = sync.OnceFunc(func() {
		close(c.done)
		c.conn.Close()
		r.there.Close()
	})
	c.run(func() {
		defer stop()
		c.answer(r)
	})
	return stop
}

// answer writes to the peer what the other process has to say.
func (c *stream) answer(r *relay) {
	c.wrote.Lock() // behind what is being written
	defer c.wrote.Unlock()
	buf := make([]byte, streamBytes)
	for {
		n, err := r.there.Read(buf)
		if n > 0 {
			_ = c.conn.SetWriteDeadline(time.Now().Add(c.timeout)) // fails only with the write
			if _, err := c.conn.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
