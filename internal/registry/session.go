package registry

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

const (
	maxPacket   = 1 << 20 // ZooKeeper's own default
	logInterval = 10 * time.Second
)

// session is a connection to ZooKeeper that outlives servers and, under a new session id, sessions.
type session struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	path    string
	uuid    string

	conn    *zk.Conn
	events  <-chan zk.Event
	granted atomic.Int64                       // the session timeout, as a time.Duration
	breaks  atomic.Int64                       // grows when the connection is lost
	told    func(zk.Event)                     // hears of sessions and watches, besides onEvent; nil: nobody
	away    atomic.Pointer[func(at time.Time)] // called when ZooKeeper was away for everybody

	closing   context.Context
	close     func()
	waitLog   rate.Sometimes
	connected bool // only onEvent uses it

	mu       sync.Mutex
	raw      net.Conn
	refusals refusals
}

// open returns a session that is being connected.
func (r *Registry) open(path string) (*session, error) { return r.openTold(path, nil) }

// openTold is open for whom is told of events. What hears of them must not wait.
func (r *Registry) openTold(path string, told func(zk.Event)) (*session, error) {
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
		told:     told,
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
	if s.told != nil {
		s.told(e)
	}
	if e.Type != zk.EventSession {
		return
	}
	gauge := s.metrics.connected.WithLabelValues(s.path)
	switch e.State {
	case zk.StateHasSession:
		s.connected = true
		gauge.Set(1)
		s.log.Info().Str("server", e.Server).Dur("session_timeout_ms", s.timeout()).Msg("ZooKeeper session begins")
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

// logger writes what the client library reports: one line or more each second while a server is away. What matters is
// logged by onEvent.
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
