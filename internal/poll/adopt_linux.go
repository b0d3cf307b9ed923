//go:build !streams

package poll

import (
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Adopt returns a link of a connection that was dialled, which it takes over: a socket, if it is plain TCP, else a stream.
func Adopt(conn net.Conn, run func(func()), timeout time.Duration) (Link, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return NewStream(conn, run, timeout), nil
	}
	defer func() { _ = tcp.Close() }() // its descriptor; the socket stays
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if ctlErr := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, syscall.F_DUPFD_CLOEXEC, 0) }); ctlErr != nil {
		err = ctlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &socket{fd: int32(fd)}, nil
}

// Reset has Close reset the connection: a peer notices that at once, which may not read to the end of what it was sent.
func (c *socket) Reset() {
	_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // else it is closed
}
