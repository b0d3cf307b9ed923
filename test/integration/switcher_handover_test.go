//go:build integration

package integration

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestSwitcherHandedOver replaces a switcher ten times while shares come, users are switched and miners dial: nobody is
// disconnected or refused, no share is refused, and all count once on the chain that they are for. A program or a
// configuration that is broken, or does not fit, changes nothing, nor does a new process that is killed.
func TestSwitcherHandedOver(t *testing.T) {
	t.Parallel()
	const users, rounds = 20, 10
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	conn := observer(t, z.Addr)
	btc, bch := startChainPool(t, dir, "btc", markBTC, 1, users), startChainPool(t, dir, "bch", markBCH, 2, users)
	for i := range users {
		setNode(t, conn, fmt.Sprintf("%s/user%d", userChain, i), "btc")
	}
	s := startSwitcher(t, dir, z.Addr, "grace = \"2m\"", chainSections(btc.addr, bch.addr))
	file := filepath.Join(dir, "switcher.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("server_id = 200"), []byte("server_id = 0"), 1) // leased: it passes along
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	x := makeReplaceable(t, s.Process, "switcher", s.admin)
	s.waitReady()
	machines := logInAll(t, s.addr, users, func(i int) string { return fmt.Sprintf("user%d", i) })
	stop := make(chan struct{})
	var busy sync.WaitGroup
	var accepted atomic.Int64
	for _, m := range machines {
		busy.Go(func() {
			job := <-m.jobs
			for {
				select {
				case <-stop:
					return
				case <-m.ended:
					t.Errorf("%s was disconnected", m.user)
					return
				case job = <-m.jobs:
				default:
				}
				if !m.share(job) {
					t.Errorf("%s: a share is refused, or not answered", m.user)
					return
				}
				accepted.Add(1)
			}
		})
	}
	busy.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Errorf("refused: %v", err)
				return
			}
			fmt.Fprintf(c, `{"id":1,"method":"mining.subscribe","params":["test/1"]}`+"\n")
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Errorf("who dials gets no answer: %v", err)
				return
			}
			c.Close()
		}
	})
	more := func(what string) {
		t.Helper()
		had := accepted.Load()
		testkit.Eventually(t, what, func() bool { return accepted.Load() > had+users })
	}
	more("shares are accepted")

	for i, bad := range []struct{ script, config string }{
		{script: "no program"},
		{script: "#!/bin/sh\nexit 3\n"},
		{script: "#!/bin/sh\nkill -9 $$\n"},
		{config: "nonsense = 1\n" + string(text)},
		{config: strings.Replace(string(text), "server_id = 0", "server_id = 201", 1)},
		{config: strings.Replace(string(text), "name = \"bch\"", "name = \"other\"", 1)},
	} {
		x.replace(bad.script)
		if err := os.WriteFile(file, []byte(cmp.Or(bad.config, string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(x.pid, unix.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		testkit.Until(t, testkit.Patience, "the new process is given up", func(ctx context.Context) error {
			if n, err := x.failed(ctx); err != nil || n != i+1 {
				return fmt.Errorf("%d were, %w", n, err)
			}
			return nil
		})
	}
	x.replace("")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	more("still accepted")

	descriptors := x.descriptors()
	for round := range rounds {
		to, mark := "bch", uint32(markBCH)
		if round%2 == 1 {
			to, mark = "btc", markBTC
		}
		for i := range users / 2 {
			setNode(t, conn, fmt.Sprintf("%s/user%d", userChain, i), to)
		}
		x.upgrade(false)
		testkit.Eventually(t, "half of the users are switched", func() bool {
			for i, m := range machines {
				if i < users/2 && m.chain.Load() != mark || i >= users/2 && m.chain.Load() != markBTC {
					return false
				}
			}
			return true
		})
		more(fmt.Sprintf("accepted after %d hand-overs", round+1))
	}
	if n := x.descriptors(); n > descriptors+2*users { // servers that were left take late shares
		t.Errorf("%d descriptors are open, %d were", n, descriptors)
	}
	close(stop)
	busy.Wait()
	for _, m := range machines {
		if wrong := m.wrong.Load(); wrong != nil {
			t.Errorf("%s was told %s", m.user, *wrong)
		}
	}
	testkit.Until(t, testkit.Patience, "all shares are counted", func(context.Context) error {
		if n := btc.shares() + bch.shares(); n != accepted.Load() {
			return fmt.Errorf("%d of %d", n, accepted.Load())
		}
		return nil
	})
	t.Logf("%d shares, %d of them on the other chain", accepted.Load(), bch.shares())
	x.end()
}
