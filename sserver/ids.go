package sserver

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"
)

// sessionIDs is the number of sessions a server can have at a time.
const sessionIDs = 1 << 24

// idPool allocates session ids: the server's id in the high 8 bits, an index
// in the others. It starts anywhere, so that a restarted server does not repeat
// what it just gave, and gives an id again only when it has rested.
type idPool struct {
	server uint8
	rest   time.Duration

	mu    sync.Mutex
	first uint32    // index where this process began
	given uint32    // indexes that have been given at least once
	freed []freedID // oldest first
}

type freedID struct {
	id uint32
	at time.Time
}

func newIDPool(server uint8, rest time.Duration) *idPool {
	var start [4]byte
	_, _ = rand.Read(start[:]) // never fails
	return &idPool{server: server, rest: rest, first: binary.LittleEndian.Uint32(start[:]) % sessionIDs}
}

// get returns an id that nobody has; false when there is none.
func (p *idPool) get(now time.Time) (uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.freed) > 0 && now.Sub(p.freed[0].at) >= p.rest {
		id := p.freed[0].id
		p.freed = p.freed[1:]
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
