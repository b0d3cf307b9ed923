package guard

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/config"
)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestGuardCounts(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	g := New(Limits{PerAddress: 2, PerNetwork: 3, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, NewBans("", zerolog.Nop(), now))
	for i, step := range []struct {
		ip   string
		want string
	}{
		{"192.0.2.1", ""},
		{"192.0.2.1", ""},
		{"192.0.2.1", "address"},
		{"192.0.2.2", ""},
		{"192.0.2.3", "network"},
		{"192.0.3.3", ""},
		{"2001:db8:1:2::1", ""},
		{"2001:db8:1:2:ffff::2", ""},
		{"2001:db8:1:2::3", "address"},
		{"2001:db8:1:3::1", ""},
		{"2001:db8:1:4::1", "network"},
		{"10.1.1.1", ""},
		{"10.1.1.1", ""},
		{"10.1.1.1", ""},
	} {
		if got := g.Admit(addr(step.ip), now); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if got := g.Admit(netip.Addr{}, now); got != "" {
		t.Errorf("an unknown address: %q", got)
	}
	for _, ip := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.3.3", "2001:db8:1:2::9", "2001:db8:1:2::9", "2001:db8:1:3::9", "10.1.1.1"} {
		g.Leave(addr(ip), false, now)
	}
	g.sweep(now)
	if len(g.networks) > 0 || len(g.hosts) > 0 {
		t.Errorf("left over: %v, %v", g.networks, g.hosts)
	}
}

func TestGuardBans(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	ip, exempt := addr("192.0.2.1"), addr("10.0.0.1")
	g := New(Limits{RefusedLogins: 3, BanTime: config.Duration(time.Hour), Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, NewBans("", zerolog.Nop(), now))
	for i := range 4 {
		if got := g.LoginRefused(ip, now.Add(time.Duration(i)*time.Minute)); got {
			t.Errorf("slow login %d", i)
		}
	}
	now = now.Add(10 * time.Minute)
	for i, want := range []bool{false, false, false, true} {
		if got := g.LoginRefused(ip, now); got != want || g.LoginRefused(exempt, now) {
			t.Errorf("login %d: %v", i, got)
		}
	}
	g.sweep(now.Add(time.Hour - 1))
	if got := g.Admit(ip, now.Add(time.Hour-1)); got != "banned" {
		t.Errorf("within the hour: %q", got)
	}
	if got := g.Admit(addr("192.0.2.2"), now); got != "" {
		t.Errorf("the neighbour: %q", got)
	}
	if got := g.Admit(ip, now.Add(time.Hour)); got != "" {
		t.Errorf("after the hour: %q", got)
	}
	if !g.Ban(ip, "for a test", now) || g.Ban(exempt, "", now) {
		t.Error("ban")
	}
	g.Leave(ip, false, now)
	g.Leave(addr("192.0.2.2"), false, now)
	g.sweep(now.Add(2 * time.Hour))
	if left := g.Bans.List(now); len(g.hosts) > 0 || len(left) > 0 {
		t.Errorf("left over: %v, %v", g.hosts, left)
	}
}

// Run writes bans soon and forgets all of those who have gone.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		bans := NewBans(dir, zerolog.Nop(), time.Now())
		g := New(Limits{RefusedLogins: 1, BanTime: config.Duration(time.Minute)}, bans)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.Run(ctx) })
		onDisk := func() int {
			synctest.Wait()
			list, err := readBans(bans.path)
			if err != nil {
				t.Error(err)
			}
			return len(list)
		}
		g.Ban(addr("192.0.2.1"), "for a test", time.Now())
		g.LoginRefused(addr("192.0.2.2"), time.Now())
		time.Sleep(saveInterval)
		if got := onDisk(); got != 1 {
			t.Errorf("%d bans written", got)
		}
		time.Sleep(sweepInterval + saveInterval)
		if got := onDisk(); got != 0 || bans.Len() > 0 || len(g.hosts) > 0 {
			t.Errorf("left over: %d bans written, %v, %v", got, bans.bans, g.hosts)
		}
		g.Ban(addr("192.0.2.1"), "for a test", time.Now())
		cancel()
		wg.Wait()
		if got := onDisk(); got != 1 {
			t.Errorf("%d bans written in the end", got)
		}
	})
}

// An address is not banned while somebody there is good, nor soon after.
func TestTrust(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	ip := addr("192.0.2.1")
	g := New(Limits{RefusedLogins: 1, BanTime: config.Duration(time.Hour)}, NewBans("", zerolog.Nop(), now))
	g.Admit(ip, now)
	g.Admit(ip, now)
	g.Trust(ip)
	g.Trust(ip)
	g.Distrust(ip)
	for range 5 {
		if g.LoginRefused(ip, now) || g.Ban(ip, "for a test", now) {
			t.Error("banned beside a good miner")
		}
	}
	g.Leave(ip, true, now)
	g.Leave(ip, false, now)
	now = now.Add(trustGrace - 1)
	g.sweep(now)
	if g.Ban(ip, "for a test", now) {
		t.Error("banned soon after the last good miner")
	}
	now = now.Add(1)
	g.sweep(now)
	if len(g.hosts) > 0 {
		t.Errorf("left over: %v", g.hosts)
	}
	if !g.Ban(ip, "for a test", now) {
		t.Error("not banned")
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
	} {
		if got := Host(netip.MustParseAddr(ip)).String(); got != want {
			t.Errorf("%s: got %s, want %s", ip, got, want)
		}
	}
	if Host(netip.Addr{}).IsValid() {
		t.Error("no address has a host")
	}
}
