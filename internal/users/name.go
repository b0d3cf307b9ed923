package users

import (
	"slices"
	"strings"

	"btcpool/internal/bitcoin"
	"btcpool/internal/share"
)

const maxName = 200 // bytes

// Split splits what a miner logs in with into user, in canonical form, and worker: at the first dot, or at a "_" or "/"
// behind an address, as other pools have it.
func (l *List) Split(login string) (user, worker string) {
	user, worker, _ = strings.Cut(login, ".")
	if i := strings.IndexAny(user, "_/"); i > 0 && l.separates(user[:i]) {
		user, worker = user[:i], login[i+1:]
	}
	return l.Canonical(user), worker
}

// separates reports whether a "_" or "/" behind name is no part of the user's name.
func (l *List) separates(name string) bool {
	name = strings.TrimSpace(name)
	switch l.cfg.Kind {
	case Address:
		_, err := l.network.PayoutScript(name)
		return err == nil
	case Open:
		return !l.cfg.StripUserSuffix && slices.ContainsFunc(bitcoin.NetworkNames(), func(of string) bool {
			network, _ := bitcoin.NetworkByName(of) // is one of them
			_, err := network.PayoutScript(name)
			return err == nil
		})
	}
	return false
}

// Canonical returns what the user is called here who calls himself name, in the one way to write it. It is empty when
// no user can have such a name: no character is left out, lest the rest be somebody else. The other methods want names
// in this form.
func (l *List) Canonical(name string) string {
	name = l.cfg.withoutSuffix(l.foldCase(strings.TrimSpace(name)))
	if share.CleanName(name) != name || len(name) > maxName {
		return ""
	}
	return name
}

// Fold returns the one name of all that mean the same user, unless that is an address.
func (c Config) Fold(name string) string {
	return c.withoutSuffix(c.foldCase(strings.TrimSpace(name)))
}

func (c Config) foldCase(name string) string {
	if c.CaseInsensitive {
		return strings.ToLower(name)
	}
	return name
}

// withoutSuffix cuts name at the last separator, if that is wanted.
func (c Config) withoutSuffix(name string) string {
	if i := strings.LastIndex(name, c.UserSuffixSeparator); c.StripUserSuffix && i >= 0 {
		return name[:i]
	}
	return name
}

// listed returns what the user is called here whom the source lists as name. What is created here has no suffix any
// more.
func (l *List) listed(name string) string {
	if name = l.foldCase(name); l.cfg.Kind == Open || l.cfg.Kind == Address {
		return name
	}
	return l.cfg.withoutSuffix(name)
}

// foldCase returns the one name of all that differ in case and mean the same user.
func (l *List) foldCase(name string) string {
	if l.cfg.Kind != Address {
		return l.cfg.foldCase(name)
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
