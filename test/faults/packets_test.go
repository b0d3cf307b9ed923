//go:build integration

package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// ownNetwork marks the second process of the tests, which has a network of its own.
const ownNetwork = "FAULTS_OWN_NETWORK"

// TestMain runs the tests in a network of their own where that is permitted: packets can be lost there.
func TestMain(m *testing.M) {
	if os.Getenv(ownNetwork) == "" {
		code, err := again()
		if err == nil {
			os.Exit(code)
		}
		fmt.Fprintf(os.Stderr, "faults: no network of their own, in which packets could be lost: %v\n", err)
	}
	os.Exit(m.Run())
}

// again runs this program in a network of its own and returns its exit code.
func again() (code int, err error) {
	if os.Getuid() != 0 {
		return 0, errors.New("only root may")
	}
	if out, err := exec.Command("unshare", "--net", "ip", "link", "set", "lo", "mtu", "1500", "up").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	if out, err := exec.Command("go", "list", "-deps", "btcpool/cmd/...").CombinedOutput(); err != nil { // downloads what the rig builds
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	runtime.LockOSThread() // whose end would be the child's
	words := []string{"--net", "--fork", "--kill-child", "sh", "-c", `ip link set lo mtu 1500 up && exec "$0" "$@"`}
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

// losing are the ways of the kernel to lose packets, the better one first: by chance, or because a line is too narrow
// for what is sent at once.
var losing = []struct {
	name  string
	qdisc func(amount float64) string
}{
	{"netem", func(amount float64) string { return fmt.Sprintf("netem delay 5ms 2ms loss %.1f%%", 1+14*amount) }},
	{"tbf", func(amount float64) string {
		return fmt.Sprintf("tbf rate %.1fmbit burst 16kb limit 24kb", 20-18*amount)
	}},
}

var dropped = regexp.MustCompile(`dropped (\d+)`)

// losePackets has the kernel lose packets of all connections. It says how, and how many there were.
func (w *world) losePackets(f fault) (end func(), err error) {
	if os.Getenv(ownNetwork) == "" {
		return nil, errors.New("the network is the machine's")
	}
	tc := func(words string) (string, error) {
		out, err := exec.Command("tc", strings.Fields(words)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("tc %s: %w: %s", words, err, out)
		}
		return string(out), err
	}
	var errs []error
	for _, way := range losing {
		if _, err := tc("qdisc replace dev lo root " + way.qdisc(f.amount)); err != nil {
			errs = append(errs, err)
			continue
		}
		return func() {
			said, err := tc("-s qdisc show dev lo")
			if err == nil {
				_, err = tc("qdisc del dev lo root")
			}
			if err != nil {
				w.t.Fatal(err)
			}
			lost := "?"
			if m := dropped.FindStringSubmatch(said); m != nil {
				lost = m[1]
			}
			w.t.Logf("%s: %s has lost %s packets", f, way.name, lost)
		}, nil
	}
	return nil, errors.Join(errs...)
}
