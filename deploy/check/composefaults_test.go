//go:build integration

package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killEach kills one container after another, each when the one before is healthy again, and starts it again as Docker
// would. A miner outside mines meanwhile; what it was told is accepted is in the share log, once.
func killEach(ctx context.Context, t *testing.T, e *engine, names []string) {
	t.Helper()
	m := startMiner(ctx, t, e)
	began := time.Now()
	for _, name := range names {
		c := e.all[name]
		if c.Restart != "unless-stopped" {
			t.Errorf("%s: restart is %q", name, c.Restart)
			continue
		}
		_ = syscall.Kill(-c.main.Process.Pid, syscall.SIGKILL)
		<-c.done
		if err := e.start(c); err != nil {
			t.Fatal(err)
		}
		if c.HealthCheck != nil {
			if err := e.await(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d containers were killed within %v", len(names), time.Since(began).Round(time.Second))
	for _, name := range names {
		if c := e.all[name]; c.HealthCheck != nil {
			until(ctx, t, name+" is healthy", func() error { return e.healthy(ctx, c) })
		}
	}
	more := len(m.acks(t)) + 5
	until(ctx, t, "shares are acknowledged again", func() error {
		if n := len(m.acks(t)); n < more {
			return fmt.Errorf("%d, want %d", n, more)
		}
		return nil
	})
	unanswered := m.stop(t)
	acks := m.acks(t)
	until(ctx, t, "the share log has what was acknowledged", func() error {
		logged, err := e.loggedShares(ctx, began)
		if err != nil {
			return err
		}
		lost, more := 0, 0
		for share, n := range count(acks) {
			lost += max(n-logged[share], 0)
			more += max(logged[share]-n, 0)
		}
		if lost > 0 || more > unanswered {
			return fmt.Errorf("of %d shares %d are not in the log, %d more than once, %d were left unanswered", len(acks), lost, more, unanswered)
		}
		return nil
	})
	t.Logf("%d shares acknowledged, %d left unanswered: none lost, none twice", len(acks), unanswered)
}

// accepted names a share: session, nonce and version bits in hexadecimal.
type accepted [3]string

func count(shares []accepted) map[accepted]int {
	n := map[accepted]int{}
	for _, s := range shares {
		n[s]++
	}
	return n
}

// outsider is a minersim on this side of the bridge, with its ledger.
type outsider struct {
	cmd    *exec.Cmd
	report bytes.Buffer
	ledger string
}

func startMiner(ctx context.Context, t *testing.T, e *engine) *outsider {
	t.Helper()
	m := &outsider{ledger: filepath.Join(e.dir, "acks")}
	m.cmd = exec.CommandContext(ctx, filepath.Join(e.bin, "minersim"), "-url", "stratum+tcp://"+e.all["sserver"].addr+":3333",
		"-user", "compose.rig", "-password", "d=0.00001", "-threads", "1", "-conns", "3", "-rate", "2", "-reconnect", "-json", "-acks", m.ledger)
	m.cmd.Stdout = &m.report
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "shares are acknowledged", func() error {
		if n := len(m.acks(t)); n < 5 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	return m
}

func (m *outsider) acks(t *testing.T) (all []accepted) {
	t.Helper()
	text, err := os.ReadFile(m.ledger)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var a struct {
			Session     string
			Nonce       uint32
			VersionBits uint32 `json:"version_bits"`
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, accepted{a.Session, fmt.Sprintf("%08x", a.Nonce), fmt.Sprintf("%08x", a.VersionBits)})
	}
	return all
}

// stop returns how many shares have had no answer.
func (m *outsider) stop(t *testing.T) (unanswered int) {
	t.Helper()
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	if err := m.cmd.Wait(); err != nil {
		t.Fatalf("minersim: %v", err)
	}
	var report struct{ Unanswered int }
	if err := json.Unmarshal(m.report.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	return report.Unanswered
}

// loggedShares has slparser print what the share log has since a time, in its container.
func (e *engine) loggedShares(ctx context.Context, since time.Time) (map[accepted]int, error) {
	days := []string{since.UTC().Format("20060102"), time.Now().UTC().Format("20060102")}
	var out bytes.Buffer
	words := append(slices.Clone([]string(e.all["slparser"].Command)), "-d", strings.Join(slices.Compact(days), "-"), "-u", "0", "-status", "accepted", "-format", "json")
	cmd, start := e.command(ctx, e.all["slparser"], words, &out)
	if err := start(); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out.Bytes()[max(0, out.Len()-500):])
	}
	logged, lines := map[accepted]int{}, map[string]bool{}
	for in := bufio.NewScanner(&out); in.Scan(); {
		var s struct {
			Session     string `json:"session_id"`
			Nonce       string
			VersionBits string `json:"version_bits"`
		}
		if json.Unmarshal(in.Bytes(), &s) == nil && s.Session != "" { // the program's log is among them
			if lines[in.Text()] {
				return nil, fmt.Errorf("a share is in the log twice: %s", in.Text())
			}
			lines[in.Text()] = true
			logged[accepted{s.Session, s.Nonce, s.VersionBits}]++
		}
	}
	return logged, nil
}
