//go:build linux && !streams

package poll_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"btcpool/internal/poll"
)

// adopt has another rig serve what link passes, as if it were another process: descriptors are sent as copies.
func (r *rig) adopt(fd int) *peer {
	r.tb.Helper()
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		r.tb.Fatal(err)
	}
	link, err := poll.Passed(own)
	if err != nil {
		r.tb.Fatal(err)
	}
	p := &peer{link: link, limit: 1 << 20, ended: make(chan error, 1)}
	r.do(func() { err = link.Attach(r.loop, p) })
	if err != nil {
		r.tb.Fatal(err)
	}
	return p
}

// pass stops p from reading and returns what another process goes on with.
func (r *rig) pass(p *peer) (fd int) {
	r.tb.Helper()
	var err error
	r.do(func() {
		p.serve = func(poll.Readiness) {}
		fd, err = p.link.Pass()
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	return fd
}

func ask(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	go func() { _, _ = io.WriteString(conn, text) }()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != text {
		t.Fatalf("got %.40q, %v", buf, err)
	}
}

// A connection goes on in another process with what nobody has read, however often it is passed on, and ends there.
func TestPass(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		rigs := []*rig{start(t, kind, patience), start(t, socket, patience), start(t, socket, patience)}
		conn, p := rigs[0].connect()
		ask(t, conn, "to the first")
		for i, next := range rigs[1:] {
			here := rigs[i]
			fd := here.pass(p)
			if _, err := io.WriteString(conn, "between "); err != nil {
				t.Fatal(err)
			}
			next := next.adopt(fd)
			here.do(func() { p.link.Leave() })
			buf := make([]byte, len("between "))
			if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "between " {
				t.Fatalf("got %q, %v", buf, err)
			}
			ask(t, conn, strings.Repeat("a long text ", 10_000))
			p = next
		}
		conn.Close()
		rigs[2].wantEnd(p, io.EOF)
	})
}

// A link goes on that another process has a copy of. When it is closed, its loop hears no more of it, though the copy is
// open, and the peer hears of the end with the copy.
func TestCopy(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		conn, p := r.connect()
		ask(t, conn, "before")
		var fd int
		var err error
		r.do(func() { fd, err = p.link.Copy() })
		if kind != socket {
			if fd != -1 || err != nil {
				t.Fatalf("descriptor %d, %v", fd, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		ask(t, conn, "after")
		watched := r.watched()
		r.do(p.link.Close)
		if left := r.watched(); left != watched-1 {
			t.Errorf("%d of %d descriptors are watched", left, watched)
		}
		if _, err := io.WriteString(conn, "into the copy"); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// watched returns how many descriptors the loop watches.
func (r *rig) watched() int {
	r.tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", r.loop.Epoll()))
	if err != nil {
		r.tb.Fatal(err)
	}
	return strings.Count(string(text), "tfd:")
}

// What was read ahead of its owner is not lost.
func TestPassReadAhead(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		one, two := start(t, kind, patience), start(t, socket, patience)
		conn, p := one.connect()
		ask(t, conn, "first")
		one.do(func() { p.link.Want(false, false) })
		if _, err := io.WriteString(conn, "unread"); err != nil {
			t.Fatal(err)
		}
		fd := one.pass(p)
		other := two.adopt(fd)
		one.do(func() { p.link.Leave() })
		buf := make([]byte, len("unread"))
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "unread" {
			t.Fatalf("got %q, %v", buf, err)
		}
		conn.Close()
		two.wantEnd(other, io.EOF)
	})
}

// A link that the other process did not take goes on here.
func TestKeep(t *testing.T) {
	t.Parallel()
	each(t, all, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		conn, p := r.connect()
		r.pass(p)
		if _, err := io.WriteString(conn, "while it was away"); err != nil {
			t.Fatal(err)
		}
		r.do(func() {
			p.serve = nil
			p.link.Keep()
			p.Serve(poll.CanRead | poll.CanWrite)
		})
		buf := make([]byte, len("while it was away"))
		if _, err := io.ReadFull(conn, buf); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		r.wantEnd(p, io.EOF)
	})
}

// The other process may end the connection, and so may who relays it.
func TestRelayEnds(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		one, two := start(t, secure, patience), start(t, socket, patience)
		conn, p := one.connect()
		fd := one.pass(p)
		other := two.adopt(fd)
		var stop func()
		one.do(func() { stop = p.link.Leave() })
		ask(t, conn, "relayed")
		if stopped {
			stop()
			two.wantEnd(other, io.EOF)
		} else {
			two.do(func() { other.link.Close() })
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("read: %v", err)
		}
	}
}

// A listener that passes to another process refuses nobody.
func TestListenerPasses(t *testing.T) {
	t.Parallel()
	each(t, []string{socket, secure}, func(t *testing.T, kind string) {
		r := start(t, kind, patience)
		if err := r.listener.Pause(); err != nil {
			t.Fatal(err)
		}
		first := r.dial()
		if _, _, err := r.listener.Accept(); !errors.Is(err, poll.ErrPaused) {
			t.Fatalf("accept while it is paused: %v", err)
		}
		if err := r.listener.Resume(); err != nil {
			t.Fatal(err)
		}
		link, _, err := r.listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		link.Close()
		first.Close()
		file, err := r.listener.File()
		if err != nil {
			t.Fatal(err)
		}
		r.dial()
		if err := r.listener.Close(); err != nil {
			t.Fatal(err)
		}
		next, err := poll.Listen(poll.Config{Inherited: file})
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		if next.Addr().String() != r.listener.Addr().String() {
			t.Errorf("listens at %s", next.Addr())
		}
		if link, _, err = next.Accept(); err != nil {
			t.Fatal(err)
		}
		link.Close()
	})
}
