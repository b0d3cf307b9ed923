package sserver

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller tells a loop which of its sockets can be read or written: epoll. Its
// descriptor is known to Go's own poller, so that a loop that waits costs no
// thread.
type poller struct {
	fd      int
	file    *os.File // owns fd
	raw     syscall.RawConn
	bell    int // an eventfd
	sockets map[int32]*socket
	events  [256]unix.EpollEvent
	ready   []unix.EpollEvent // of events
	poll    func(uintptr) bool
	err     error // of poll
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
	if err = p.control(unix.EPOLL_CTL_ADD, p.bell, unix.EPOLLIN|unix.EPOLLET); err != nil {
		p.close()
		return nil, err
	}
	p.poll = func(uintptr) bool {
		p.look()
		return len(p.ready) > 0 || p.err != nil
	}
	return p, nil
}

func (p *poller) control(op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
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

// each calls serve for all sockets that the last wait found ready.
func (p *poller) each(serve func(*session, readiness)) {
	for _, e := range p.ready {
		c := p.sockets[e.Fd] // nil: the bell, or closed in this turn
		if c == nil {
			continue
		}
		var r readiness
		broken := e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0
		switch {
		case c.wanted&unix.EPOLLIN == 0 && broken:
			r |= isBroken
		case e.Events&unix.EPOLLIN != 0 || broken:
			r |= canRead
		}
		if e.Events&unix.EPOLLOUT != 0 {
			r |= canWrite
		}
		serve(c.session, r)
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

// socket is the link of a plain connection.
type socket struct {
	fd      int
	poller  *poller
	session *session
	wanted  uint32 // events
}

func (c *socket) attach(l *loop, s *session) error {
	c.poller, c.session, c.wanted = l.poller, s, unix.EPOLLIN
	c.poller.sockets[int32(c.fd)] = c
	return c.poller.control(unix.EPOLL_CTL_ADD, c.fd, c.wanted)
}

func (c *socket) want(read, write bool) {
	var events uint32
	if read {
		events |= unix.EPOLLIN
	}
	if write {
		events |= unix.EPOLLOUT
	}
	if events != c.wanted {
		c.wanted = events
		_ = c.poller.control(unix.EPOLL_CTL_MOD, c.fd, events) // does not fail for what was added
	}
}

func (c *socket) read(b []byte) (int, error) {
	switch n, err := ignoringInterrupts(unix.Read, c.fd, b); {
	case errors.Is(err, unix.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

func (c *socket) write(b []byte) (int, error) {
	n, err := ignoringInterrupts(unix.Write, c.fd, b)
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return max(n, 0), err
}

func ignoringInterrupts(call func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		if n, err := call(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (c *socket) sent() bool { return true } // as far as close is concerned

func (c *socket) closeWrite() bool { return unix.Shutdown(c.fd, unix.SHUT_WR) == nil }

func (c *socket) close() {
	if c.poller != nil {
		delete(c.poller.sockets, int32(c.fd))
	}
	_ = unix.Close(c.fd)
}

// socketListener accepts connections that only a loop knows of.
type socketListener struct {
	file *os.File // of the same socket as its net.Listener
	raw  syscall.RawConn
}

// Go's own settings, which connections have from their listener.
const keepAliveSeconds, keepAliveProbes = 15, 9

func newSocketListener(l net.Listener) (*socketListener, error) {
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		for _, o := range [...][3]int{
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAliveSeconds},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepAliveSeconds},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveProbes},
		} {
			optErr = errors.Join(optErr, os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), o[0], o[1], o[2])))
		}
	})
	if err = errors.Join(err, optErr); err != nil {
		file.Close()
		return nil, err
	}
	return &socketListener{file, raw}, nil
}

// accept returns the next connection and who made it. It returns net.ErrClosed
// after close.
func (l *socketListener) accept() (link, netip.Addr, error) {
	var (
		fd   int
		from unix.Sockaddr
		err  error
	)
	closed := l.raw.Read(func(listener uintptr) bool {
		for {
			fd, from, err = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if closed != nil {
		return nil, netip.Addr{}, net.ErrClosed
	}
	if err != nil {
		return nil, netip.Addr{}, os.NewSyscallError("accept4", err)
	}
	var ip netip.Addr
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		ip = netip.AddrFrom4(a.Addr)
	case *unix.SockaddrInet6:
		ip = netip.AddrFrom16(a.Addr).Unmap()
	}
	return &socket{fd: fd}, ip, nil
}

func (l *socketListener) close() { l.file.Close() }
