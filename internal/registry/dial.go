package registry

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"slices"
	"syscall"
	"time"
)

// dial connects to one address of a server after the other.
func (s *session) dial(network, server string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.closing, timeout)
	defer cancel()
	began := time.Now()
	raw, err := dialAny(ctx, network, server)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if at, ok := s.refusals.record(server, began, err); ok {
			if away := s.away.Load(); away != nil {
				(*away)(at)
			}
		}
		return nil, err
	}
	delete(s.refusals.at, server)
	if s.closing.Err() != nil {
		raw.Close()
		return nil, s.closing.Err()
	}
	s.raw = raw
	return &handshake{
		Conn:    raw,
		limit:   time.Now().Add(s.cfg.SessionTimeout.Std() / 3),
		granted: func(d time.Duration) { s.granted.Store(int64(d)) },
	}, nil
}

// dialAny returns an error that is ECONNREFUSED if every address refused.
func dialAny(ctx context.Context, network, server string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	var worst error
	for _, addr := range addrs {
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(addr, port))
		if err == nil {
			return conn, nil
		}
		if worst == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			worst = err
		}
	}
	return nil, worst
}

// refusals remembers which servers have refused the last connection.
type refusals struct {
	servers int
	at      map[string]time.Time
}

// record takes in what became of a dial. If those that refuse leave no quorum, it returns since when at least ZooKeeper
// has been away for everybody.
func (r *refusals) record(server string, began time.Time, err error) (at time.Time, away bool) {
	if !errors.Is(err, syscall.ECONNREFUSED) {
		delete(r.at, server)
		return time.Time{}, false
	}
	r.at[server] = began
	enough := r.servers - r.servers/2
	if len(r.at) < enough {
		return time.Time{}, false
	}
	newest := slices.SortedFunc(maps.Values(r.at), func(a, b time.Time) int { return b.Compare(a) })
	return newest[enough-1], true
}

// handshake is a connection whose first answer is bounded in time and size, and read along for the session timeout,
// which the client does not tell.
type handshake struct {
	net.Conn
	limit   time.Time
	granted func(time.Duration)
	head    []byte // length, protocol version and timeout, 4 bytes each
}

const (
	handshakeHead = 12
	maxHandshake  = 1 << 10 // ZooKeeper's answer has 41 bytes
)

// SetReadDeadline keeps to the limit until the handshake is over.
func (h *handshake) SetReadDeadline(t time.Time) error {
	if len(h.head) < handshakeHead {
		t = h.limit
	}
	return h.Conn.SetReadDeadline(t)
}

// Read refuses an answer that is longer than one of ZooKeeper.
func (h *handshake) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if len(h.head) == handshakeHead {
		return n, err
	}
	h.head = append(h.head, b[:min(n, handshakeHead-len(h.head))]...)
	if len(h.head) >= 4 {
		if size := binary.BigEndian.Uint32(h.head); size > maxHandshake {
			return 0, errors.New("the answer is not one of ZooKeeper")
		}
	}
	if len(h.head) == handshakeHead {
		// 0 comes with the news that the session has expired.
		if ms := int32(binary.BigEndian.Uint32(h.head[8:])); ms > 0 {
			h.granted(time.Duration(ms) * time.Millisecond)
		}
	}
	return n, err
}

// hosts goes round the servers. Names are looked up at each dial, for a server may come back under another address.
type hosts struct {
	servers     []string
	next, tried int
}

// Init is called once, before anything else.
func (h *hosts) Init(servers []string) error {
	h.servers = servers
	return nil
}

// Len returns the number of servers.
func (h *hosts) Len() int { return len(h.servers) }

// Next returns whom to try, and whether all have been tried so that it is time for a pause.
func (h *hosts) Next() (server string, retryStart bool) {
	server = h.servers[h.next]
	retryStart = h.tried > 0 && h.tried%len(h.servers) == 0
	h.next = (h.next + 1) % len(h.servers)
	h.tried++
	return server, retryStart
}

// Connected begins a new round, in which the server connected to counts.
func (h *hosts) Connected() { h.tried = 1 }
