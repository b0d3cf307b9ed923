//go:build integration

package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/bitcoin"
)

// The helper processes each are one thread that waits for sockets and obeys the orders that come as JSON on the
// standard input. Each order gets one answer on the standard output. A helper ends with its input.

// order is what the test wants of a helper; which fields count depends on Do.
type order struct {
	Do          string
	Addr        netip.AddrPort `json:",omitzero"`
	Connections int
	Network     string  // first two bytes of the addresses to connect from
	Sources     int     // how many of them
	Rate        float64 // a second
	Difficulty  bitcoin.Difficulty
	Kind        string
	Bytes       []byte
	File        string
}

// actor is what a helper does.
type actor interface {
	obey(o order) (answer any, err error)
	// ready is called when the socket that was watched as number has something to say.
	ready(number int, events uint32) error
	// tick is called at least each millisecond.
	tick(now int64) error
}

// loop is the thread of a helper.
type loop struct {
	epoll   int
	scratch [64 << 10]byte // what is being read
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &loop{epoll: epoll}, err
}

// run obeys until the input ends.
func (l *loop) run(a actor, in io.Reader, out io.Writer) error {
	orders := make(chan order)
	ended := make(chan error, 1)
	go func() {
		for decoder := json.NewDecoder(in); ; {
			var o order
			if err := decoder.Decode(&o); err != nil {
				ended <- err
				return
			}
			orders <- o
		}
	}()
	answers := json.NewEncoder(out)
	events := make([]unix.EpollEvent, 512)
	for {
		select {
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case o := <-orders:
			answer, err := a.obey(o)
			if err == nil {
				err = answers.Encode(answer)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", o.Do, err)
			}
		default:
		}
		n, err := unix.EpollWait(l.epoll, events, 1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			if err := a.ready(int(e.Fd), e.Events); err != nil {
				return err
			}
		}
		if err := a.tick(monotonic()); err != nil {
			return err
		}
	}
}

// watch has ready called for fd with number, or changes which events it is called for.
func (l *loop) watch(fd, number int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(number)}
	err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &e)
	if errors.Is(err, unix.EEXIST) {
		err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, fd, &e)
	}
	return err
}

// read returns what has arrived, valid until the next read; nothing and no error means that nothing has, and io.EOF
// that the other side has gone in whatever way.
func (l *loop) read(fd int) ([]byte, error) {
	for {
		n, err := unix.Read(fd, l.scratch[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil, nil
		case err != nil || n == 0:
			return nil, io.EOF
		default:
			return l.scratch[:n], nil
		}
	}
}

// write returns how much the socket took; io.EOF means that the other side has gone.
func write(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Write(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case err != nil:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// dial starts to connect from the n-th of the sources in network to addr.
func dial(network string, n int, addr netip.AddrPort, receiveBuffer int) (fd int, err error) {
	from, err := netip.ParseAddr(fmt.Sprintf("%s.%d.%d", network, n/250, n%250+1))
	if err != nil {
		return -1, err
	}
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// Without this a port must be free for all destinations, not only for this one.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, err
	}
	if receiveBuffer > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return -1, err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return -1, fmt.Errorf("bind to %v: %w", from, err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, fmt.Errorf("connect from %v: %w", from, err)
	}
	return fd, nil
}

// monotonic is a clock that all processes of the host share, in nanoseconds.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return t.Nano()
}

// pacer says how many of something are due at a steady rate.
type pacer struct {
	every int64 // ns; 0: never
	next  int64
}

func (p *pacer) set(rate float64, now int64) {
	*p = pacer{next: now}
	if rate > 0 {
		p.every = max(int64(float64(time.Second)/rate), 1)
	}
}

// due reports whether one more is due. What could not be done for a second is left undone.
func (p *pacer) due(now int64) bool {
	if p.every == 0 || now < p.next {
		return false
	}
	p.next = max(p.next+p.every, now-int64(time.Second))
	return true
}

// play runs the helper called role and returns its exit code.
func play(role string) int {
	if role == "node" {
		return playNode()
	}
	l, err := newLoop()
	var a actor
	if err == nil {
		switch role {
		case "miners":
			a = newMiners(l)
		case "hostile":
			a = newHostile(l)
		case "bare":
			a, err = newBare(l)
		default:
			err = errors.New("no such helper")
		}
	}
	if err == nil {
		err = l.run(a, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		return 1
	}
	return 0
}
