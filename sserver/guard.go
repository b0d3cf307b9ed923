package sserver

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/share"
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

// refusedWindow is what RefusedLogins count for.
const refusedWindow = time.Minute

// guard counts who is here and knows who is banned.
type guard struct {
	limits Limits
	bans   *banList
	closed atomic.Bool // nobody may come

	mu       sync.Mutex
	hosts    map[netip.Prefix]*host
	networks map[netip.Prefix]int // connections
}

type host struct {
	connections int
	refused     int // logins since the time
	since       time.Time
}

func newGuard(limits Limits, bans *banList) *guard {
	return &guard{limits: limits, bans: bans, hosts: make(map[netip.Prefix]*host), networks: make(map[netip.Prefix]int)}
}

// watches reports whether limits are for ip. An unknown address is not one.
func (g *guard) watches(ip netip.Addr) bool { return ip.IsValid() && !contains(g.limits.Exempt, ip) }

// prefixes returns what counts as the address ip, and as its network.
func prefixes(ip netip.Addr) (host, network netip.Prefix) {
	hostBits, networkBits := 32, 24
	if ip.Is6() {
		hostBits, networkBits = 64, 48
	}
	host, _ = ip.Prefix(hostBits) // fits the address
	network, _ = ip.Prefix(networkBits)
	return host, network
}

// admit counts a connection, or says why there must be none.
func (g *guard) admit(ip netip.Addr, now time.Time) (refusal string) {
	if g.closed.Load() {
		return "draining"
	}
	if !g.watches(ip) {
		return ""
	}
	if g.bans.banned(ip, now) {
		return "banned"
	}
	address, network := prefixes(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.host(address)
	switch {
	case g.limits.PerAddress > 0 && h.connections >= g.limits.PerAddress:
		return "address"
	case g.limits.PerNetwork > 0 && g.networks[network] >= g.limits.PerNetwork:
		return "network"
	}
	h.connections++
	g.networks[network]++
	return ""
}

func (g *guard) host(address netip.Prefix) *host {
	h := g.hosts[address]
	if h == nil {
		h = new(host)
		g.hosts[address] = h
	}
	return h
}

// leave ends a connection that was admitted.
func (g *guard) leave(ip netip.Addr, now time.Time) {
	if !g.watches(ip) {
		return
	}
	address, network := prefixes(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hosts[address]
	h.connections--
	g.forget(address, h, now)
	if g.networks[network]--; g.networks[network] == 0 {
		delete(g.networks, network)
	}
}

// forget drops what is known of an address if that is nothing.
func (g *guard) forget(address netip.Prefix, h *host, now time.Time) {
	if h.connections == 0 && now.Sub(h.since) >= refusedWindow {
		delete(g.hosts, address)
	}
}

// sweep forgets addresses that have gone and bans that have ended.
func (g *guard) sweep(now time.Time) {
	g.bans.sweep(now)
	g.mu.Lock()
	defer g.mu.Unlock()
	for address, h := range g.hosts {
		g.forget(address, h, now)
	}
}

// loginRefused counts a login and reports whether its address is banned now.
func (g *guard) loginRefused(ip netip.Addr, now time.Time) (banned bool) {
	if g.limits.RefusedLogins == 0 || !g.watches(ip) {
		return false
	}
	return g.countRefused(ip, now) > g.limits.RefusedLogins && g.ban(ip, "refused logins", now)
}

// countRefused returns how many logins were refused to an address of late.
func (g *guard) countRefused(ip netip.Addr, now time.Time) int {
	address, _ := prefixes(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.host(address)
	if now.Sub(h.since) >= refusedWindow {
		h.since, h.refused = now, 0
	}
	h.refused++
	return h.refused
}

// ban keeps an address out for a while and reports whether it may and can.
func (g *guard) ban(ip netip.Addr, reason string, now time.Time) bool {
	if !g.watches(ip) {
		return false
	}
	address, _ := prefixes(ip)
	return g.bans.add(Ban{Prefix: address, Until: now.Add(g.limits.BanTime.Std()), Reason: reason}) == nil
}

// conduct is how a session behaves: what its limits count.
type conduct struct {
	Shares, Invalid int     // since the last look
	Credit          float64 // lines it may send at once
	At              time.Time
}

// judged counts a share and reports whether there are too many invalid ones
// among the last. Late ones are nobody's fault.
func (c *conduct) judged(status share.Status, l Limits) (bad bool) {
	if l.InvalidShares == 0 || l.InvalidAmong == 0 {
		return false
	}
	c.Shares++
	if status.IsMinersFault() {
		c.Invalid++
	}
	if c.Shares < l.InvalidAmong {
		return false
	}
	bad = float64(c.Invalid) > l.InvalidShares*float64(c.Shares)
	c.Shares, c.Invalid = 0, 0
	return bad
}

const (
	// lineBurst is how many seconds' worth of lines may come at once.
	lineBurst = 10
	// maxPause keeps a session that is held up near to the rest of the world.
	maxPause = time.Second
)

// spent takes n lines off the credit of one that grows by rate per second and
// returns how long the session must pause for it.
func (c *conduct) spent(n, rate int, now time.Time) time.Duration {
	if c.At.IsZero() {
		c.Credit = lineBurst * float64(rate)
	} else {
		c.Credit = min(c.Credit+now.Sub(c.At).Seconds()*float64(rate), lineBurst*float64(rate))
	}
	c.At = now
	if c.Credit -= float64(n); c.Credit >= 0 {
		return 0
	}
	c.Credit = max(c.Credit, -float64(rate))
	return min(time.Duration(-c.Credit/float64(rate)*float64(time.Second)), maxPause)
}
