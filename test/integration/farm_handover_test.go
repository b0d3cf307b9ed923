//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// replaceableProxy is a farm proxy whose program is at a path where it can be replaced.
type replaceableProxy struct {
	*farmProxy
	*replaceable
}

func (p *farmPool) startReplaceable(pool, text string) replaceableProxy {
	p.t.Helper()
	x := p.startProxy(pool, text)
	r := makeReplaceable(p.t, x.Process, "agentproxy", x.admin)
	x.ready()
	return replaceableProxy{x, r}
}

func (p *farmPool) file(x *farmProxy) string { return filepath.Join(p.dir, x.Name+".toml") }

// TestFarmHandedOver replaces a proxy, and one behind it, ten times each in the middle of mining: nobody is disconnected,
// no share is refused, lost or counted twice. What is broken or does not fit changes nothing.
func TestFarmHandedOver(t *testing.T) {
	t.Parallel()
	p := startFarmPool(t, testkit.Broker(t))
	outer := p.startReplaceable(p.addr, "")
	inner := p.startReplaceable(outer.addr, "")
	near, far := outer.mine(p.dir, "near", 5), inner.mine(p.dir, "far", 5)
	more(t, "at the beginning", 10, near, far)
	config, err := os.ReadFile(p.file(outer.farmProxy))
	if err != nil {
		t.Fatal(err)
	}
	for i, bad := range []struct{ script, config string }{
		{script: "no program"},
		{script: "#!/bin/sh\nexit 3\n"},
		{script: "#!/bin/sh\nkill -9 $$\n"},
		{config: "nonsense = 1\n"},
		{config: "multi_user = true\n"},
	} {
		outer.replace(bad.script)
		if err := os.WriteFile(p.file(outer.farmProxy), append([]byte(bad.config), config...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(outer.pid, unix.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		testkit.Until(t, testkit.Patience, "the new process is given up", func(ctx context.Context) error {
			if n, err := outer.failed(ctx); err != nil || n != i+1 {
				return fmt.Errorf("%d were, %w", n, err)
			}
			return nil
		})
	}
	outer.replace("")
	if err := os.WriteFile(p.file(outer.farmProxy), config, 0o600); err != nil {
		t.Fatal(err)
	}
	more(t, "still", 5, near, far)
	descriptors := outer.descriptors()
	for i := range 10 {
		outer.upgrade(false)
		inner.upgrade(false)
		more(t, fmt.Sprintf("after %d hand-overs", i+1), 3, near, far)
	}
	if n := outer.descriptors(); n > descriptors+3 {
		t.Errorf("%d descriptors are open, %d were", n, descriptors)
	}
	p.settle(near, far)
	inner.end()
	outer.end()
}

// settle has miners end, who had all of their shares accepted and counted once, by one connection each.
func (p *farmPool) settle(miners ...*rig.Miner) {
	p.t.Helper()
	told := map[farmShare]int{}
	for _, m := range miners {
		if code, err := m.Stop(); err != nil || code != 0 {
			p.t.Errorf("%s ended with code %d, %v", m.Name, code, err)
		}
		if r := m.Report(); r.Rejected+r.Unanswered+r.Reconnects > 0 {
			p.t.Errorf("%s: %d shares refused, %d not answered, %d reconnects", m.Name, r.Rejected, r.Unanswered, r.Reconnects)
		}
		for _, a := range m.Acks() {
			_, name, _ := strings.Cut(a.User, ".")
			told[farmShare{share.WorkerID(share.WorkerName(name)), a.Nonce, a.VersionBits}]++
		}
	}
	if code, err := p.Stop(); err != nil || code != 0 { // what is in its spool is in Kafka then
		p.t.Errorf("sserver ended with code %d, %v", code, err)
	}
	counted := p.counted()
	for k, n := range told {
		if counted[k] != n || n != 1 {
			p.t.Errorf("share %+v was acknowledged %d times, and counted %d times", k, n, counted[k])
		}
		delete(counted, k)
	}
	if len(counted) > 0 {
		p.t.Errorf("%d shares were counted that nobody was told of", len(counted))
	}
	p.t.Logf("%d shares", len(told))
}

// TestFarmHandedOverByTLS has a link to the pool that the first process relays to all that follow. When that one is ended,
// machines go over to another link.
func TestFarmHandedOverByTLS(t *testing.T) {
	t.Parallel()
	p := startFarmPool(t, testkit.Broker(t))
	x := p.startReplaceable(p.tls, "tls = true\ntls_skip_verify = true\n")
	m := x.mine(p.dir, "rig", 5)
	more(t, "at the beginning", 10, m)
	first := x.pid
	for range 3 {
		x.upgrade(true)
		more(t, "relayed", 3, m)
	}
	if pids := x.processes(); len(pids) != 2 || !slices.Contains(pids, first) {
		t.Errorf("processes %d, the first was %d", pids, first)
	}
	if err := unix.Kill(first, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, testkit.Patience, "the relay has ended", func(context.Context) error {
		if pids := x.processes(); len(pids) != 1 {
			return fmt.Errorf("processes %d", pids)
		}
		return nil
	})
	more(t, "on another link", 5, m)
	if code, err := m.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	if n := m.Report().Reconnects; n > 0 {
		t.Errorf("%d miners have lost their connection", n)
	}
	x.end()
}
