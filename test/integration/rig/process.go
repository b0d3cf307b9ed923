//go:build integration

package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program of the rig: it can be killed and started again with the same arguments, appending to the same
// log. Only the test's own goroutine calls its methods.
type Process struct {
	Name string

	t    testing.TB
	path string
	args []string
	env  []string            // nil: the test's own
	dir  string              // where it runs; "": where the test does
	who  *syscall.Credential // as whom it runs; nil: as the test
	log  string              // of both outputs
	out  string              // of the standard output alone, if set
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has been reaped
}

// start runs a program whose output goes to <dir>/<name>.log, with env beside the test's own; it is killed when the
// test ends, and its log is shown if the test failed.
func start(t testing.TB, dir, name, path string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, path: path, args: args, env: append(os.Environ(), env...), log: filepath.Join(dir, name+".log")}
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
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.who}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v (run test/install.sh first)", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait() // its state says more
		close(done)
	}()
}

// Use has the next start run another program, with the same arguments.
func (p *Process) Use(path string) { p.path = path }

// Pid is the program's, or was.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the program with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// Pause stops the program where it stands until Resume or Kill: to others it hangs.
func (p *Process) Pause() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }

// Resume lets a paused program go on.
func (p *Process) Resume() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGCONT) }

// DiskFull lets every write of the program that would make a file longer fail, or no more.
func (p *Process) DiskFull(full bool) {
	p.t.Helper()
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if full {
		limit.Cur = 0
	}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		p.t.Fatalf("limit of %s: %v", p.Name, err)
	}
}

// Wait waits until the program ends by itself and returns its exit code.
func (p *Process) Wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%s did not end within %v", p.Name, limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stop sends SIGTERM and returns the exit code; a program that has not ended within 30 s is killed.
func (p *Process) Stop() (code int, err error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(30 * time.Second):
		p.Kill()
		return -1, fmt.Errorf("%s did not stop within 30 s of SIGTERM", p.Name)
	}
}

// Exited says whether the program has ended by itself.
func (p *Process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Sees returns a path by which the test sees the file that the program does.
func (p *Process) Sees(path string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "root", path)
}

// LogTail returns the last n bytes of the program's output.
func (p *Process) LogTail(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}
