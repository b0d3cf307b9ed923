//go:build integration

package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// ownNetwork marks the second process of tests that have a network of their own.
const ownNetwork = "RIG_OWN_NETWORK"

// RunInOwnNetwork is for TestMain: it runs the tests in a network of their own, where that is permitted, and returns the
// exit code. lo is what ip is told of the loopback device there.
func RunInOwnNetwork(m *testing.M, lo string) int {
	if !OwnNetwork() {
		code, err := again(lo)
		if err == nil {
			return code
		}
		fmt.Fprintf(os.Stderr, "no network of their own for these tests: %v\n", err)
	}
	return m.Run()
}

// OwnNetwork says whether the tests have one: nobody else's packets are there, and theirs may be lost.
func OwnNetwork() bool { return os.Getenv(ownNetwork) != "" }

// again runs this program in a network of its own and returns its exit code.
func again(lo string) (code int, err error) {
	if os.Getuid() != 0 {
		return 0, errors.New("only root may")
	}
	lo = "ip link set lo " + lo
	if out, err := exec.Command("unshare", "--net", "sh", "-c", lo).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	if out, err := exec.Command("go", "list", "-deps", "btcpool/cmd/...").CombinedOutput(); err != nil { // downloads what the rig builds
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	runtime.LockOSThread() // whose end would be the child's
	words := []string{"--net", "--fork", "--kill-child", "sh", "-c", lo + ` && exec "$0" "$@"`}
	cmd := exec.Command("unshare", append(words, os.Args...)...)
	cmd.Env = append(os.Environ(), ownNetwork+"=yes")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
