package httpapi

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// crowd is the connections of a server, limit at most: for one more the one that waits for a request for the longest is
// closed, or itself, if there is none such.
type crowd struct {
	limit  int
	closed func() // is called before one is closed

	mu      sync.Mutex
	waiting map[net.Conn]time.Time // for a request, since when
	busy    map[net.Conn]bool      // with one
}

func newCrowd(limit int, closed func()) *crowd {
	return &crowd{limit: limit, closed: closed, waiting: make(map[net.Conn]time.Time), busy: make(map[net.Conn]bool)}
}

// changed is a server's ConnState.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, conn)
	delete(c.busy, conn)
	switch state {
	case http.StateNew:
		c.admit(conn)
	case http.StateIdle:
		c.waiting[conn] = time.Now()
	case http.StateActive:
		c.busy[conn] = true
	}
}

func (c *crowd) admit(conn net.Conn) {
	if len(c.waiting)+len(c.busy) >= c.limit {
		out := conn
		for other, since := range c.waiting {
			if out == conn || since.Before(c.waiting[out]) {
				out = other
			}
		}
		delete(c.waiting, out)
		c.closed()
		_ = out.Close() // it is not used any more
		if out == conn {
			return
		}
	}
	c.waiting[conn] = time.Now()
}
