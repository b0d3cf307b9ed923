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
	"strings"
	"testing"

	"btcpool/test/integration/rig"
)

// TestMain runs the tests in a network of their own where that is permitted: packets can be lost there.
func TestMain(m *testing.M) { os.Exit(rig.RunInOwnNetwork(m, "mtu 1500 up")) }

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
	if !rig.OwnNetwork() {
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
		if rig.OwnNetwork() {
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
