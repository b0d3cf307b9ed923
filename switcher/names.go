package switcher

import (
	"strings"

	"btcpool/internal/share"
	"btcpool/internal/userchain"
)

// maxName bounds what a miner may call itself, in bytes.
const maxName = 1 << 10

// name is what a miner logs in by: a user, and what follows it with the dot.
type name struct{ user, miner string }

// splitName takes a worker's name apart. Case says how the user's part is written.
func splitName(full string, lower bool) (name, *refusal) {
	if len(full) > maxName {
		return name{}, &refuseName
	}
	full = share.CleanName(full)
	user, rest, dot := strings.Cut(full, ".")
	if dot {
		rest = "." + rest
	}
	if user == "" {
		return name{}, &refuseNoName
	}
	if lower {
		user = strings.ToLower(user)
	}
	if userchain.CheckUser(user) != nil {
		return name{}, &refuseName
	}
	return name{user, rest}, nil
}

func (n name) String() string { return n.user + n.miner }

// suffixed is the name by which a user may be known on one chain only.
func (n name) suffixed(suffix string) string { return n.user + "_" + suffix + n.miner }
