//go:build integration

package faults

import (
	"errors"
	"fmt"
	"io"
	"net"
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

// losePackets has the kernel lose packets of all connections, until end, which returns how many there were.
func losePackets(t *testing.T, amount float64) (way string, end func() (lost string), err error) {
	if os.Getenv(ownNetwork) == "" {
		return "", nil, errors.New("the network is the machine's")
	}
	tc := func(words string) (string, error) {
		out, err := exec.Command("tc", strings.Fields(words)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("tc %s: %w: %s", words, err, out)
		}
		return string(out), err
	}
	var errs []error
	for _, l := range losing {
		if _, err := tc("qdisc replace dev lo root " + l.qdisc(amount)); err != nil {
			errs = append(errs, err)
			continue
		}
		return l.name, func() string {
			said, err := tc("-s qdisc show dev lo")
			if err == nil {
				_, err = tc("qdisc del dev lo root")
			}
			m := dropped.FindStringSubmatch(said)
			if err != nil || m == nil {
				t.Fatalf("%v: %s", err, said)
			}
			return m[1]
		}, nil
	}
	return "", nil, errors.Join(errs...)
}

// TestPacketsLost sends through a network that loses packets, where there can be one: some are lost, all arrives.
func TestPacketsLost(t *testing.T) {
	const size = 4 << 20
	way, end, err := losePackets(t, .5)
	if err != nil {
		if os.Getenv(ownNetwork) != "" {
			t.Fatal(err)
		}
		t.Log(err)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if conn, err := ln.Accept(); err == nil {
			_, _ = conn.Write(make([]byte, size)) // the other end counts
			conn.Close()
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n, err := io.Copy(io.Discard, conn)
	lost := end()
	t.Logf("%s has lost %s packets", way, lost)
	if n != size || err != nil || lost == "0" {
		t.Errorf("%d bytes arrived, %v; %s packets were lost", n, err, lost)
	}
}
