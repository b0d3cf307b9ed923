//go:build integration

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"btcpool/test/integration/rig"
)

// apart starts a helper in a network of its own, so that the kernel's counters there are of its connections only, and
// returns where servers are to listen for it. Where the tests have no network of their own it is in everybody's.
func apart(t *testing.T, role string) (h *helper, servers netip.Addr) {
	t.Helper()
	if !rig.OwnNetwork() {
		t.Log("the helper is in the machine's network: what the kernel counts is everybody's")
		return start(t, role), netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	t.Cleanup(func() { // when the helper has ended, the kernel may have been first
		_ = exec.Command("ip", "link", "del", fmt.Sprint("pool", h.pid)).Run()
	})
	h = start(t, role, "unshare", "--net")
	ask[tally](t, h, order{Do: "report"}) // it is there now
	servers = netip.AddrFrom4([4]byte{10, 78, 0, 1})
	run := func(words string) {
		t.Helper()
		words = fmt.Sprintf(words, h.pid)
		if out, err := exec.Command("sh", "-ec", words).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", words, err, out)
		}
	}
	run("ip link add pool%[1]d type veth peer name eth0 netns %[1]d")
	run(`ip addr add 10.78.0.1/30 dev pool%[1]d; ip link set pool%[1]d up; ip route add ` + networkApart + `.0.0/16 via 10.78.0.2
		nsenter -t %[1]d -n sh -ec 'ip link set lo up; ip addr add 10.78.0.2/30 dev eth0; ip link set eth0 up
			ip route add local ` + networkApart + `.0.0/16 dev lo; ip route add default via 10.78.0.1'`)
	return h, servers
}

// networkApart is where miners connect from who are in a network of their own.
const networkApart = "10.77"

// disorder is what the kernel counts of connections that did not begin or end as they should: by protocol, as in
// /proc/net.
var disorder = map[string][]string{
	"Tcp:": {"AttemptFails", "EstabResets", "OutRsts"},
	"TcpExt:": {
		"ListenDrops", "ListenOverflows", "TCPAbortOnClose", "TCPAbortOnData", "TCPAbortOnLinger", "TCPAbortOnMemory",
		"TCPAbortOnTimeout", "TCPAbortFailed",
	},
}

// disorderOf returns these counters of a process's network.
func disorderOf(t *testing.T, pid int) map[string]int64 {
	t.Helper()
	counters := map[string]int64{}
	for _, file := range []string{"snmp", "netstat"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "net", file))
		if err != nil {
			t.Fatal(err)
		}
		var names []string // of a protocol, then its values
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if names == nil {
				names = fields
				continue
			}
			for _, name := range disorder[fields[0]] {
				for i := range names {
					if names[i] == name {
						counters[name], err = strconv.ParseInt(fields[i], 10, 64)
					}
				}
				if _, ok := counters[name]; !ok {
					err = errors.Join(err, fmt.Errorf("%s: no %s", file, name))
				}
			}
			names = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return counters
}

// since returns by how much counters have risen that have.
func since(now, before map[string]int64) map[string]int64 {
	risen := map[string]int64{}
	for name, n := range now {
		if n -= before[name]; n != 0 {
			risen[name] = n
		}
	}
	return risen
}
