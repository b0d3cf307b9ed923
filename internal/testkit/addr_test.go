package testkit_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"btcpool/internal/testkit"
)

// TestFreePort takes many ports in two processes: none is given twice.
func TestFreePort(t *testing.T) {
	const many, inOther = 500, "FREE_PORTS_IN_OTHER"
	ports := map[string]bool{}
	for range many {
		ports[fmt.Sprint(testkit.FreePort(t))] = true
	}
	if len(ports) != many {
		t.Errorf("%d ports of %d calls", len(ports), many)
	}
	if os.Getenv(inOther) != "" {
		for port := range ports {
			fmt.Println("port", port)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFreePort$")
	cmd.Env = append(os.Environ(), inOther+"=yes")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		port, is := strings.CutPrefix(strings.TrimSpace(line), "port ")
		if !is {
			continue
		}
		n++
		if ports[port] {
			t.Errorf("both processes were given port %s", port)
		}
	}
	if n != many {
		t.Errorf("the other process was given %d ports", n)
	}
}
