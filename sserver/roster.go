package sserver

import (
	"context"
	"slices"
	"sync"
	"time"
)

// roster knows all sessions, in parts: each part has a goroutine that tells its
// miners what is new.
type roster struct{ parts []*rosterPart }

type rosterPart struct {
	wake chan struct{} // there is a new round

	mu       sync.Mutex
	sessions []*session
}

func newRoster(parts int) *roster {
	r := &roster{parts: make([]*rosterPart, parts)}
	for i := range r.parts {
		r.parts[i] = &rosterPart{wake: make(chan struct{}, 1)}
	}
	return r
}

func (r *roster) add(s *session) {
	p := r.parts[int(s.ID)%len(r.parts)]
	p.mu.Lock()
	defer p.mu.Unlock()
	s.part, s.pos = p, len(p.sessions)
	p.sessions = append(p.sessions, s)
}

func (r *roster) remove(s *session) {
	p := s.part
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.sessions[len(p.sessions)-1]
	p.sessions[s.pos], last.pos = last, s.pos
	p.sessions[len(p.sessions)-1] = nil
	p.sessions = p.sessions[:len(p.sessions)-1]
}

// all returns the sessions there are, in dst's memory.
func (p *rosterPart) all(dst []*session) []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(slices.Grow(dst[:0], len(p.sessions)), p.sessions...)
}

// wakeAll makes every part look for a new round. It does not block.
func (r *roster) wakeAll() {
	for _, p := range r.parts {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// run refreshes the part's sessions at each round, and once in an interval for
// the sake of their difficulty, until ctx ends.
func (p *rosterPart) run(ctx context.Context, srv *Service) {
	ticker := time.NewTicker(srv.cfg.ShareInterval.Std())
	defer ticker.Stop()
	var (
		sessions []*session
		sc       scratch
		told     uint64 // number of the latest round
	)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-ticker.C:
		}
		current := srv.jobs.round.Load()
		sessions = p.refresh(sessions, &sc)
		if current != nil && current.number > told {
			told = current.number
			srv.metrics.broadcastSeconds.Observe(time.Since(current.start).Seconds())
		}
	}
}

// refresh tells all sessions of the part what is new. It returns the memory of
// its list.
func (p *rosterPart) refresh(list []*session, sc *scratch) []*session {
	list = p.all(list)
	now := time.Now()
	for _, s := range list {
		s.refresh(sc, now)
	}
	clear(list)
	return list
}
