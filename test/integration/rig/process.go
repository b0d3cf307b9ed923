//go:build integration

package rig

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program of the rig: it can be killed and started again with the same arguments,
// appending to the same log.
type Process struct {
	Name string

	t    testing.TB
	path string
	args []string
	env  []string
	log  string // of both outputs
	out  string // of the standard output alone, if set

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has been reaped
}

// start runs a program whose output goes to <dir>/<name>.log; it is killed when the test ends, and
// its log is shown if the test failed.
func start(t testing.TB, dir, name, path string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, path: path, args: args, env: env, log: filepath.Join(dir, name+".log")}
	p.run(t)
	return p
}

// run starts the program for the first time.
func (p *Process) run(t testing.TB) {
	t.Helper()
	p.t = t
	p.Start()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s: last lines of its log\n%s", p.Name, p.LogTail(2<<10))
		}
	})
}

// Start runs the program (again).
func (p *Process) Start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Stdout, cmd.Stderr = out, out
	if p.out != "" {
		stdout, err := os.Create(p.out)
		if err != nil {
			p.t.Fatal(err)
		}
		defer stdout.Close()
		cmd.Stdout = stdout
	}
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v (run test/install.sh first)", p.Name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done = cmd, done
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // its state says more
		close(done)
	}()
}

// Kill ends the program with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-done
}

// Wait waits until the program ends by itself and returns its exit code.
func (p *Process) Wait(limit time.Duration) int {
	p.t.Helper()
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	select {
	case <-done:
	case <-time.After(limit):
		p.t.Fatalf("%s did not end within %v", p.Name, limit)
	}
	return cmd.ProcessState.ExitCode()
}

// Stop sends SIGTERM and returns the exit code; a program that has not ended within 30 s is killed.
func (p *Process) Stop() (code int, err error) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-done:
		return cmd.ProcessState.ExitCode(), nil
	case <-time.After(30 * time.Second):
		p.Kill()
		return -1, fmt.Errorf("%s did not stop within 30 s of SIGTERM", p.Name)
	}
}

// Exited says whether the program has ended by itself.
func (p *Process) Exited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Pid is the program's process id.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// LogTail returns the last n bytes of the program's output.
func (p *Process) LogTail(n int64) string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	buf := make([]byte, min(n, info.Size()))
	if _, err := f.ReadAt(buf, info.Size()-int64(len(buf))); err != nil {
		return err.Error()
	}
	return string(buf)
}

// Until asks cond every 50 ms until it returns nil and fails the test with its last error after limit.
func Until(t testing.TB, limit time.Duration, what string, cond func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("never asked")
	for {
		if err := cond(ctx); err == nil {
			return
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, last)
		case <-tick.C:
		}
	}
}

// given holds the ports that freePort has returned.
var given sync.Map

// freePort returns a port that nothing listens on, and no other call has returned. It is not one that the kernel gives to
// connections, which could take it before the process that is to listen there has started.
func freePort(t testing.TB) int {
	t.Helper()
	const lowest, highest = 15_000, 32_000
	for range 100 {
		port := lowest + rand.IntN(highest-lowest)
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no free port found")
	return 0
}

// FreeAddr returns an address on this machine with such a port.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}
