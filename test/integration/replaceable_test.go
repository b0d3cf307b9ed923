//go:build integration

package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// replaceable is a service whose program is at a path where it can be replaced.
type replaceable struct {
	process        *rig.Process
	t              *testing.T
	service, admin string
	program        string
	pid            int // of the process that serves
	passed         int // hand-overs
}

// makeReplaceable starts a service that runs again, from such a path.
func makeReplaceable(t *testing.T, p *rig.Process, service, admin string) *replaceable {
	t.Helper()
	x := &replaceable{process: p, t: t, service: service, admin: admin, program: filepath.Join(t.TempDir(), service)}
	p.Kill()
	x.replace("")
	p.Use(x.program)
	p.Start()
	x.pid = p.Pid()
	return x
}

// replace puts a script in the place of the program; "": the program that is tested.
func (x *replaceable) replace(script string) {
	x.t.Helper()
	next := x.program + ".new"
	var err error
	if script == "" {
		err = os.Symlink(rig.Bin(x.t, x.service), next)
	} else {
		err = os.WriteFile(next, []byte(script), 0o700)
	}
	if err = errors.Join(err, os.Rename(next, x.program)); err != nil {
		x.t.Fatal(err)
	}
}

// processes returns all that go by the service's configuration.
func (x *replaceable) processes() (pids []int) {
	x.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		x.t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(text, []byte("/"+x.process.Name+".toml")) || !bytes.HasPrefix(text, []byte(x.program)) {
			continue
		}
		dir := filepath.Dir(f)
		if state, err := os.ReadFile(dir + "/stat"); err == nil && !bytes.Contains(state, []byte(") Z ")) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// failed returns how many new processes did not take over.
func (x *replaceable) failed(ctx context.Context) (n int, err error) {
	page, err := get(ctx, x.admin, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "btcpool_upgrades_failed_total{") || strings.HasPrefix(line, "btcpool_upgrades_failed_total ") {
			return strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]))
		}
	}
	return 0, errors.New("no such metric")
}

// upgrade has a new process serve. Old ones stay as long as they have something to relay.
func (x *replaceable) upgrade(relays bool) {
	x.t.Helper()
	before := x.processes()
	if err := unix.Kill(x.pid, unix.SIGUSR2); err != nil {
		x.t.Fatal(err)
	}
	x.passed++
	testkit.Until(x.t, testkit.Patience, "another process serves", func(ctx context.Context) error {
		pids := slices.DeleteFunc(x.processes(), func(pid int) bool { return relays && slices.Contains(before, pid) })
		log := x.process.LogTail(1 << 20)
		if len(pids) != 1 || pids[0] == x.pid || strings.Count(log, "a new process has taken over") != x.passed {
			return fmt.Errorf("processes %d after %d", pids, x.pid)
		}
		x.pid = pids[0]
		return readyz(ctx, x.admin)
	})
}

func (x *replaceable) descriptors() int {
	x.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.pid))
	if err != nil {
		x.t.Fatal(err)
	}
	return len(fds)
}

// end ends all processes.
func (x *replaceable) end() {
	x.t.Helper()
	for _, pid := range x.processes() {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
	testkit.Until(x.t, testkit.Patience, x.process.Name+" has ended", func(context.Context) error {
		if pids := x.processes(); len(pids) > 0 {
			return fmt.Errorf("processes %d", pids)
		}
		return nil
	})
}
