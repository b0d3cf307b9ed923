package guard

import (
	"net/netip"
	"slices"
	"time"

	"btcpool/internal/config"
)

// Limits keep one visitor from taking what is there for all. 0 is no limit.
type Limits struct {
	PerAddress    int             `toml:"connections_per_address"` // of IPv6: per /64
	PerNetwork    int             `toml:"connections_per_network"` // IPv4: /24, IPv6: /48
	LinesPerSec   int             `toml:"lines_per_second"`        // of a connection, after a burst of ten times as many; an agent may send one more for each miner
	RefusedLogins int             `toml:"refused_logins"`          // per address and minute; more are a ban
	InvalidShares float64         `toml:"invalid_shares"`          // part of the shares of a connection; more are a ban
	InvalidAmong  int             `toml:"invalid_shares_among"`    // shares that are looked at
	BanTime       config.Duration `toml:"ban_time"`
	Exempt        []netip.Prefix  `toml:"exempt"` // networks without limits and bans
}

// DefaultLimits leave room for a farm behind one address.
func DefaultLimits() Limits {
	return Limits{
		PerAddress:    10_000,
		PerNetwork:    20_000,
		LinesPerSec:   100,
		RefusedLogins: 100,
		InvalidShares: 0.5,
		InvalidAmong:  500,
		BanTime:       config.Duration(10 * time.Minute),
		Exempt:        []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}
}

// Validate reports all faults.
func (l Limits) Validate() error {
	var faults config.Faults
	for _, n := range []struct {
		key   string
		value int
	}{
		{"connections_per_address", l.PerAddress},
		{"connections_per_network", l.PerNetwork},
		{"lines_per_second", l.LinesPerSec},
		{"refused_logins", l.RefusedLogins},
		{"invalid_shares_among", l.InvalidAmong},
	} {
		if n.value < 0 {
			faults.Addf("%s = %d: must not be negative", n.key, n.value)
		}
	}
	if !(l.InvalidShares >= 0 && l.InvalidShares <= 1) {
		faults.Addf("invalid_shares = %v: must be 0 to 1", l.InvalidShares)
	}
	faults.AtLeast("ban_time", l.BanTime, 0)
	return faults.Err()
}

func (l Limits) exempts(ip netip.Addr) bool {
	return slices.ContainsFunc(l.Exempt, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Exempt returns the network without limits that contains all of p, if there is
// one.
func (g *Guard) Exempt(p netip.Prefix) (by netip.Prefix, ok bool) {
	for _, e := range g.limits.Exempt {
		if e.Bits() <= p.Bits() && e.Contains(p.Addr()) {
			return e, true
		}
	}
	return netip.Prefix{}, false
}
