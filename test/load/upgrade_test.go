//go:build integration

package load

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// serving returns the process ids of sservers with the pool's configuration.
func (p *pool) serving(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil && bytes.Contains(text, []byte(p.file)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !bytes.Contains(state, []byte(") Z ")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// logged returns how often a text is in sserver's log.
func (p *pool) logged(t *testing.T, text string) int {
	t.Helper()
	all, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(all, []byte(text))
}

// ours is the program that is tested.
func ours(t *testing.T) string {
	t.Helper()
	return cmp.Or(*sserver, rig.Bin(t, "sserver"))
}

// other builds it in another way, as another version.
func other(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "other")
	build := exec.Command("go", "build", "-gcflags=btcpool/...=-l", "-ldflags=-X btcpool/internal/service.version=other", "-o", program, "./cmd/sserver")
	build.Dir = rig.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// versionOf is what a program says that it is.
func versionOf(t *testing.T, program string) string {
	t.Helper()
	out, err := exec.Command(program, "-version").CombinedOutput() // "sserver VERSION go1.…"
	fields := strings.Fields(string(out))
	if err != nil || len(fields) != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	return fields[1]
}

// replaceable starts a pool whose program is at a path where it can be replaced.
func replaceable(t *testing.T, text string) (p *pool, program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "sserver")
	install(t, program, ours(t))
	p = startPoolOf(t, program, noHashing()+text)
	t.Cleanup(func() {
		for _, pid := range p.serving(t) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	return p, program
}

// install puts another program in the place of one, as package managers do.
func install(t *testing.T, program, with string) {
	t.Helper()
	next := program + ".new"
	if out, err := exec.Command("cp", with, next).CombinedOutput(); err != nil { // as a child: nobody else has it open for writing
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Rename(next, program); err != nil {
		t.Fatal(err)
	}
}

// installScript puts a script there; "": the program that is tested.
func installScript(t *testing.T, program, script string) {
	t.Helper()
	if script == "" {
		install(t, program, ours(t))
		return
	}
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	install(t, program, file)
}

func signal(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// succeeded waits until another process than pid serves alone, and returns it.
func (p *pool) succeeded(t *testing.T, pid int) (next int) {
	t.Helper()
	testkit.Until(t, testkit.Patience, "another process serves alone", func(context.Context) error {
		pids := p.serving(t)
		if len(pids) != 1 || pids[0] == pid {
			return fmt.Errorf("processes %d after %d", pids, pid)
		}
		next = pids[0]
		return nil
	})
	return next
}

const (
	starts   = "starting a new process to go on with the connections"
	takes    = "a new process has taken over"
	givesUp  = "no new process has taken over"
	upgrades = 10
)

// TestUpgrades replaces a sserver ten times under load, by another build and back: nobody is disconnected or refused, no
// share is lost or counted twice, and who dials at any time gets in. The kernel, too, has reset and dropped nothing, and
// the last process takes no more than the first. A program or a configuration that is broken, or does not fit, changes
// nothing, nor does a new process that is killed before all is its.
func TestUpgrades(t *testing.T) {
	m, servers := apart(t, "miners")
	public := netip.AddrPortFrom(servers, netip.MustParseAddrPort(testkit.FreeAddr(t)).Port())
	p, program := replaceable(t, fmt.Sprintf("[[listeners]]\nlisten = %q\n", public))
	builds := []string{ours(t), other(t)}
	var versions []string
	for _, b := range builds {
		versions = append(versions, versionOf(t, b))
	}
	if versions[0] == versions[1] {
		t.Fatalf("both builds are %s", versions[0])
	}
	connect(t, m, public, *connections, "miners")
	connected, kernel, miners := ask[tally](t, m, order{Do: "report"}), disorderOf(t, os.Getpid()), disorderOf(t, m.pid)
	ask[tally](t, m, order{Do: "pace", Rate: *rate})
	ask[tally](t, m, order{Do: "churn", Rate: 20})
	pid := p.cmd.Process.Pid
	config, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}

	for _, bad := range []struct{ script, config string }{
		{script: "no program"},
		{script: "#!/bin/sh\nexit 3\n"},
		{script: "#!/bin/sh\nkill -9 $$\n"},
		{config: "nonsense = 1\n" + string(config)},
		{config: "server_id = 9\n" + string(config)},
		{config: strings.Replace(string(config), "data_dir = ", "data_dir = \"/nowhere\" #", 1)},
	} {
		installScript(t, program, bad.script)
		if err := os.WriteFile(p.file, []byte(cmp.Or(bad.config, string(config))), 0o600); err != nil {
			t.Fatal(err)
		}
		before := p.logged(t, givesUp)
		signal(t, pid, unix.SIGUSR2)
		testkit.Until(t, testkit.Patience, "the new process is given up", func(context.Context) error {
			if p.logged(t, givesUp) == before {
				return errors.New("not yet")
			}
			return nil
		})
	}
	if err := os.WriteFile(p.file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	var all []usage
	for i := range upgrades {
		install(t, program, builds[(i+1)%2])
		signal(t, pid, unix.SIGUSR2)
		testkit.Until(t, testkit.Patience, "a new process is started", func(context.Context) error {
			if len(p.serving(t)) < 2 && p.logged(t, takes) <= i {
				return errors.New("not yet")
			}
			return nil
		})
		if len(p.serving(t)) == 2 {
			_ = unix.Kill(pid, unix.SIGUSR2) // one is under way: ignored
		}
		pid = p.succeeded(t, pid)
		now := ask[tally](t, m, order{Do: "report"})
		used := usageOf(t, pid)
		t.Logf("process %d: %d accepted, p50 %s, p99 %s, longest %s, %d disconnects, refused %v, usage %+v", pid, now.Accepted, now.P50, now.P99,
			now.Longest, now.Disconnects-connected.Disconnects, now.Refused, used)
		if used.Descriptors > *connections+100 {
			t.Errorf("%d descriptors for %d connections", used.Descriptors, *connections)
		}
		if page, err := p.get(t.Context(), "/metrics"); err != nil || !strings.Contains(page, fmt.Sprintf("version=%q", versions[(i+1)%2])) {
			t.Errorf("upgrade %d, to %s: %v, %s", i+1, versions[(i+1)%2], err, regexp.MustCompile(`.*build_info{.*`).FindString(page))
		}
		all = append(all, used)
	}
	reset := since(disorderOf(t, m.pid), miners)
	t.Logf("since miners are connected the kernel has counted %v; of theirs %v", since(disorderOf(t, os.Getpid()), kernel), reset)
	if rig.OwnNetwork() {
		dropped := since(disorderOf(t, os.Getpid()), kernel) // with what there is between sserver and Kafka
		if len(reset) > 0 || dropped["ListenDrops"] > 0 || dropped["ListenOverflows"] > 0 {
			t.Error("connections were reset or dropped")
		}
	}
	flat(t, all)
	if n := p.logged(t, takes); n != upgrades {
		t.Errorf("%d processes took over, of %d signals that did not come too early", n, upgrades)
	}
	rest(t, m)
	innocent(t, m, connected)
	p.settledIn(t, pid, all[0].Descriptors, math.Inf(1))
	p.sent(t)
	p.end(t, pid)
	if again := p.verify(t, m); again > 0 {
		t.Errorf("%d records were sent by two processes", again)
	}
	log, _ := os.ReadFile(p.log)
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte("taken over")) || bytes.Contains(line, []byte("could go on")) {
			t.Logf("%s", bytes.TrimSpace(line))
		}
	}
}

// flat fails the test when the last processes hold more memory than those that were of the same builds before.
func flat(t *testing.T, all []usage) {
	t.Helper()
	least := func(some []usage) int64 {
		return slices.MinFunc(some, func(a, b usage) int { return cmp.Compare(a.RSS, b.RSS) }).RSS
	}
	const noise = 32 << 20 // when memory was collected last, and shares that are seen
	first, last := least(all[:len(all)/2]), least(all[len(all)/2:])
	if last > first+first/4+noise {
		t.Errorf("memory grows from %d to %d bytes", first, last)
	}
}

// end has the last process end.
func (p *pool) end(t *testing.T, pid int) {
	t.Helper()
	signal(t, pid, unix.SIGINT)
	testkit.Until(t, testkit.Patience, "the last process has ended", func(context.Context) error {
		if pids := p.serving(t); len(pids) > 0 {
			return fmt.Errorf("processes %d", pids)
		}
		return nil
	})
}

const kills = 16

// TestUpgradesKilled kills the old process or the new one at any moment of an upgrade, and starts another when none is
// left: no share that was accepted is lost or counts twice. Whom the old process serves is not disconnected because of the
// new one.
func TestUpgradesKilled(t *testing.T) {
	p, program := replaceable(t, "")
	m := start(t, "miners")
	connect(t, m, p.addr, *connections, "miners")
	ask[tally](t, m, order{Do: "pace", Rate: *rate})
	pid := p.cmd.Process.Pid
	ends := map[string]int{}
	for i := range kills {
		before := ask[tally](t, m, order{Do: "report"}).Disconnects
		p.newJob(t) // for whoever starts
		began := time.Now()
		signal(t, pid, unix.SIGUSR2)
		var next int
		testkit.Until(t, testkit.Patience, "a new process is started", func(context.Context) error {
			pids := slices.DeleteFunc(p.serving(t), func(other int) bool { return other == pid })
			if len(pids) != 1 {
				return fmt.Errorf("processes %d beside %d", pids, pid)
			}
			next = pids[0]
			return nil
		})
		time.Sleep(time.Until(began.Add(rand.N(time.Second)))) // at any moment of it, or just after
		victim, left := pid, next
		if i%2 == 1 {
			victim, left = next, pid
		}
		_ = unix.Kill(victim, unix.SIGKILL) // fails if it has ended
		testkit.Until(t, testkit.Patience, "one process is left, or none", func(ctx context.Context) error {
			switch pids := p.serving(t); {
			case len(pids) == 0:
				left = 0
				return nil
			case len(pids) == 1 && pids[0] == left:
				_, err := p.get(ctx, "/readyz")
				return err
			default:
				return fmt.Errorf("processes %d", pids)
			}
		})
		after := ask[tally](t, m, order{Do: "report"}).Disconnects
		switch left {
		case 0:
			ends["both"]++
			p.start(t, program)
			left = p.cmd.Process.Pid
		case pid:
			ends["new"]++
			if after != before {
				t.Errorf("%d were disconnected as a new process was killed", after-before)
			}
		default:
			ends["old"]++
		}
		pid = left
		testkit.Until(t, testkit.Patience, "all are back", func(ctx context.Context) error {
			if _, err := p.get(ctx, "/readyz"); err != nil {
				return err
			}
			n := p.metrics(t)["btcpool_sserver_sessions"]
			if int(n) < *connections {
				return fmt.Errorf("%.0f sessions", n)
			}
			return nil
		})
	}
	t.Logf("killed: %v", ends)
	ask[tally](t, m, order{Do: "rest"})
	p.sent(t)
	p.end(t, pid)
	p.verify(t, m)
}
