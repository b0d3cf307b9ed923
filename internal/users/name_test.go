package users

import (
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	t.Parallel()
	const segwit = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
	for _, test := range []struct {
		list       string
		name, want string
	}{
		{"open", "Alice", "alice"},
		{"open", "", ""},
		{"open", " alice\n", "alice"},
		{"open", "al ice", ""},
		{"open", "alice\x00", ""},
		{"open", "alice\u00e9", ""},
		{"open", "alice+1000", ""},
		{"open", "a@mail", ""},
		{"suffix", "Alice_a_b", "alice_a"},
		{"suffix", "alice", "alice"},
		{"suffix", "_a", ""},
		{"open", "a-b_c:d|e^f/g", "a-b_c:d|e^f/g"},
		{"open", strings.Repeat("u", 200), strings.Repeat("u", 200)},
		{"open", strings.Repeat("u", 201), ""},
		{"case sensitive", "Alice", "Alice"},
		{"address", strings.ToUpper(segwit), segwit},
		{"address", "bc1Q" + segwit[4:], "bc1Q" + segwit[4:]},
		{"address", "ALICE", "ALICE"},
	} {
		t.Run(test.list+" "+test.name, func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			switch test.list {
			case "address":
				cfg.Kind = Address
			case "suffix":
				cfg.StripUserSuffix = true
			case "case sensitive":
				cfg.CaseInsensitive = false
			}
			if got := openList(t, cfg, t.TempDir()).Canonical(test.name); got != test.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	const segwit, old = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"
	for _, test := range []struct {
		kind, login  string
		user, worker string
	}{
		{Address, segwit + ".rig", segwit, "rig"},
		{Address, segwit + "_rig", segwit, "rig"},
		{Address, segwit + "/rig.1", segwit, "rig.1"},
		{Address, strings.ToUpper(segwit) + "_a_b", segwit, "a_b"},
		{Address, old + "_rig", old, "rig"},
		{Address, segwit[1:] + "_rig", segwit[1:] + "_rig", ""}, // no address: refused
		{Address, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx_rig", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx_rig", ""},
		{Open, segwit + "_rig", segwit, "rig"},
		{Open, "alice_rig.x", "alice_rig", "x"},
		{Database, segwit + "_rig", segwit + "_rig", ""},
	} {
		t.Run(test.kind+" "+test.login, func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			cfg.Kind = test.kind
			if user, worker := openList(t, cfg, t.TempDir()).Split(test.login); user != test.user || worker != test.worker {
				t.Errorf("got %q and %q", user, worker)
			}
		})
	}
}

// Who is listed with a suffix has none either; what was found out already has lost it.
func TestListedSuffixes(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.StripUserSuffix = true
	cfg.Kind, cfg.Static = Static, map[string]int32{"Alice_shop_1": 7}
	l := openList(t, cfg, t.TempDir())
	if id, ok := l.Cached(l.Canonical("alice_shop_2")); !ok || id != 7 {
		t.Errorf("id %d, %v", id, ok)
	}
	cfg.Kind, cfg.Static = Open, nil
	l = openList(t, cfg, t.TempDir())
	if got := l.fold(map[string]int32{"alice_shop": 7}, l.listed); got["alice_shop"] != 7 {
		t.Errorf("folded %v", got)
	}
}
