// Package users knows who may mine: it turns the name that a miner logs in with into the id that its shares are
// credited to.
//
// A List holds the ids of one Source: anyone, whoever has a payable address, the rows of a database, what an HTTP API
// lists, or the configuration itself. It is read in the background, so a login of a known user asks nobody and waits
// for nothing. Of an unknown one the source is asked once, however many ask, at a bounded rate and until a deadline. A
// snapshot on disk lets known users log in while their source is away, after a restart as well. A source that cannot be
// read changes nothing; nor does an API that suddenly lists nobody.
//
// A server makes Lists of all sources that its listeners have, runs them, and takes the List of each listener from
// there. The API's answers are described at parseUsers; a snapshot is a JSON object of ids by name.
package users

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"btcpool/internal/bitcoin"
)

// ErrUnknown is a name that is no user's.
var ErrUnknown = errors.New("unknown user")

// List knows the ids of a source's users by name. It is safe for concurrent use.
type List struct {
	cfg      Config // with the list's own source
	network  bitcoin.Network
	log      zerolog.Logger
	snapshot string // file
	known    prometheus.Gauge
	read     func(result string) prometheus.Counter

	ready chan struct{} // closed when the whole list has been read
	ended chan struct{} // closed when it is not kept any more
	asked chan *finding
	pace  *rate.Limiter // of what is asked

	version atomic.Uint64

	mu      sync.RWMutex
	ids     map[string]int32
	dirty   bool                 // ids differ from the snapshot
	found   map[string]int32     // since the reading of the whole list began; nil: it is not being read
	finding map[string]*finding  // by name
	refused map[string]time.Time // when a name was
}

func open(cfg Config, dir string, log zerolog.Logger, m *metrics) (*List, error) {
	name := cfg.name()
	l := &List{
		cfg:      cfg,
		log:      log.With().Str("list", name).Logger(),
		snapshot: filepath.Join(dir, "users-"+name+".json"),
		known:    m.known.WithLabelValues(name),
		read:     func(result string) prometheus.Counter { return m.readings.WithLabelValues(name, result) },
		ready:    make(chan struct{}),
		ended:    make(chan struct{}),
		asked:    make(chan *finding, maxWaiting),
		pace:     rate.NewLimiter(findRate, findBurst),
		ids:      make(map[string]int32),
		finding:  make(map[string]*finding),
		refused:  make(map[string]time.Time),
	}
	if cfg.Kind == Address {
		var err error
		if l.network, err = bitcoin.NetworkByName(cfg.Network); err != nil {
			return nil, err
		}
	}
	if cfg.Kind == Static {
		l.learn(l.fold(cfg.Static, l.listed))
		close(l.ready)
		return l, nil
	}
	return l, l.readSnapshot()
}

// Cached returns the id of a user, by canonical name, if it is known without asking.
func (l *List) Cached(name string) (id int32, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	id, ok = l.ids[name]
	return id, ok
}

// Learn takes in a user whom another process knew: it may be newer than what was read here. If the source does not have
// it, the next reading says so. What is complete as it is learns nothing.
func (l *List) Learn(name string, id int32) {
	if l.cfg.Kind != Static {
		l.learn(map[string]int32{name: id})
	}
}

// Version grows when users were removed or got other ids: who holds an id should look again.
func (l *List) Version() uint64 { return l.version.Load() }
