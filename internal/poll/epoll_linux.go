//go:build !streams

package poll

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller tells a loop which of its sockets can be read or written: epoll. A loop that waits costs no thread: Go's own
// poller waits for it. What that one watches is a door before the sockets, which is open only then. Were it to watch
// them at all times, a thread of Go's would wake for each share, see that nobody asked, and sleep again.
type poller struct {
	fd      int      // of the sockets and the bell
	bell    int      // an eventfd
	door    int      // of what watches fd
	file    *os.File // owns door
	raw     syscall.RawConn
	open    bool // the door
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
	if p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(p.fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	if p.door, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		err = unix.SetNonblock(p.door, true)
	}
	if err != nil {
		_, _ = unix.Close(p.fd), unix.Close(p.bell)
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p.file = os.NewFile(uintptr(p.door), "epoll")
	p.raw, err = p.file.SyscallConn()
	if err == nil { // edges need no reading of the bell
		err = control(p.fd, unix.EPOLL_CTL_ADD, p.bell, unix.EPOLLIN|unix.EPOLLET)
	}
	if err == nil {
		err = control(p.door, unix.EPOLL_CTL_ADD, p.fd, shut)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	p.poll = func(uintptr) bool {
		p.look()
		if len(p.ready) > 0 || p.err != nil || p.open {
			return len(p.ready) > 0 || p.err != nil
		}
		if p.err = control(p.door, unix.EPOLL_CTL_MOD, p.fd, unix.EPOLLIN); p.err != nil {
			return true
		}
		p.open = true
		// What became ready before that wakes nobody: the kernel tells of it only once, and may have before, to the last
		// who waited.
		p.look()
		return len(p.ready) > 0 || p.err != nil
	}
	return p, nil
}

// shut is what a door watches for that is not open.
const shut = 0

func control(epoll, op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

func (p *poller) control(op int, fd int32, events uint32) error {
	return control(p.fd, op, int(fd), events)
}

// forget has the loop hear no more of a socket that is about to be closed here alone.
func (p *poller) forget(fd int32) {
	if p.fd >= 0 {
		_ = p.control(unix.EPOLL_CTL_DEL, fd, 0) // does not fail for what was added
	}
}

// look finds out what is ready now.
func (p *poller) look() {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), 0, 0, 0) //nolint:gosec // the kernel writes into p.events, whose length it knows
	p.ready, p.err = p.events[:0], nil
	switch errno {
	case 0:
		p.ready = p.events[:n]
	case unix.EINTR:
	default:
		p.err = os.NewSyscallError("epoll_wait", errno)
	}
}

// wait returns when a socket is ready or the bell was rung, or at once.
func (p *poller) wait(block bool) error {
	if !block {
		p.look()
		return p.err
	}
	err := p.raw.Read(p.poll)
	if p.open {
		p.open = false
		err = errors.Join(err, control(p.door, unix.EPOLL_CTL_MOD, p.fd, shut))
	}
	return errors.Join(err, p.err)
}

// more reports whether the last wait may not have found all that was ready.
func (p *poller) more() bool { return len(p.ready) == len(p.events) }

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
	_, _ = unix.Close(p.bell), unix.Close(p.fd)
	p.fd = -1
	p.file.Close()
}
