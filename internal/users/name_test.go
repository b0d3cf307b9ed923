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
		{"open", "al ice\x00<>\u00e9", "alice"},
		{"open", "a-b_c:d|e^f/g", "a-b_c:d|e^f/g"},
		{"open", strings.Repeat("u", 200), strings.Repeat("u", 200)},
		{"open", strings.Repeat("u", 201), ""},
		{"case sensitive", "Al ice", "Alice"},
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
			case "case sensitive":
				cfg.CaseInsensitive = false
			}
			if got := openList(t, cfg, t.TempDir()).Canonical(test.name); got != test.want {
				t.Errorf("got %q", got)
			}
		})
	}
}
