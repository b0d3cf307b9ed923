package guard

import (
	"net/netip"
	"time"

	"btcpool/internal/upgrade"
)

// Memory is what is known of an address beside its connections.
type Memory struct {
	Address      netip.Prefix
	TrustedUntil time.Time
	Refused      int // logins since the time
	Since        time.Time
}

// Code is for what another process is to know.
func (m *Memory) Code(c *upgrade.Codec) {
	ip, bits := m.Address.Addr(), uint8(m.Address.Bits())
	c.Addr(&ip)
	upgrade.Uint(c, &bits)
	if c.Reading() {
		if m.Address = netip.PrefixFrom(ip, int(bits)); !m.Address.IsValid() {
			c.Fail("no address")
		}
	}
	c.Time(&m.TrustedUntil)
	upgrade.Int(c, &m.Refused)
	c.Time(&m.Since)
}

// Memories returns what another Guard needs to know that goes on with the connections.
func (g *Guard) Memories() (all []Memory) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for address, h := range g.hosts {
		if h.refused > 0 || !h.trustedUntil.IsZero() {
			all = append(all, Memory{address, h.trustedUntil, h.refused, h.since})
		}
	}
	return all
}

// Remember takes over what another Guard knew.
func (g *Guard) Remember(all []Memory) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range all {
		h := g.host(m.Address)
		h.trustedUntil, h.refused, h.since = m.TrustedUntil, m.Refused, m.Since
	}
}

// Restore counts a connection that another Guard has admitted.
func (g *Guard) Restore(ip netip.Addr, trusted bool) {
	if !g.Watches(ip) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.host(Host(ip))
	h.connections++
	g.networks[network(ip)]++
	if trusted {
		h.trusted++
	}
}
