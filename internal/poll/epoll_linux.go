//go:build !streams

package poll

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// poller tells a loop which of its sockets can be read or written: epoll. The loop's thread waits in the kernel: to have
// Go's own poller watch this one's descriptor costs two wake-ups for one, each by way of the scheduler.
type poller struct {
	fd      int
	bell    int // an eventfd
	sockets map[int32]*socket
	events  [256]unix.EpollEvent
	ready   []unix.EpollEvent // the part of events that was filled last
}

func newPoller() (_ *poller, err error) {
	p := &poller{sockets: make(map[int32]*socket)}
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(p.fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err = p.control(unix.EPOLL_CTL_ADD, int32(p.bell), unix.EPOLLIN); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) control(op int, fd int32, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, int(fd), &unix.EpollEvent{Events: events, Fd: fd}))
}

// wait returns when a socket is ready or the bell was rung, or at once.
func (p *poller) wait(block bool) error {
	timeout := 0
	if block {
		timeout = -1
	}
	n, err := unix.EpollWait(p.fd, p.events[:], timeout)
	if errors.Is(err, unix.EINTR) {
		n, err = 0, nil
	}
	p.ready = p.events[:max(n, 0)]
	return os.NewSyscallError("epoll_wait", err)
}

// pause returns after d, or when the bell is rung.
func (p *poller) pause(d time.Duration) error {
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		timeout := unix.NsecToTimespec(d.Nanoseconds())
		_, err := unix.Ppoll([]unix.PollFd{{Fd: int32(p.bell), Events: unix.POLLIN}}, &timeout, nil)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("ppoll", err)
		}
	}
	return nil
}

// more reports whether the last wait may not have found all that was ready.
func (p *poller) more() bool { return len(p.ready) == len(p.events) }

// serve has the owners served of all sockets that the last wait found ready.
func (p *poller) serve() {
	for _, e := range p.ready {
		if e.Fd == int32(p.bell) {
			var rings [8]byte
			_, _ = unix.Read(p.bell, rings[:]) // only the loop reads it
			continue
		}
		c := p.sockets[e.Fd]
		if c == nil { // closed in this turn
			continue
		}
		var r Readiness
		broken := e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0
		switch {
		case c.wanted&unix.EPOLLIN == 0 && broken:
			r |= Broken
		case e.Events&unix.EPOLLIN != 0 || broken:
			r |= CanRead
		}
		if e.Events&unix.EPOLLOUT != 0 {
			r |= CanWrite
		}
		c.owner.Serve(r)
	}
}

// wake makes wait return. It may be called from any goroutine.
func (p *poller) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.bell, one[:]) // fails only when it has rung 2^64 times
}

func (p *poller) close() {
	_ = unix.Close(p.bell)
	_ = unix.Close(p.fd)
}
