package registry

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

const (
	maxPacket    = 1 << 20 // ZooKeeper's own default
	maxHandshake = 1 << 10 // its answer has 41 bytes
	logInterval  = 10 * time.Second
)

// session is a connection to ZooKeeper that outlives servers and, under a new
// session id, sessions.
type session struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	path    string
	uuid    string

	conn    *zk.Conn
	events  <-chan zk.Event
	granted atomic.Int64                       // session timeout, as a time.Duration
	breaks  atomic.Int64                       // connections lost, at least
	away    atomic.Pointer[func(at time.Time)] // called when ZooKeeper was away for everybody

	closing   context.Context
	close     func()
	waitLog   rate.Sometimes
	connected bool // of onEvent

	mu       sync.Mutex
	raw      net.Conn
	refusals refusals
}

// open returns a session that is being connected.
func (r *Registry) open(path string) (*session, error) {
	if err := ValidatePath(path); err != nil {
		return nil, fmt.Errorf("ZooKeeper path %q: %w", path, err)
	}
	closing, cancel := context.WithCancel(context.Background())
	s := &session{
		cfg:      r.cfg,
		log:      r.log.With().Str("path", path).Logger(),
		metrics:  r.metrics,
		path:     path,
		uuid:     newUUID(),
		closing:  closing,
		waitLog:  rate.Sometimes{Interval: logInterval},
		refusals: refusals{servers: len(r.cfg.Servers), at: map[string]time.Time{}},
	}
	s.granted.Store(int64(r.cfg.SessionTimeout))
	var err error
	s.conn, s.events, err = zk.Connect(r.cfg.Servers, r.cfg.SessionTimeout.Std(),
		zk.WithHostProvider(&hosts{}), zk.WithDialer(s.dial), zk.WithEventCallback(s.onEvent),
		zk.WithLogger(logger{s.log}), zk.WithLogInfo(false), zk.WithMaxBufferSize(maxPacket))
	if err != nil {
		cancel()
		return nil, err
	}
	// Everything that was held is free as soon as the server hears of it.
	s.close = sync.OnceFunc(func() {
		cancel()
		s.conn.Close()
		s.mu.Lock()
		if s.raw != nil {
			s.raw.Close()
		}
		s.mu.Unlock()
		for range s.events { // until the connection's goroutines have ended
		}
		s.metrics.connected.WithLabelValues(path).Set(0)
	})
	return s, nil
}

// timeout is that of the session: what we asked for, within the server's limits.
func (s *session) timeout() time.Duration { return time.Duration(s.granted.Load()) }

// onEvent is called by one goroutine at a time.
func (s *session) onEvent(e zk.Event) {
	if e.Type != zk.EventSession {
		return
	}
	gauge := s.metrics.connected.WithLabelValues(s.path)
	switch e.State {
	case zk.StateHasSession:
		s.connected = true
		gauge.Set(1)
		s.log.Info().Str("server", e.Server).Dur("session_timeout_ms", s.timeout()).Msg("ZooKeeper session")
	case zk.StateExpired:
		s.metrics.expiries.WithLabelValues(s.path).Inc()
		s.log.Warn().Msg("ZooKeeper session expired")
	case zk.StateDisconnected:
		s.breaks.Add(1)
		gauge.Set(0)
		if s.connected && s.closing.Err() == nil {
			s.log.Warn().Str("server", e.Server).Msg("ZooKeeper connection lost")
		}
		s.connected = false
	}
}

// waiting says why there is nothing yet, but not every time.
func (s *session) waiting(err error) {
	if s.closing.Err() == nil {
		s.waitLog.Do(func() { s.log.Warn().Err(err).Strs("servers", s.cfg.Servers).Msg("waiting for ZooKeeper") })
	}
}

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

// record takes in what became of a dial. If those that refuse leave no quorum,
// it returns since when at least ZooKeeper has been away for everybody.
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
	newest := make([]time.Time, 0, len(r.at))
	for _, t := range r.at {
		newest = append(newest, t)
	}
	slices.SortFunc(newest, func(a, b time.Time) int { return b.Compare(a) })
	return newest[enough-1], true
}

// handshake is a connection whose first answer is bounded in time and size,
// and read along for the session timeout, which the client does not tell.
type handshake struct {
	net.Conn
	limit   time.Time
	granted func(time.Duration)
	head    []byte // length, protocol version and timeout, 4 bytes each
}

const handshakeHead = 12

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

// hosts goes round the servers. Names are looked up at each dial, for a server
// may come back under another address.
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

// Next returns whom to try, and whether all have been tried so that it is time
// for a pause.
func (h *hosts) Next() (server string, retryStart bool) {
	server = h.servers[h.next]
	retryStart = h.tried > 0 && h.tried%len(h.servers) == 0
	h.next = (h.next + 1) % len(h.servers)
	h.tried++
	return server, retryStart
}

// Connected begins a new round, in which the server connected to counts.
func (h *hosts) Connected() { h.tried = 1 }

// logger writes what the client library reports: one line or more each second
// while a server is away. What matters is logged by onEvent.
type logger struct{ log zerolog.Logger }

func (l logger) Printf(format string, args ...any) {
	l.log.Debug().Msg("zk: " + strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// newUUID returns a random one (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
