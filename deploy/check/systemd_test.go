//go:build integration

package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestUnitsVerified has systemd itself judge the units as make install lays them: nothing that it does not know, and an
// exposure of 2.0 at most, of 10, which it calls OK.
func TestUnitsVerified(t *testing.T) {
	machine, bin := t.TempDir(), t.TempDir()
	for _, program := range programs(t) {
		if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command("make", "install", "DESTDIR="+machine, "BIN="+bin)
	install.Dir = root
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	for _, target := range []string{"sysinit", "basic", "shutdown", "network-online", "multi-user"} { // of systemd's own
		unit := filepath.Join(machine, "usr/lib/systemd/system", target+".target")
		if err := os.WriteFile(unit, []byte("[Unit]\nDescription="+target+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	verify := exec.Command("systemd-analyze", "verify", "--root="+machine, "--man=no", "btcpool@sserver.service", "btcpool@agentproxy.service", "btcpool.target")
	if out, err := verify.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for _, unit := range []string{"btcpool@sserver.service", "btcpool@agentproxy.service"} {
		security := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", "--root="+machine, unit)
		if out, err := security.CombinedOutput(); err != nil {
			t.Errorf("systemd-analyze security %s: %v\n%s", unit, err, out)
		}
	}
}
