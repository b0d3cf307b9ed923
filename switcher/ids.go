package switcher

import (
	"sync"
	"time"
)

const (
	sessionIDs = 1 << 24
	// firstID is where ids begin: not at 0, as servers' do, so that one that gives its own is noticed.
	firstID = 128
	// idRest is how long an id is not given again.
	idRest = time.Minute
)

// idPool allocates session ids: the server's id in the high 8 bits, an index in the others.
type idPool struct {
	server uint8

	mu    sync.Mutex
	given uint32 // indexes that have been given at least once
	freed []freedID
}

type freedID struct {
	id uint32
	at time.Time
}

// get returns an id that nobody has; false when there is none.
func (p *idPool) get(now time.Time) (uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.freed) > 0 && now.Sub(p.freed[0].at) >= idRest {
		id := p.freed[0].id
		p.freed = p.freed[1:]
		return id, true
	}
	if p.given == sessionIDs {
		return 0, false
	}
	index := (firstID + p.given) % sessionIDs
	p.given++
	return uint32(p.server)<<24 | index, true
}

// put gives an id back, once.
func (p *idPool) put(id uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed = append(p.freed, freedID{id, now})
}
