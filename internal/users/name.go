package users

import (
	"strings"

	"btcpool/internal/share"
)

const maxName = 200 // bytes

// Canonical returns what the user is called here who calls himself name: only
// characters that names may have, in the one way to write them. It is empty when
// no user has such a name. The other methods want names in this form.
func (l *List) Canonical(name string) string {
	if name = l.foldCase(share.CleanName(name)); len(name) > maxName {
		return ""
	}
	return name
}

// foldCase returns the one name of all that differ in case and mean the same
// user.
func (l *List) foldCase(name string) string {
	if l.cfg.Kind != Address {
		if l.cfg.CaseInsensitive {
			return strings.ToLower(name)
		}
		return name
	}
	// BIP 173: all capitals are the same address; base58 is case sensitive.
	if lower := strings.ToLower(name); strings.ToUpper(name) == name && strings.HasPrefix(lower, l.network.Params.Bech32HRPSegwit+"1") {
		return lower
	}
	return name
}

// admits reports whether a user may have that name.
func (l *List) admits(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	if l.cfg.Kind != Address {
		return true
	}
	_, err := l.network.PayoutScript(name)
	return err == nil
}
