package agentproxy

import (
	"math"
	"net/netip"
	"testing"
	"time"
)

// The names that BTCAgent registers.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		w               Workers
		login, ip       string
		account, worker string
	}{
		{Workers{}, "kevin.s10 99!x", "10.0.0.1", "kevin", "s1099x"},
		{Workers{}, "justname", "10.0.0.1", "justname", "justname"},
		{Workers{}, "acct.", "10.0.0.1", "acct", "acct."},
		{Workers{}, ".w", "10.0.0.1", "", "w"},
		{Workers{}, "", "10.0.0.1", "", "__default__"},
		{Workers{}, "a.b.c", "10.0.0.1", "a", "b.c"},
		{Workers{}, "a.a-very-long-name-of-a-machine", "10.0.0.1", "a", "a-very-long-name-of-"},
		{Workers{Fixed: "all"}, "a.b", "10.0.0.1", "a", "all"},
		{Workers{ByIP: true, IPFormat: "{1}x{2}x{3}x{4}"}, "a.b", "192.168.3.77", "a", "192x168x3x77"},
		{Workers{ByIP: true, IPFormat: "{3}-{4}"}, "a.b", "2001:db8::ab:c0de", "a", "c0-de"},
		{Workers{Fixed: "all", ByIP: true, IPFormat: "{4}"}, "a.b", "10.0.0.1", "a", "all"},
	} {
		account, worker := test.w.name(test.login, netip.MustParseAddr(test.ip))
		if account != test.account || worker != test.worker {
			t.Errorf("%+v %q: got %q, %q, want %q, %q", test.w, test.login, account, worker, test.account, test.worker)
		}
	}
}

// A number comes again as late as possible, and there are 65,535.
func TestNumbers(t *testing.T) {
	t.Parallel()
	var n numbers
	seen := make(map[uint16]bool)
	for range maxMiners {
		number, ok := n.take()
		if !ok || seen[number] {
			t.Fatalf("number %d, %v", number, ok)
		}
		seen[number] = true
	}
	if len(seen) != 65535 || seen[0xFFFF] {
		t.Errorf("%d numbers", len(seen))
	}
	if _, ok := n.take(); ok {
		t.Error("one more was given out")
	}
	n.put(7)
	n.put(9)
	if number, ok := n.take(); number != 7 || !ok {
		t.Errorf("got %d, %v", number, ok)
	}
	n.put(7)
	if number, ok := n.take(); number != 9 || !ok {
		t.Errorf("a number that has just been given back came again: %d, %v", number, ok)
	}
}

// The rate is right from the first minute on, and follows.
func TestMeter(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	m := newMeter(start)
	if got := m.perSecond(start); got != 0 {
		t.Errorf("%v at the beginning", got)
	}
	now := start
	run := func(rate float64, d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(time.Second)
			m.add(rate, now)
		}
	}
	near := func(want float64) {
		t.Helper()
		if got := m.perSecond(now); math.Abs(got-want) > .02*want {
			t.Errorf("%v after %s, want %v", got, now.Sub(start), want)
		}
	}
	run(5, time.Minute)
	near(5)
	run(5, time.Hour)
	near(5)
	run(1, time.Hour)
	near(1)
}
