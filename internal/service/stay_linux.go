package service

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"btcpool/internal/upgrade"
)

// envStayed tells a program that another process stays before it.
const envStayed = "POOL_STAYED"

// stayed tells whether this process is one that another stays before.
func stayed() bool { return os.Getenv(envStayed) != "" }

// stay runs the program in a process of its own, and stands for whoever serves, as one goes on for another: signals are
// passed on, and the code is that of the last one's end, when nobody is left. Who serves, services say as they say it to
// systemd.
func stay() (code int, err error) {
	if os.Getenv("NOTIFY_SOCKET") != "" {
		return 0, errors.New("-stay: systemd follows processes by itself")
	}
	path, err := upgrade.Executable()
	if err != nil {
		return 0, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil { // successors outlive who started them
		return 0, fmt.Errorf("-stay: children's children: %w", err)
	}
	v, err := newVigil()
	if err != nil {
		return 0, fmt.Errorf("-stay: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	child, err := os.StartProcess(path, os.Args, &os.ProcAttr{ //nolint:gosec // by which this process was started
		Env:   append(os.Environ(), envStayed+"=yes", "NOTIFY_SOCKET="+v.name),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true}, // a terminal's signals come by us
	})
	if err != nil {
		return 0, errors.Join(err, v.close())
	}
	group := child.Pid
	v.serves(group)
	go v.hear()
	defer func() { _ = v.close() }()

	type end struct {
		pid    int
		status unix.WaitStatus
	}
	ends := make(chan end)
	go func() {
		defer close(ends)
		for {
			var e end
			var err error
			if e.pid, err = unix.Wait4(-1, &e.status, 0, nil); err == nil {
				ends <- e
			} else if !errors.Is(err, unix.EINTR) { // nobody is left
				return
			}
		}
	}()
	for ended := 0; ; {
		select {
		case sig := <-signals:
			to := v.who()
			if to == ended { // whoever is left may have been about to follow it
				to = -group
			}
			_ = unix.Kill(to, sig.(syscall.Signal)) // one that has just ended needs none
		case e, some := <-ends:
			if !some {
				return code, nil
			}
			if v.followed(e.pid) {
				continue // another goes on
			}
			if ended, code = e.pid, e.status.ExitStatus(); e.status.Signaled() {
				code = 128 + int(e.status.Signal()) // as shells have it
			}
		}
	}
}

// vigil hears which process serves.
type vigil struct {
	name string
	conn *net.UnixConn
	self *net.UnixConn // to conn
	seen chan struct{} // one for each message by self

	mu      sync.Mutex
	serving int
	known   map[int]bool // that serve or did: others are not believed
}

func newVigil() (*vigil, error) {
	v := &vigil{name: "@btcpool-" + rand.Text(), seen: make(chan struct{}), known: make(map[int]bool)} // in no folder
	addr := &net.UnixAddr{Name: v.name, Net: "unixgram"}
	var err error
	if v.conn, err = net.ListenUnixgram("unixgram", addr); err != nil {
		return nil, err
	}
	if v.self, err = net.DialUnix("unixgram", nil, addr); err != nil {
		return nil, errors.Join(err, v.conn.Close())
	}
	raw, err := v.conn.SyscallConn()
	if err == nil {
		errControl := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, errControl)
	}
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *vigil) close() error { return errors.Join(v.self.Close(), v.conn.Close()) }

func (v *vigil) serves(pid int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.serving, v.known[pid] = pid, true
}

// who returns the process that serves, by all that has been said until now.
func (v *vigil) who() int {
	if _, err := v.self.Write([]byte{'.'}); err == nil {
		<-v.seen
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.serving
}

// followed reports whether another process is known to have followed this one.
func (v *vigil) followed(pid int) bool {
	serving := v.who()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known[pid] && pid != serving
}

func (v *vigil) hear() {
	text, control := make([]byte, 4096), make([]byte, 128)
	for {
		n, c, _, _, err := v.conn.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		from := senderOf(control[:c])
		if from == os.Getpid() {
			v.seen <- struct{}{}
			continue
		}
		v.mu.Lock()
		known := v.known[from]
		v.mu.Unlock()
		for line := range strings.Lines(string(text[:n])) {
			if number, ok := strings.CutPrefix(strings.TrimSpace(line), "MAINPID="); ok && known {
				if pid, err := strconv.Atoi(number); err == nil {
					v.serves(pid)
				}
			}
		}
	}
}

// senderOf returns whose message it is, 0 if nobody knows.
func senderOf(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for i := range messages {
		if c, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return int(c.Pid)
		}
	}
	return 0
}
