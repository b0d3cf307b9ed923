package sserver

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/share"
)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestGuardCounts(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	g := newGuard(Limits{PerAddress: 2, PerNetwork: 3, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, newBanList("", zerolog.Nop(), now))
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
		if got := g.admit(addr(step.ip), now); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	if got := g.admit(netip.Addr{}, now); got != "" {
		t.Errorf("an unknown address: %q", got)
	}
	for _, ip := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.3.3", "2001:db8:1:2::9", "2001:db8:1:2::9", "2001:db8:1:3::9", "10.1.1.1"} {
		g.leave(addr(ip), now)
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
	g := newGuard(Limits{RefusedLogins: 3, BanTime: config.Duration(time.Hour), Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, newBanList("", zerolog.Nop(), now))
	for i := range 4 {
		if got := g.loginRefused(ip, now.Add(time.Duration(i)*time.Minute)); got {
			t.Errorf("slow login %d", i)
		}
	}
	now = now.Add(10 * time.Minute)
	for i, want := range []bool{false, false, false, true} {
		if got := g.loginRefused(ip, now); got != want || g.loginRefused(exempt, now) {
			t.Errorf("login %d: %v", i, got)
		}
	}
	g.sweep(now.Add(time.Hour - 1))
	if got := g.admit(ip, now.Add(time.Hour-1)); got != "banned" {
		t.Errorf("within the hour: %q", got)
	}
	if got := g.admit(addr("192.0.2.2"), now); got != "" {
		t.Errorf("the neighbour: %q", got)
	}
	if got := g.admit(ip, now.Add(time.Hour)); got != "" {
		t.Errorf("after the hour: %q", got)
	}
	if !g.ban(ip, "for a test", now) || g.ban(exempt, "", now) {
		t.Error("ban")
	}
	g.leave(ip, now)
	g.leave(addr("192.0.2.2"), now)
	g.sweep(now.Add(2 * time.Hour))
	if left := g.bans.list(now); len(g.hosts) > 0 || len(left) > 0 {
		t.Errorf("left over: %v, %v", g.hosts, left)
	}
}

func TestConduct(t *testing.T) {
	t.Parallel()
	limits := Limits{InvalidShares: 0.5, InvalidAmong: 4}
	const ok, low, late = share.StatusAccept, share.StatusLowDifficulty, share.StatusStale
	for _, test := range []struct {
		name   string
		shares []share.Status
		want   bool // of the last
	}{
		{"three of four", []share.Status{low, ok, low, low}, true},
		{"half", []share.Status{low, ok, low, ok}, false},
		{"late", []share.Status{late, late, late, share.StatusJobNotFound}, false},
		{"too few", []share.Status{low, low, low}, false},
		{"each four by themselves", []share.Status{low, low, ok, ok, low, low, ok, ok}, false},
		{"the second four", []share.Status{ok, ok, ok, ok, share.StatusDuplicate, low, ok, share.StatusTimeTooNew}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var c, unlimited conduct
			for i, status := range test.shares {
				got := c.judged(status, limits)
				if want := test.want && i == len(test.shares)-1; got != want || unlimited.judged(status, Limits{}) {
					t.Errorf("share %d: %v", i, got)
				}
			}
		})
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	var c conduct
	const rate = 100
	for i, step := range []struct {
		after time.Duration
		lines int
		want  time.Duration
	}{
		{0, 1000, 0}, // the burst
		{0, 50, 500 * time.Millisecond},
		{500 * time.Millisecond, 10, 100 * time.Millisecond},
		{0, 100_000, time.Second},
		{time.Second, 1, 10 * time.Millisecond},
		{time.Hour, 1000, 0},
	} {
		now = now.Add(step.after)
		if got := c.spent(step.lines, rate, now); (got - step.want).Abs() > time.Microsecond {
			t.Errorf("step %d: pause of %s, want %s", i, got, step.want)
		}
	}
}

const binaryHead = "\r\n\r\n\x00\r\nQUIT\n"

var proxyHeaders = []struct {
	name, in string
	want     string // "": none
	bad      bool
}{
	{"IPv4", "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7", false},
	{"IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "2001:db8::7", false},
	{"shortest", "PROXY UNKNOWN\r\n", "", false},
	{"unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::1 1 1\r\n", "", false},
	{"another family", "PROXY TCP4 2001:db8::7 2001:db8::1 56324 443\r\n", "", true},
	{"no address", "PROXY TCP4 example 198.51.100.1 56324 443\r\n", "", true},
	{"with a zone", "PROXY TCP6 fe80::1%eth0 fe80::2 56324 443\r\n", "", true},
	{"too few", "PROXY TCP4 192.0.2.7 198.51.100.1\r\n", "", true},
	{"too long", "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n", "", true},
	{"none", `{"id":1,"method":"mining.subscribe"}` + "\n", "", true},
	{"binary IPv4", binaryHead + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb", "192.0.2.7", false},
	{"binary IPv6", binaryHead + "\x21\x21\x00\x24\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + strings.Repeat("x", 20), "2001:db8::7", false},
	{"binary, with more", binaryHead + "\x21\x11\x00\x10\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\x00\x01\x00", "192.0.2.7", false},
	{"binary, local", binaryHead + "\x20\x00\x00\x00", "", false},
	{"binary, unspecified", binaryHead + "\x21\x00\x00\x00", "", false},
	{"binary, datagrams", binaryHead + "\x21\x12\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb", "", true},
	{"binary, short", binaryHead + "\x21\x11\x00\x04\xc0\x00\x02\x07", "", true},
	{"binary, version 3", binaryHead + "\x31\x11\x00\x00", "", true},
	{"binary, endless", binaryHead + "\x21\x11\xff\xff", "", true},
}

func TestProxyHeader(t *testing.T) {
	t.Parallel()
	for _, test := range proxyHeaders {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const rest = "behind"
			got, n, err := parseProxyHeader([]byte(test.in + rest))
			if (err != nil) != test.bad || err != nil && !errors.Is(err, errProxyHeader) {
				t.Fatalf("error %v", err)
			}
			if test.bad {
				return
			}
			if got.IsValid() != (test.want != "") || got.IsValid() && got != addr(test.want) {
				t.Errorf("address %s", got)
			}
			if n != len(test.in) {
				t.Errorf("%d bytes, want %d", n, len(test.in))
			}
		})
	}
}

// A header is the same whatever comes behind it, and a part of one is none.
func FuzzProxyHeader(f *testing.F) {
	for _, test := range proxyHeaders {
		f.Add([]byte(test.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		ip, n, err := parseProxyHeader(in)
		if n == 0 || err != nil {
			if ip.IsValid() || n != 0 {
				t.Fatalf("%q: %s, %d bytes", in, ip, n)
			}
			return
		}
		again, m, err := parseProxyHeader(in[:n])
		if err != nil || again != ip || m != n {
			t.Fatalf("%q: %s, then %s, %v", in[:n], ip, again, err)
		}
		if _, m, _ := parseProxyHeader(in[:n-1]); m != 0 {
			t.Fatalf("%q does not need its end", in[:n])
		}
	})
}
