//go:build integration

package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/testkit"
)

// TestUpgradesLeaveNothing looks, before, amid and after upgrades, for passwords of the configuration and for what
// sessions are: neither is in any file that was written, nor in what other users of the machine see of the two
// processes.
func TestUpgradesLeaveNothing(t *testing.T) {
	began := time.Now().Add(-time.Second) // of files, whose times are coarser
	secrets := map[string]string{}
	secret := func(of string) string {
		secrets[of] = rand.Text()
		return secrets[of]
	}
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(secret("admin_api.token_file")), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := replaceable(t, fmt.Sprintf("[admin_api]\nlisten = %q\ntoken_file = %q\n[database]\ndsn = \"mysql://u:%s@tcp(127.0.0.1:1)/pool\"\n[handover]\nurls = [%q]\ntoken = %q\n",
		testkit.FreeAddr(t), tokenFile, secret("database.dsn"), "http://127.0.0.1:1", secret("handover.token")))
	conn, err := net.Dial("tcp", p.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n{\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"miner.rig\",%q]}\n{\"id\":3,\"method\":%q",
		secret("a miner's password"), secret("half a line of a miner")); err != nil {
		t.Fatal(err)
	}
	m := start(t, "miners")
	connect(t, m, p.addr, *connections, "miners")
	knowing := map[string]bool{p.file: true, tokenFile: true}
	look := func(when string, pids ...int) {
		t.Helper()
		for file, of := range holding(secrets, began, pids) {
			if !knowing[file] {
				t.Errorf("%s: %s is in %s", when, of, file)
			}
		}
		for _, pid := range pids {
			for _, file := range nameless(pid) {
				t.Errorf("%s: process %d has %s open", when, pid, file)
			}
		}
	}
	if files := holding(secrets, began, nil); files[p.file] == "" {
		t.Fatal("not even the configuration is found")
	}
	pid := p.cmd.Process.Pid
	look("before", pid)
	amid, upgraded := 0, 0
	for n, when := range []string{"as the new process begins", "as it has sockets", "as it has connections"} {
		least := []int{0, 10, *connections}[n] // descriptors
		signal(t, pid, unix.SIGUSR2)
		var next int
		testkit.Until(t, testkit.Patience, when, func(context.Context) error {
			for _, other := range p.serving(t) {
				files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", other))
				if other != pid && len(files) >= least {
					next = other
					return unix.Kill(next, unix.SIGSTOP)
				}
			}
			return errors.New("not yet")
		})
		pids := p.serving(t)
		if len(pids) == 2 {
			amid++
		}
		look(when, pids...)
		_ = unix.Kill(next, unix.SIGCONT) // unless the old one has given it up by now
		testkit.Until(t, testkit.Patience, "one process serves alone", func(context.Context) error {
			pids := p.serving(t)
			if len(pids) != 1 {
				return fmt.Errorf("processes %d", pids)
			}
			if pids[0] == next {
				upgraded++
			}
			pid = pids[0]
			return nil
		})
		look("after", pid)
	}
	if amid == 0 || upgraded == 0 {
		t.Errorf("both processes were seen %d times, %d took over", amid, upgraded)
	}
	p.end(t, pid)
	look("at the end")
}

// holding returns the files that have one of the texts, and whose it is: of files that were written since then where
// programs write, and of what the kernel shows of processes.
func holding(texts map[string]string, since time.Time, pids []int) (files map[string]string) {
	files = map[string]string{}
	look := func(file string) {
		content, err := os.ReadFile(file)
		for of, text := range texts {
			if err == nil && bytes.Contains(content, []byte(text)) {
				files[file] = of
			}
		}
	}
	for _, pid := range pids {
		look(fmt.Sprintf("/proc/%d/cmdline", pid))
		look(fmt.Sprintf("/proc/%d/environ", pid))
	}
	const most = 64 << 20
	for _, dir := range []string{os.TempDir(), "/var/tmp", "/dev/shm"} {
		_ = filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
			switch {
			case err != nil: // others' files come and go
				return nil
			case e.IsDir() && strings.HasPrefix(e.Name(), "go-build"):
				return fs.SkipDir
			case !e.Type().IsRegular():
				return nil
			}
			if info, err := e.Info(); err == nil && !info.ModTime().Before(since) && info.Size() < most {
				look(file)
			}
			return nil
		})
	}
	return files
}

// nameless returns what a process has open that has no name in any folder.
func nameless(pid int) (files []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	all, _ := os.ReadDir(dir)
	for _, e := range all {
		file, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if strings.HasPrefix(file, "/memfd:") || strings.HasSuffix(file, " (deleted)") {
			files = append(files, file)
		}
	}
	return files
}
