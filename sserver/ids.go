package sserver

import (
	"crypto/hmac"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

const (
	// sessionIDs is the number of sessions a server can have at a time.
	sessionIDs = 1 << 24
	// maxPasts bounds how many sessions that ended can be resumed; a few hundred bytes each.
	maxPasts = 1 << 16
	// maxPastMiners bounds how many miners behind agents are among them.
	maxPastMiners = 1 << 17
)

// idPool allocates session ids: the server's id in the high 8 bits, an index in the others. It starts anywhere, so that
// a restarted server does not repeat what it just gave, and gives an id again only when it has rested; before, only to
// whom had it last.
type idPool struct {
	server uint8
	rest   time.Duration
	secret [32]byte // that keys are made of

	mu      sync.Mutex
	first   uint32         // index where this process began
	given   uint32         // indexes that have been given at least once
	freed   []freedID      // oldest first; some were claimed since
	claimed map[uint32]int // how many entries of freed are void
	pasts   map[uint32]heldPast
	miners  int // behind agents, among pasts
}

type freedID struct {
	id uint32
	at time.Time
}

type heldPast struct {
	past
	ip netip.Addr
	at time.Time
}

func newIDPool(server uint8, rest time.Duration) *idPool {
	p := &idPool{
		server:  server,
		rest:    rest,
		first:   rand.Uint32N(sessionIDs), //nolint:gosec // where ids begin; nobody gains by guessing one
		claimed: make(map[uint32]int),
		pasts:   make(map[uint32]heldPast),
	}
	_, _ = cryptorand.Read(p.secret[:]) // never fails
	return p
}

// key is what only who has the session of that id is told.
func (p *idPool) key(id uint32) uint64 {
	mac := hmac.New(sha256.New, p.secret[:])
	mac.Write(binary.BigEndian.AppendUint32(nil, id))
	return binary.BigEndian.Uint64(mac.Sum(nil)) | 1
}

// get returns an id that nobody has; false when there is none.
func (p *idPool) get(now time.Time) (uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.freed) > 0 {
		id := p.freed[0].id
		if n := p.claimed[id]; n > 0 {
			if p.claimed[id] = n - 1; n == 1 {
				delete(p.claimed, id)
			}
			p.freed = p.freed[1:]
			continue
		}
		if now.Sub(p.freed[0].at) < p.rest {
			break
		}
		p.freed = p.freed[1:]
		p.forget(id)
		return id, true
	}
	if p.given == sessionIDs {
		return 0, false
	}
	index := (p.first + p.given) % sessionIDs
	p.given++
	return uint32(p.server)<<24 | index, true
}

// put gives an id back.
func (p *idPool) put(id uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed = append(p.freed, freedID{id, now})
}

// putPast gives an id back that may be claimed from ip while it rests.
func (p *idPool) putPast(id uint32, before past, ip netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed = append(p.freed, freedID{id, now})
	if len(p.pasts) < maxPasts && p.miners+len(before.Farm) <= maxPastMiners {
		p.pasts[id] = heldPast{before, ip, now}
		p.miners += len(before.Farm)
	}
}

func (p *idPool) forget(id uint32) {
	p.miners -= len(p.pasts[id].Farm)
	delete(p.pasts, id)
}

// claim returns an id to whom had it last, which is told by ip and by whether it was an agent.
func (p *idPool) claim(id uint32, ip netip.Addr, agent bool, now time.Time) (past, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held, ok := p.pasts[id]
	if !ok || held.ip != ip || !ip.IsValid() || (held.Farm != nil) != agent || now.Sub(held.at) >= p.rest {
		return past{}, false
	}
	p.forget(id)
	p.claimed[id]++
	return held.past, true
}
