//go:build !streams

package poll

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is the link of a plain connection.
type socket struct {
	fd     int32
	wanted uint32  // events
	poller *poller // nil: none yet
	owner  Owner
	copied bool // another process may have it open
}

func (c *socket) Attach(l *Loop, o Owner) error {
	c.poller, c.owner, c.wanted = l.poller, o, unix.EPOLLIN
	c.poller.sockets[c.fd] = c
	return c.poller.control(unix.EPOLL_CTL_ADD, c.fd, c.wanted)
}

func (c *socket) Want(read, write bool) {
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

func (c *socket) Read(b []byte) (int, error) {
	switch n, err := ignoringInterrupts(unix.SYS_RECVFROM, c.fd, b); {
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

func (c *socket) Write(b []byte) (int, error) {
	n, err := ignoringInterrupts(unix.SYS_SENDTO, c.fd, b)
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return max(n, 0), err
}

// ignoringInterrupts calls recvfrom or sendto, which are cheaper than read and write: those take any file. The socket
// never blocks, so that the scheduler need not know of it: as a call that may block, each would wake the runtime's
// monitor thread.
func ignoringInterrupts(call uintptr, fd int32, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0) //nolint:gosec // the kernel gets b and its length
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, unix.EAGAIN
		default:
			return 0, errno
		}
	}
}

func (c *socket) Sent() bool { return true } // as far as close is concerned

func (c *socket) CloseWrite() bool { return unix.Shutdown(int(c.fd), unix.SHUT_WR) == nil }

func (c *socket) Close() {
	if c.poller != nil {
		delete(c.poller.sockets, c.fd)
		if c.copied {
			c.poller.forget(c.fd)
		}
	}
	_ = unix.Close(int(c.fd))
}

// Passed makes a link of what another process got by Pass. The descriptor is the link's.
func Passed(fd int) (Link, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &socket{fd: int32(fd)}, nil
}

func (c *socket) Copy() (fd int, err error) {
	c.copied = true
	fd, err = unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, os.NewSyscallError("fcntl", err)
}

func (c *socket) Pass() (fd int, err error) { return int(c.fd), nil }

func (c *socket) Keep() {}

func (c *socket) Leave() (stop func()) {
	c.copied = true
	c.Close()
	return nil
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

// accept returns the next connection and who made it. It returns net.ErrClosed after close.
func (l *socketListener) accept() (Link, netip.Addr, error) {
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
	switch {
	case errors.Is(closed, os.ErrDeadlineExceeded):
		return nil, netip.Addr{}, ErrPaused
	case closed != nil:
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
	return &socket{fd: int32(fd)}, ip, nil
}

func (l *socketListener) pause(by time.Time) error { return l.file.SetReadDeadline(by) }

func (l *socketListener) close() { l.file.Close() }
