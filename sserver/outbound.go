package sserver

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// What may wait for one connection, in bytes: dozens of jobs, and for an agent
// new difficulties of all its miners besides.
const (
	maxUnsent      = 64 << 10
	maxUnsentAgent = 512 << 10
)

var errSlow = errors.New("does not read")

// outbound is the way to one miner. Nobody waits for the miner: what its socket
// does not take at once is queued, and sent by a goroutine that lives as long
// as there is a queue. A miner with too much of it is cut off.
type outbound struct {
	conn    net.Conn
	raw     syscall.RawConn // nil: all is queued
	timeout time.Duration   // for the miner to take what is queued
	run     func(func())    // starts the goroutine
	slow    func()          // called once when the miner is cut off

	mu       sync.Mutex
	limit    int // bytes in queue
	queue    []byte
	flushing bool
	err      error // no more is sent

	// Of the attempt in progress; the closure is made once for all of them.
	attempt func(fd uintptr) bool
	data    []byte
	n       int
	dataErr error
}

func newOutbound(conn net.Conn, timeout time.Duration, run func(func()), slow func()) *outbound {
	o := &outbound{conn: conn, timeout: timeout, run: run, slow: slow, limit: maxUnsent}
	if socket, ok := conn.(syscall.Conn); ok {
		o.raw, _ = socket.SyscallConn()
	}
	o.attempt = func(fd uintptr) bool {
		o.n, o.dataErr = writeOnce(fd, o.data)
		return true // whether it could write or not: never wait
	}
	return o
}

// send does not block and does not keep b. Its error is that of the connection.
func (o *outbound) send(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if len(o.queue) == 0 && !o.flushing && o.raw != nil {
		o.data, o.n, o.dataErr = b, 0, nil
		err := o.raw.Write(o.attempt)
		o.data = nil
		if err = errors.Join(err, o.dataErr); err != nil {
			o.fail(err)
			return err
		}
		b = b[o.n:]
	}
	if len(b) == 0 {
		return nil
	}
	if len(o.queue)+len(b) > o.limit {
		o.fail(errSlow)
		o.slow()
		return errSlow
	}
	o.queue = append(o.queue, b...)
	if !o.flushing {
		o.flushing = true
		o.run(o.flush)
	}
	return nil
}

// allow sets how many bytes may wait.
func (o *outbound) allow(limit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limit = limit
}

// fail ends the connection, which its reader notices.
func (o *outbound) fail(err error) {
	o.err = err
	o.queue = nil
	o.conn.Close()
}

func (o *outbound) flush() {
	var sending []byte
	for {
		o.mu.Lock()
		sending, o.queue = o.queue, sending[:0]
		if len(sending) == 0 {
			o.flushing = false
			o.queue = nil
			if o.err != nil {
				o.conn.Close()
			}
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()

		_ = o.conn.SetWriteDeadline(time.Now().Add(o.timeout)) // fails only with the write
		if _, err := o.conn.Write(sending); err != nil {
			o.mu.Lock()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				o.slow()
			}
			o.fail(err)
			o.flushing = false
			o.mu.Unlock()
			return
		}
	}
}

// close ends the connection when what is queued has been sent.
func (o *outbound) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = net.ErrClosed
	}
	if !o.flushing {
		o.conn.Close()
	}
}
