package switcher

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/retry"

	"github.com/cenkalti/backoff/v5"
)

// chain is a chain that miners can be on, with servers that stand for each other.
type chain struct {
	Chain
	servers []*server
	former  []*server // that another process knew, and the configuration does not

	sessions prometheus.Gauge // miners on it
}

// suffix is tried behind a user's name.
func (c *chain) suffix() string { return cmp.Or(c.UserSuffix, c.Name) }

// server returns the one at an address, nil if there is none.
func (c *chain) server(addr string) *server {
	if i := slices.IndexFunc(c.servers, func(s *server) bool { return s.Addr == addr }); i >= 0 {
		return c.servers[i]
	}
	return nil
}

// formerServer returns one that is not configured any more. Nobody is sent there; who is there is to leave.
func (c *chain) formerServer(addr string) *server {
	if i := slices.IndexFunc(c.former, func(s *server) bool { return s.Addr == addr }); i >= 0 {
		return c.former[i]
	}
	s := newServer(Server{Addr: addr}, prometheus.NewGauge(prometheus.GaugeOpts{}))
	s.former = true
	c.former = append(c.former, s)
	return s
}

// unknownMask is that of a server that has not said yet which version bits may be rolled.
const unknownMask = 1<<64 - 1

// server is one of a chain's, and what is known of it. It is safe for concurrent use.
type server struct {
	Server
	mask   atomic.Uint64 // version bits that it lets miners roll, or unknownMask
	up     prometheus.Gauge
	former bool // it is not configured any more

	mu     sync.Mutex
	err    error // why it is of no use; nil: it is
	since  time.Time
	until  time.Time // before that it is not tried, if there are others
	pauses *backoff.ExponentialBackOff
}

// serverPace is how long a server that has failed is left alone.
var serverPace = retry.Pace{First: 500 * time.Millisecond, Longest: 30 * time.Second}

func newServer(cfg Server, up prometheus.Gauge) *server {
	s := &server{Server: cfg, up: up, pauses: serverPace.Pauses(), since: time.Now()}
	s.mask.Store(unknownMask)
	return s
}

// works notes that the server has let somebody in, or that it answers.
func (s *server) works() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		s.since = time.Now()
	}
	s.err, s.until = nil, time.Time{}
	s.pauses.Reset()
	s.up.Set(1)
}

// failed notes that it has not, and reports whether that is new.
func (s *server) failed(err error, now time.Time) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = s.err == nil
	if news {
		s.since = now
	}
	s.err = err
	s.up.Set(0)
	if !now.Before(s.until) { // those that failed at the same time count once
		pause := s.pauses.NextBackOff()
		s.until = now.Add(pause/2 + rand.N(pause)) //nolint:gosec // apart from each other
	}
	return news
}

// fault returns why the server is of no use.
func (s *server) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// rank is 0 for a server that works, 1 for one that may be tried again, 2 for one that should not yet.
func (s *server) rank(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err == nil:
		return 0
	case !now.Before(s.until):
		return 1
	}
	return 2
}

// choose returns a server: of those that work one by their weights, else one that is to be tried again, else any. The one
// that was avoided last is chosen only if there is no other as good.
func (c *chain) choose(now time.Time, avoid *server) *server {
	best, sum := 3, 0.0
	var among []*server
	for _, s := range c.servers {
		rank := s.rank(now)
		if s == avoid {
			rank = max(rank, 1)
		}
		switch {
		case rank > best:
			continue
		case rank < best:
			best, sum, among = rank, 0, among[:0]
		}
		among = append(among, s)
		sum += s.weight()
	}
	lot := rand.Float64() * sum //nolint:gosec // who gets which server; nobody gains by guessing
	for _, s := range among {
		if lot -= s.weight(); lot < 0 {
			return s
		}
	}
	return among[len(among)-1]
}

func (s *server) weight() float64 {
	if s.Weight == 0 {
		return 1
	}
	return s.Weight
}

// healthy reports whether a server of the chain works.
func (c *chain) healthy() bool {
	for _, s := range c.servers {
		if s.fault() == nil {
			return true
		}
	}
	return false
}
