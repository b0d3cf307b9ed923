package guard

import (
	"net/netip"
	"time"

	"btcpool/internal/config"
)

// Limits keep one visitor from taking what is there for all. 0 is no limit.
type Limits struct {
	// PerAddress bounds the connections of an address, of IPv6 of a /64; PerNetwork those of a network: IPv4 /24, IPv6
	// /48.
	PerAddress int `toml:"connections_per_address"`
	PerNetwork int `toml:"connections_per_network"`
	// LinesPerSec bounds what a connection sends after a burst of ten times as many; who speaks for others may send one
	// more for each of them.
	LinesPerSec int `toml:"lines_per_second"`
	// RefusedLogins are of an address in a minute, and InvalidShares the part of the last InvalidAmong shares of a
	// worker. More are a ban of the culprit: of the session, of the worker or agent's miner beside good ones, and of
	// the address if nobody there is good. BanTime is for how long.
	RefusedLogins int             `toml:"refused_logins"`
	InvalidShares float64         `toml:"invalid_shares"`
	InvalidAmong  int             `toml:"invalid_shares_among"`
	BanTime       config.Duration `toml:"ban_time"`
	// Exempt are networks without limits and bans.
	Exempt []netip.Prefix `toml:"exempt"`
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
	faults.NotNegative("connections_per_address", int64(l.PerAddress))
	faults.NotNegative("connections_per_network", int64(l.PerNetwork))
	faults.NotNegative("lines_per_second", int64(l.LinesPerSec))
	faults.NotNegative("refused_logins", int64(l.RefusedLogins))
	faults.NotNegative("invalid_shares_among", int64(l.InvalidAmong))
	if !(l.InvalidShares >= 0 && l.InvalidShares <= 1) {
		faults.Addf("invalid_shares = %v: must be 0 to 1", l.InvalidShares)
	}
	faults.AtLeast("ban_time", l.BanTime, 0)
	return faults.Err()
}

// Exempt returns the network without limits that contains all of p, if there is one.
func (g *Guard) Exempt(p netip.Prefix) (by netip.Prefix, ok bool) {
	for _, e := range g.limits.Exempt {
		if e.Bits() <= p.Bits() && e.Contains(p.Addr()) {
			return e, true
		}
	}
	return netip.Prefix{}, false
}
