package poll

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// Gate is what a service's listeners accept by, or for a moment do not. The zero value is open.
type Gate struct {
	mu     sync.RWMutex // held for reading while a connection is accepted, for writing while none is
	closed bool         // for good
}

// Accept has f called with the next connection of l. It waits while the gate is shut.
func (g *Gate) Accept(l *Listener, f func(Link, netip.Addr)) error {
	for {
		if err := g.accept(l, f); !errors.Is(err, ErrPaused) {
			return err
		}
	}
}

func (g *Gate) accept(l *Listener, f func(Link, netip.Addr)) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return net.ErrClosed
	}
	link, ip, err := l.Accept()
	if err == nil {
		f(link, ip)
	}
	return err
}

// Shut returns when no connection of all is being accepted, and those that come wait in the kernel until open is called:
// for another process, if they have passed to that, and else for Accept.
func (g *Gate) Shut(all ...*Listener) (open func(passed bool)) {
	for _, l := range all {
		_ = l.Pause() // does not fail while it is open
	}
	g.mu.Lock()
	return func(passed bool) {
		defer g.mu.Unlock()
		if g.closed = passed; passed {
			return
		}
		for _, l := range all {
			_ = l.Resume()
		}
	}
}
