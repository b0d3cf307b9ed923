package service_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade"
)

func init() {
	programs["follows"] = func() { os.Exit(service.Main("follows", os.Args[1:], os.Stderr, defaults(), newFollower)) }
}

// follower is a service whose processes follow each other.
type follower struct {
	deps   service.Deps
	name   string
	relays bool // the old one stays, with something to do for the new one
	relay  *os.File
	gone   chan struct{}
}

func newFollower(cfg testConfig, deps service.Deps) (*follower, error) {
	return &follower{deps: deps, name: cfg.Name, relays: cfg.Name == "relaying", gone: make(chan struct{})}, nil
}

func (f *follower) Ready() error { return nil }
func (f *follower) Close() error { return nil }

func (f *follower) Run(ctx context.Context) error {
	if p := f.deps.Predecessor; p != nil {
		if f.name == "refusing" {
			return errors.New("it is refusing")
		}
		if err := p.Ready(nil); err != nil {
			return err
		}
		m, err := p.Receive()
		if err != nil {
			return err
		}
		defer m.Close() // its connection
		if err := p.Taken(); err != nil {
			return err
		}
		p.GoOn()
	}
	f.deps.Log.Info().Int("pid", os.Getpid()).Msg("serving")
	select {
	case <-ctx.Done():
		if f.name == "failing" {
			return errors.New("it is failing")
		}
	case <-f.gone:
		defer f.relay.Close()
		if f.relays {
			_, _ = f.relay.Read(make([]byte, 1)) // until the new one has ended
		}
	}
	return nil
}

func (f *follower) HandOver(ctx context.Context, to *upgrade.Successor) (int, time.Duration, error) {
	err := to.Introduce(nil)
	if err == nil {
		_, err = to.Ready(ctx)
	}
	ends, errPair := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err = errors.Join(err, errPair); err == nil {
		f.relay = os.NewFile(uintptr(ends[0]), "relay")
		err = to.Send(upgrade.KindService, nil, ends[1])
		_ = unix.Close(ends[1])
	}
	if err == nil {
		err = to.Taken()
	}
	if err == nil {
		err = to.Go()
	}
	if err != nil {
		to.Kill()
		return 0, 0, err
	}
	close(f.gone)
	return 0, 0, nil
}

// stayer is a process that stays before followers.
type stayer struct {
	t     *testing.T
	file  string // their configuration
	cmd   *exec.Cmd
	said  chan map[string]any // lines of their log
	ended chan struct{}
}

func stay(t *testing.T, name string) *stayer {
	t.Helper()
	s := &stayer{t: t, file: filepath.Join(t.TempDir(), "follows.toml"), said: make(chan map[string]any, 100), ended: make(chan struct{})}
	s.configure(name)
	s.cmd = exec.Command("follows", "-stay", "-config", s.file)
	log, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // until all of them have ended
		defer close(s.ended)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				s.said <- line
			}
		}
		_ = s.cmd.Wait() // its state says how it ended
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		<-s.ended
	})
	return s
}

func (s *stayer) configure(name string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, fmt.Appendf(nil, "name = %q\nadmin = \"\"\n", name), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// hears waits for a line of the log.
func (s *stayer) hears(message string) map[string]any {
	s.t.Helper()
	late := time.After(testkit.Patience)
	for {
		select {
		case line := <-s.said:
			if line["message"] == message {
				return line
			}
		case <-late:
			s.t.Fatalf("nobody says %q", message)
		}
	}
}

// serves waits for the next process that serves, and returns it.
func (s *stayer) serves() (pid int) {
	s.t.Helper()
	return int(s.hears("serving")["pid"].(float64))
}

func (s *stayer) signal(pid int, sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits until all have ended.
func (s *stayer) ends(code int) {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(testkit.Patience):
		s.t.Fatal("it has not ended")
	}
	if is := s.cmd.ProcessState.ExitCode(); is != code {
		s.t.Errorf("ended with code %d, want %d", is, code)
	}
}

func gone(t *testing.T, pid int) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("process %d has ended", pid), func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

// Who stays before a service is the same process through all upgrades, passes signals on to whoever serves, and ends with
// it, as it.
func TestStay(t *testing.T) {
	t.Parallel()
	s := stay(t, "some")
	pid := s.serves()
	for range 3 {
		s.signal(s.cmd.Process.Pid, syscall.SIGUSR2)
		next := s.serves()
		gone(t, pid)
		if next == pid || next == s.cmd.Process.Pid {
			t.Fatalf("process %d serves after %d", next, pid)
		}
		pid = next
	}
	s.configure("refusing") // nobody follows
	s.signal(s.cmd.Process.Pid, syscall.SIGUSR2)
	s.hears("no new process has taken over, this one goes on")
	s.configure("some")
	s.signal(s.cmd.Process.Pid, syscall.SIGUSR2)
	next := s.serves()
	gone(t, pid)
	s.signal(s.cmd.Process.Pid, syscall.SIGTERM)
	s.ends(0)
	gone(t, next)
}

// The end of whoever serves is the end of who stays before, with its code, at whatever moment.
func TestStayEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		upgrades int
		name     string
		signal   syscall.Signal
		code     int
	}{
		"killed":                          {signal: syscall.SIGKILL, code: 128 + 9},
		"killed after upgrades":           {upgrades: 2, signal: syscall.SIGKILL, code: 128 + 9},
		"fails":                           {name: "failing", signal: syscall.SIGTERM, code: 1},
		"fails after upgrades":            {name: "failing", upgrades: 2, signal: syscall.SIGTERM, code: 1},
		"killed while those before relay": {name: "relaying", upgrades: 2, signal: syscall.SIGKILL, code: 128 + 9},
		"stopped by itself while one of them was": {name: "relaying", upgrades: 1, signal: syscall.SIGTERM, code: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stay(t, cmp.Or(end.name, "some"))
			pid := s.serves()
			for range end.upgrades {
				s.signal(pid, syscall.SIGUSR2)
				pid = s.serves()
			}
			s.signal(pid, end.signal)
			s.ends(end.code)
		})
	}
	s := stay(t, "") // is refused
	s.ends(2)
}

// Only those that serve, or did, say who does.
func TestStayBelievesNobody(t *testing.T) {
	t.Parallel()
	s := stay(t, "some")
	pid := s.serves()
	environment, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	_, name, _ := strings.Cut(string(environment), "NOTIFY_SOCKET=")
	name, _, ok := strings.Cut(name, "\x00")
	if !ok {
		t.Fatalf("%q", environment)
	}
	conn, err := net.Dial("unixgram", name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "MAINPID=%d", os.Getpid()); err != nil {
		t.Fatal(err)
	}
	s.signal(s.cmd.Process.Pid, syscall.SIGTERM)
	s.ends(0)
}
