//go:build integration

package load

import (
	"bytes"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// bare is the limit: a server that does what the kernel's part of sserver's work is and nothing else. It answers each
// line, and writes the same bytes to all connections in one loop.
type bare struct {
	*loop
	listener int
	conns    map[int]struct{} // by descriptor
	out      []byte
}

// listening is bare's answer to the order "where".
type listening struct{ Addr netip.AddrPort }

// sent is bare's answer to the order "send".
type sent struct {
	Begin, End int64 // by the monotonic clock
	Short      int   // connections that did not take all at once
}

func newBare(l *loop) (*bare, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, unix.SOMAXCONN),
			l.watch(fd, fd, unix.EPOLLIN))
	}
	return &bare{loop: l, listener: fd, conns: map[int]struct{}{}}, err
}

func (b *bare) obey(o order) (any, error) {
	if o.Do == "where" {
		name, err := unix.Getsockname(b.listener)
		if err != nil {
			return nil, err
		}
		at := name.(*unix.SockaddrInet4)
		return listening{netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))}, nil
	}
	s := sent{Begin: monotonic()}
	for fd := range b.conns {
		if n, err := write(fd, o.Bytes); err != nil || n < len(o.Bytes) {
			s.Short++
		}
	}
	s.End = monotonic()
	return s, nil
}

func (b *bare) tick(int64) error { return nil }

func (b *bare) ready(fd int, _ uint32) error {
	if fd == b.listener {
		return b.accept()
	}
	in, err := b.read(fd)
	if err != nil {
		delete(b.conns, fd)
		return unix.Close(fd)
	}
	b.out = b.out[:0]
	for line := range bytes.Lines(in) { // miners send a line whole
		id, _, _ := bytes.Cut(line[len(`{"id":`):], []byte{','})
		b.out = append(append(b.out, `{"id":`...), id...)
		result := `,"result":true,"error":null}` + "\n"
		if bytes.Contains(line, []byte(`"mining.subscribe"`)) {
			result = `,"result":[[["mining.set_difficulty","01000001"],["mining.notify","01000001"]],"01000001",8],"error":null}` + "\n"
		}
		b.out = append(b.out, result...)
	}
	_, _ = write(fd, b.out) // the end of a connection is read
	return nil
}

func (b *bare) accept() error {
	for {
		fd, _, err := unix.Accept4(b.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case err != nil:
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
		if err := b.watch(fd, fd, unix.EPOLLIN); err != nil {
			return err
		}
		b.conns[fd] = struct{}{}
	}
}
