// Package guard keeps those who misuse a server from spoiling it for the others: it bounds the connections of an
// address and of its network, slows down who sends too much, and bans who tries out names or sends worthless shares.
//
// A server asks Admit for each connection and calls Leave when that has ended, tells of refused logins and of
// connections that are trusted, keeps a Pace with each connection and a Conduct with each worker, and runs the Guard.
// Many share an address, so the server acts on the culprit first: an address is banned only while nobody there is
// trusted. Nothing here knows what a connection or its protocol is. A ban keeps connections from being made; to end
// those that are there is the server's part. Bans outlive the process, also one that is killed, in bans.json, an array
// of Ban, and bans-new.jsonl, a Ban a line; counts do not.
package guard

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// refusedWindow is what RefusedLogins count for.
	refusedWindow = time.Minute
	// saveInterval is how often changed bans are written.
	saveInterval = 5 * time.Second
	// trustGrace is for how long an address is trusted after the last who was: a farm whose line has failed comes back
	// in any order.
	trustGrace = 10 * time.Minute
	// sweepInterval is how often addresses that have gone are forgotten.
	sweepInterval = time.Minute
)

// Guard counts who is here and knows who is banned. It is safe for concurrent use.
type Guard struct {
	Bans   *Bans
	Closed atomic.Bool // nobody is admitted

	limits Limits

	mu       sync.Mutex
	hosts    map[netip.Prefix]*host
	networks map[netip.Prefix]int // connections
}

type host struct {
	connections  int
	trusted      int       // connections, of those
	trustedUntil time.Time // without any
	refused      int       // logins since the time
	since        time.Time
}

// New returns a guard of a server that has no connections yet.
func New(limits Limits, bans *Bans) *Guard {
	return &Guard{Bans: bans, limits: limits, hosts: make(map[netip.Prefix]*host), networks: make(map[netip.Prefix]int)}
}

// Run forgets those who have gone and writes changed bans until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	save := time.NewTicker(saveInterval)
	defer save.Stop()
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			g.Bans.save(time.Now())
			return
		case now := <-sweep.C:
			g.sweep(now)
		case now := <-save.C:
			g.Bans.save(now)
		}
	}
}

// Watches reports whether limits and bans are for ip. They are not for one that is exempt or unknown.
func (g *Guard) Watches(ip netip.Addr) bool {
	exempt := func(p netip.Prefix) bool { return p.Contains(ip) }
	return ip.IsValid() && !slices.ContainsFunc(g.limits.Exempt, exempt)
}

// Host returns what counts as one address: of IPv6 a /64, which a host has to itself.
func Host(ip netip.Addr) netip.Prefix { return around(ip, 32, 64) }

func network(ip netip.Addr) netip.Prefix { return around(ip, 24, 48) }

func around(ip netip.Addr, bits4, bits6 int) netip.Prefix {
	ip = ip.Unmap()
	bits := bits4
	if ip.Is6() {
		bits = bits6
	}
	p, _ := ip.Prefix(bits) // fits the address
	return p
}

// Admit counts a connection, or says why there must be none: "draining", "banned", "address" or "network", the last two
// for their limits.
func (g *Guard) Admit(ip netip.Addr, now time.Time) (refusal string) {
	if g.Closed.Load() {
		return "draining"
	}
	if !g.Watches(ip) {
		return ""
	}
	if g.Bans.banned(ip, now) {
		return "banned"
	}
	address, network := Host(ip), network(ip)
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

func (g *Guard) host(address netip.Prefix) *host {
	h := g.hosts[address]
	if h == nil {
		h = new(host)
		g.hosts[address] = h
	}
	return h
}

// Trust says that a connection has a good miner, until Distrust or Leave.
func (g *Guard) Trust(ip netip.Addr) { g.trust(ip, 1) }

// Distrust takes back Trust.
func (g *Guard) Distrust(ip netip.Addr) { g.trust(ip, -1) }

func (g *Guard) trust(ip netip.Addr, change int) {
	if !g.Watches(ip) {
		return
	}
	address := Host(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hosts[address].trusted += change
}

// Leave ends a connection that was admitted, and the trust in it if there is any.
func (g *Guard) Leave(ip netip.Addr, trusted bool, now time.Time) {
	if !g.Watches(ip) {
		return
	}
	address, network := Host(ip), network(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hosts[address]
	h.connections--
	if trusted {
		h.trusted--
		h.trustedUntil = now.Add(trustGrace)
	}
	g.forget(address, h, now)
	if g.networks[network]--; g.networks[network] == 0 {
		delete(g.networks, network)
	}
}

// forget drops what is known of an address if that is nothing.
func (g *Guard) forget(address netip.Prefix, h *host, now time.Time) {
	if h.connections == 0 && now.Sub(h.since) >= refusedWindow && !now.Before(h.trustedUntil) {
		delete(g.hosts, address)
	}
}

// sweep forgets addresses that have gone and bans that have ended.
func (g *Guard) sweep(now time.Time) {
	g.Bans.sweep(now)
	g.mu.Lock()
	defer g.mu.Unlock()
	for address, h := range g.hosts {
		g.forget(address, h, now)
	}
}

// LoginRefused counts a login that was refused for what the miner said, and reports whether its address is banned now.
func (g *Guard) LoginRefused(ip netip.Addr, now time.Time) (banned bool) {
	if g.limits.RefusedLogins == 0 || !g.Watches(ip) {
		return false
	}
	return g.countRefused(ip, now) > g.limits.RefusedLogins && g.Ban(ip, "refused logins", now)
}

// countRefused returns how many logins were refused to an address of late.
func (g *Guard) countRefused(ip netip.Addr, now time.Time) int {
	address := Host(ip)
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.host(address)
	if now.Sub(h.since) >= refusedWindow {
		h.since, h.refused = now, 0
	}
	h.refused++
	return h.refused
}

// Ban keeps an address out for Limits.BanTime, if nobody there is trusted, and reports whether it may and can.
func (g *Guard) Ban(ip netip.Addr, reason string, now time.Time) bool {
	if !g.Watches(ip) {
		return false
	}
	address := Host(ip)
	if g.trusts(address, now) {
		return false
	}
	return g.Bans.Add(Ban{Prefix: address, Until: now.Add(g.limits.BanTime.Std()), Reason: reason}) == nil
}

// TooManyRefused reports whether so many refused logins of one connection are more than an address may have in a
// minute.
func (g *Guard) TooManyRefused(ip netip.Addr, logins int) bool {
	return g.limits.RefusedLogins > 0 && logins > g.limits.RefusedLogins && g.Watches(ip)
}

func (g *Guard) trusts(address netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hosts[address]
	return h != nil && (h.trusted > 0 || now.Before(h.trustedUntil))
}
