//go:build linux

package upgrade_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/upgrade"
)

// childDoes says what the test's own program does when it is started as a new process.
const childDoes = "UPGRADE_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childDoes); what != "" {
		child(what)
	}
	os.Exit(m.Run())
}

func child(what string) {
	if what == "exit" {
		os.Exit(3)
	}
	p, err := upgrade.Inherit()
	if err != nil {
		os.Exit(4)
	}
	switch what {
	case "refuse":
		p.Refuse(errors.New("another data_dir"))
	case "hang":
		select {}
	case "die":
		_ = p.Ready(nil)
		_, _ = p.Receive()
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	case "serve":
		ln, err := net.FileListener(p.Listener("door"))
		if err != nil {
			os.Exit(5)
		}
		_ = p.Ready([]byte("settings were " + string(p.Settings)))
		m, err := p.Receive()
		if err != nil {
			os.Exit(6)
		}
		if err := p.Taken(); err != nil {
			os.Exit(7)
		}
		p.GoOn()
		conn, err := ln.Accept()
		if err == nil {
			_, _ = io.WriteString(conn, "from the new process")
			conn.Close()
		}
		one := os.NewFile(uintptr(m.FDs[0]), "moved")
		_, _ = one.WriteString("moved: " + string(m.Body))
	}
	os.Exit(0)
}

func startChild(t *testing.T, what string) *upgrade.Successor {
	t.Helper()
	_ = os.Setenv(childDoes, what) // of a test that may go on beside others
	s, err := upgrade.Start()
	_ = os.Unsetenv(childDoes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func listener(t *testing.T) (net.Listener, *os.File) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return ln, file
}

// A new process gets the listener, a connection, and the word.
func TestSuccessor(t *testing.T) {
	s := startChild(t, "serve")
	ln, file := listener(t)
	s.Offer("door", file)
	if err := s.Introduce([]byte("blue")); err != nil {
		t.Fatal(err)
	}
	ready, err := s.Ready(t.Context())
	if err != nil || string(ready) != "settings were blue" {
		t.Fatalf("%q, %v", ready, err)
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	here := os.NewFile(uintptr(ends[0]), "here")
	defer here.Close()
	if err := s.Send(upgrade.KindService, []byte("state"), ends[1]); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(ends[1])
	if err := s.Taken(); err != nil {
		t.Fatal(err)
	}
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if text, err := io.ReadAll(conn); err != nil || string(text) != "from the new process" {
		t.Fatalf("%q, %v", text, err)
	}
	if text, err := io.ReadAll(here); err != nil || string(text) != "moved: state" {
		t.Fatalf("%q, %v", text, err)
	}
}

// Why there is no successor is said in words.
func TestSuccessorFails(t *testing.T) {
	for what, want := range map[string]string{
		"exit":   "the new process has ended: exit status 3",
		"refuse": "another data_dir",
		"die":    "the new process has ended: signal: killed",
		"hang":   "the new process is not ready within 200ms",
	} {
		s := startChild(t, what)
		if what == "hang" {
			s.SetReadyTimeout(200 * time.Millisecond)
		}
		err := s.Introduce(nil)
		if err == nil {
			_, err = s.Ready(t.Context())
		}
		if err == nil {
			err = s.Send(upgrade.KindService, nil)
		}
		if err == nil {
			err = s.Taken()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
}

// A new process that never says that it is ready has 30 seconds, unless a test has set something else, and is ended.
func TestNeverReady(t *testing.T) {
	s := startChild(t, "hang")
	t.Parallel()
	began := time.Now()
	err := s.Introduce(nil)
	if err == nil {
		_, err = s.Ready(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "is not ready within 30s") || time.Since(began) < 30*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	s.Kill()
	if err := unix.Kill(s.PID(), 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("it has not ended: %v", err)
	}
}

// Who stops does not wait for a new process.
func TestReadyEndsWithContext(t *testing.T) {
	s, p, err := upgrade.Pair(func(s *upgrade.Successor) error { return s.Introduce(nil) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := s.Ready(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
}

// As many descriptors as the kernel takes arrive, and none stays open when they are dropped.
func TestDescriptors(t *testing.T) {
	s, p, err := upgrade.Pair(func(s *upgrade.Successor) error { return s.Introduce(nil) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Kill()
	defer p.Close()
	fds := make([]int, upgrade.MaxFDs)
	for i := range fds {
		fds[i] = 2
	}
	for range 20 {
		if err := s.Send(upgrade.KindService, []byte("many"), fds...); err != nil {
			t.Fatal(err)
		}
		m, err := p.Receive()
		if err != nil || len(m.FDs) != len(fds) || string(m.Body) != "many" {
			t.Fatal(err, len(m.FDs))
		}
		for _, fd := range m.FDs {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Fatalf("descriptor %d: flags %x, %v", fd, flags, err)
			}
		}
		m.Close()
	}
}
