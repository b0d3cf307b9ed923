//go:build !streams

package poll

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller tells a loop which of its sockets can be read or written: epoll. Its descriptor is known to Go's own poller,
// so that a loop that waits costs no thread.
type poller struct {
	fd      int
	file    *os.File // owns fd
	raw     syscall.RawConn
	bell    int // an eventfd
	sockets map[int32]*socket
	events  [256]unix.EpollEvent
	ready   []unix.EpollEvent // the part of events that was filled last
	poll    func(uintptr) bool
	err     error // that of the last poll
}

func newPoller() (_ *poller, err error) {
	p := &poller{sockets: make(map[int32]*socket)}
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err = unix.SetNonblock(p.fd, true); err != nil {
		_ = unix.Close(p.fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p.file = os.NewFile(uintptr(p.fd), "epoll")
	p.raw, err = p.file.SyscallConn()
	if err == nil {
		p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		p.file.Close()
		return nil, os.NewSyscallError("eventfd", err)
	}
	// Edges need no reading of the bell.
	if err = p.control(unix.EPOLL_CTL_ADD, int32(p.bell), unix.EPOLLIN|unix.EPOLLET); err != nil {
		p.close()
		return nil, err
	}
	p.poll = func(uintptr) bool {
		p.look()
		return len(p.ready) > 0 || p.err != nil
	}
	return p, nil
}

func (p *poller) control(op int, fd int32, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, int(fd), &unix.EpollEvent{Events: events, Fd: fd}))
}

// look finds out what is ready now.
func (p *poller) look() {
	n, err := unix.EpollWait(p.fd, p.events[:], 0)
	if errors.Is(err, unix.EINTR) {
		n, err = 0, nil
	}
	p.ready, p.err = p.events[:max(n, 0)], os.NewSyscallError("epoll_wait", err)
}

// wait returns when a socket is ready or the bell was rung, or at once.
func (p *poller) wait(block bool) error {
	if p.look(); len(p.ready) > 0 || p.err != nil || !block {
		return p.err
	}
	if err := p.raw.Read(p.poll); err != nil {
		return err
	}
	return p.err
}

// serve has the owners served of all sockets that the last wait found ready.
func (p *poller) serve() {
	for _, e := range p.ready {
		c := p.sockets[e.Fd] // nil: the bell, or closed in this turn
		if c == nil {
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
	p.file.Close()
}
