package guard

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func TestBansOutliveTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Unix(1_700_000_000, 0).UTC()
	l := NewBans(dir, zerolog.Nop(), now)
	for _, b := range []Ban{
		{prefix("192.0.2.77/24"), now.Add(time.Hour), "a network"},
		{prefix("198.51.100.1/32"), now.Add(time.Minute), "an address"},
		{prefix("2001:db8::/48"), now.Add(2 * time.Hour), "the other protocol"},
		{prefix("203.0.113.1/32"), now.Add(time.Hour), "lifted"},
	} {
		if err := l.Add(b); err != nil {
			t.Fatal(err)
		}
	}
	if !l.Lift(prefix("203.0.113.1/32")) || l.Lift(prefix("203.0.113.1/32")) {
		t.Error("lift")
	}
	l.save(now)

	now = now.Add(time.Minute)
	l = NewBans(dir, zerolog.Nop(), now)
	want := []Ban{
		{prefix("192.0.2.0/24"), now.Add(59 * time.Minute), "a network"},
		{prefix("2001:db8::/48"), now.Add(119 * time.Minute), "the other protocol"},
	}
	if diff := cmp.Diff(want, l.List(now), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	for ip, want := range map[string]bool{
		"192.0.2.1":       true,
		"192.0.3.1":       false,
		"198.51.100.1":    false, // over
		"203.0.113.1":     false,
		"2001:db8:0:1::1": true,
		"2001:db8:1::1":   false,
	} {
		if got := l.banned(addr(ip), now); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
	l.sweep(now.Add(2 * time.Hour))
	if len(l.bans) > 0 || len(l.bits) > 0 {
		t.Errorf("left over: %v, %v", l.bans, l.bits)
	}
}

func TestDamagedBans(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{}", `[{"until":"2030-01-01T00:00:00Z"}]`, `[{"prefix":"1.2.3.4/99"}]`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "bans.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := NewBans(dir, zerolog.Nop(), time.Now())
		if list := l.List(time.Now()); len(list) > 0 {
			t.Errorf("%s: %v", text, list)
		}
	}
}

// What was said of a ban holds after kill -9, and so does that it was lifted.
func TestBansOutliveAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Unix(1_700_000_000, 0).UTC()
	killed := func() []Ban { return NewBans(dir, zerolog.Nop(), now).List(now) }
	first := Ban{prefix("192.0.2.1/32"), now.Add(time.Minute), "written at once"}
	second := Ban{prefix("192.0.2.2/32"), now.Add(time.Hour), "beside one in the file"}
	l := NewBans(dir, zerolog.Nop(), now)
	want := func(bans ...Ban) {
		t.Helper()
		if diff := cmp.Diff(bans, killed(), cmpopts.EquateComparable(netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	if err := l.Add(first); err != nil {
		t.Fatal(err)
	}
	want(first)
	l.save(now)
	want(first)
	if info, err := os.Stat(l.journal); err != nil || info.Size() > 0 {
		t.Errorf("journal of %v bytes, %v", info.Size(), err)
	}
	if err := l.Add(second); err != nil {
		t.Fatal(err)
	}
	want(first, second)
	l.Lift(first.Prefix)
	want(second)
	if err := appendTo(l.journal, []byte(`{"prefix":"192.0.2.3/32","unt`)); err != nil {
		t.Fatal(err)
	}
	l = NewBans(dir, zerolog.Nop(), now)
	if err := l.Add(first); err != nil {
		t.Fatal(err)
	}
	want(first, second)
}

// Bans pass to another process and back: whoever has them has all, and the other takes none.
func TestBansPass(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Unix(1_700_000_000, 0).UTC()
	here, there := NewBans(dir, zerolog.Nop(), now), NewBans("", zerolog.Nop(), now)
	var want []Ban
	for i := range 6 {
		b := Ban{prefix("192.0.2.0/32"), now.Add(time.Hour + time.Duration(i)*time.Minute), "one"}
		b.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
		if err := here.Add(b); err != nil {
			t.Fatal(err)
		}
		want = append(want, b)
		if i%2 == 0 {
			here.save(now) // else they are in the journal alone
		}
		here.Leave()
		if here.Add(b) == nil || here.Lift(b.Prefix) {
			t.Error("who has left the bans changes them")
		}
		there.Open(dir, now)
		if diff := cmp.Diff(want, there.List(now), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Error(diff)
		}
		here, there = there, here
	}
}
