// Package miner is a Stratum V1 client with a CPU miner behind it: one connection that mines, or thousands that load a
// pool with real shares.
//
// It follows the protocol as it is spoken by pools at large and takes nothing that a pool sends on trust: lines are
// bounded, values are checked, and a share counts as accepted only when the pool has answered it with true.
package miner

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/retry"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

const (
	// drainTime is how long the answers to the last shares are waited for.
	drainTime = 5 * time.Second
	// defaultBackoff is the wait before the first new attempt to connect; it doubles up to maxBackoff.
	defaultBackoff = time.Second
	maxBackoff     = 30 * time.Second

	// meterEvery is the time between log lines about the hashrate.
	meterEvery = time.Minute

	// chunk is the number of hashes between two looks at whether the job is still the newest: half a millisecond.
	chunk = 4096
	// turnHashes bounds a turn of one connection while others wait for the same thread.
	turnHashes = 1 << 22
)

// Config says what to mine and how.
type Config struct {
	URL         string      // stratum+tcp://host:port, stratum+ssl://host:port or host:port
	TLS         *tls.Config // for stratum+ssl; nil: the system's authorities
	User        string      // %d in it becomes the number of the connection, from 0
	Password    string
	Agent       string // default btcpool-miner
	Threads     int    // default: one a CPU
	VersionMask uint32 // asked for by mining.configure (BIP 310); 0: not asked for
	AnyHost     bool   // client.reconnect may name another host

	Conns     int           // default 1
	Ramp      time.Duration // time over which the connections are opened
	Rate      float64       // shares a second of each connection; 0: as many as the hash power finds
	Invalid   Fault         // what to make wrong; needs Rate
	Shares    int64         // stop after so many accepted shares; 0: never
	Reconnect bool          // connect again, with back-off, when a connection fails
	Backoff   time.Duration // before the first attempt to connect again; default 1 s

	// OnShare gets the result of every submitted share. It is called from many goroutines at a time.
	OnShare func(Result)
}

// Validate reports everything that is wrong.
func (c Config) Validate() error {
	_, _, err := c.addr()
	errs := []error{err}
	if c.User == "" {
		errs = append(errs, errors.New("user is empty"))
	}
	for _, n := range []struct {
		name  string
		value float64
	}{
		{"threads", float64(c.Threads)},
		{"conns", float64(c.Conns)},
		{"ramp", float64(c.Ramp)},
		{"rate", c.Rate},
		{"shares", float64(c.Shares)},
		{"backoff", float64(c.Backoff)},
	} {
		if !(n.value >= 0) {
			errs = append(errs, fmt.Errorf("%s is %v, want 0 or more", n.name, n.value))
		}
	}
	if c.Invalid != NoFault && c.Rate == 0 {
		errs = append(errs, errors.New("invalid shares need a rate"))
	}
	return errors.Join(errs...)
}

// addr returns host:port, and whether TLS is spoken there.
func (c Config) addr() (addr string, secure bool, err error) {
	addr = c.URL
	if strings.Contains(addr, "://") {
		u, err := url.Parse(addr)
		if err != nil {
			return "", false, err
		}
		switch u.Scheme {
		case "stratum+tcp", "tcp":
		case "stratum+ssl", "stratum+tls":
			secure = true
		default:
			return "", false, fmt.Errorf("url %q: scheme is not stratum+tcp or stratum+ssl", c.URL)
		}
		addr = u.Host
	}
	if _, _, err := config.Peer(addr); err != nil {
		return "", false, fmt.Errorf("url %q is not stratum+tcp://host:port", c.URL)
	}
	return addr, secure, nil
}

// Run mines until ctx ends, reconnecting as often as needed, and logs the hashrate. The error is about cfg.
func Run(ctx context.Context, cfg Config, log zerolog.Logger) error {
	cfg.Reconnect = true
	m, err := New(cfg, log)
	if err != nil {
		return err
	}
	var meter sync.WaitGroup
	defer meter.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	meter.Go(func() {
		for retry.Sleep(ctx, meterEvery) {
			r := m.Report()
			log.Info().Str("hashrate", FormatHashrate(r.Hashrate)).Float64("difficulty", r.Difficulty).
				Int64("accepted", r.Accepted).Int64("rejected", r.Rejected).Msg("mining")
		}
	})
	return m.Run(ctx)
}

// Miner mines on one or many connections.
type Miner struct {
	cfg     Config
	log     zerolog.Logger
	notices rate.Sometimes // for what happens on each of many connections
	links   []*link
	stats   *stats
	stop    context.CancelFunc // ends the mining, not yet the connections

	inFlight sync.WaitGroup // submitted shares without a result
	work     signal         // a connection may have got something to do
}

// link is a place for a connection, which may be made anew.
type link struct {
	index  int
	user   string
	client atomic.Pointer[Client]

	// Used by the connection's goroutine alone.
	authorized time.Time
	last       fingerprint // the newest job's
}

// New checks the configuration and fills in its defaults.
func New(cfg Config, log zerolog.Logger) (*Miner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Agent = cmp.Or(cfg.Agent, "btcpool-miner")
	cfg.Threads = cmp.Or(cfg.Threads, runtime.GOMAXPROCS(0))
	cfg.Conns = cmp.Or(cfg.Conns, 1)
	cfg.Backoff = cmp.Or(cfg.Backoff, defaultBackoff)
	m := &Miner{
		cfg:     cfg,
		log:     log,
		notices: rate.Sometimes{First: 10, Interval: 10 * time.Second},
		stats:   newStats(),
		work:    signal{ch: make(chan struct{})},
	}
	for i := range cfg.Conns {
		m.links = append(m.links, &link{index: i, user: strings.ReplaceAll(cfg.User, "%d", strconv.Itoa(i))})
	}
	return m, nil
}

// Run mines until ctx ends, Config.Shares are accepted, or the last connection has ended for good. Then it waits a few
// seconds for answers and closes the connections. The error is nil unless the connections failed. Run is called once.
func (m *Miner) Run(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	m.stop = stop
	connected, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	m.stats.note(&m.stats.started)
	defer m.stats.note(&m.stats.ended)

	var threads, links sync.WaitGroup
	failures := make(chan error, len(m.links))
	for i := range m.links {
		links.Go(func() { failures <- m.keep(work, connected, m.links[i]) })
	}
	for i := range m.cfg.Threads {
		threads.Go(func() { m.mine(work, i) })
	}
	allEnded := make(chan struct{})
	go func() { links.Wait(); close(allEnded) }()

	select {
	case <-work.Done():
	case <-allEnded:
		stop()
	}
	threads.Wait() // from here on no share is submitted
	m.drain()
	hangUp()
	<-allEnded
	close(failures)
	if m.enough() || ctx.Err() != nil {
		return nil
	}
	for err := range failures {
		if err != nil {
			return err
		}
	}
	return nil
}

// drain waits for the answers that are still to come.
func (m *Miner) drain() {
	answered := make(chan struct{})
	go func() { m.inFlight.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(drainTime):
	}
}

func (m *Miner) enough() bool {
	return m.cfg.Shares > 0 && m.stats.accepted.Load() >= m.cfg.Shares
}

// keep holds a connection up while there is work to do.
func (m *Miner) keep(work, connected context.Context, l *link) error {
	if !retry.Sleep(work, m.cfg.Ramp*time.Duration(l.index)/time.Duration(len(m.links))) {
		return nil
	}
	addr, secure, err := m.cfg.addr()
	if err != nil {
		return err
	}
	pauses := retry.Pace{First: m.cfg.Backoff, Longest: maxBackoff}.Pauses()
	for {
		client := m.newClient(addr, secure, l)
		l.authorized = time.Time{}
		l.client.Store(client)
		err := client.Run(connected)
		l.client.Store(nil)
		if !l.authorized.IsZero() {
			m.stats.open.Add(-1)
			pauses.Reset()
		}
		if work.Err() != nil {
			return nil
		}
		m.stats.failed(err)
		m.notices.Do(func() { m.log.Warn().Err(err).Int("conn", l.index).Msg("connection ended") })

		backoff := pauses.NextBackOff()
		wait := backoff + rand.N(backoff/2+1) //nolint:gosec // spreads reconnections
		if redirect := (*RedirectError)(nil); errors.As(err, &redirect) {
			addr, wait = redirect.Addr, max(wait, redirect.Wait)
		} else if !m.cfg.Reconnect {
			return err
		}
		if !retry.Sleep(work, wait) {
			return nil
		}
		m.stats.reconnects.Add(1)
	}
}

func (m *Miner) newClient(addr string, secure bool, l *link) *Client {
	var security *tls.Config
	if secure {
		if security = m.cfg.TLS; security == nil {
			security = new(tls.Config)
		}
	}
	return NewClient(ClientConfig{
		Addr:        addr,
		TLS:         security,
		User:        l.user,
		Password:    m.cfg.Password,
		Agent:       m.cfg.Agent,
		VersionMask: m.cfg.VersionMask,
		AnyHost:     m.cfg.AnyHost,
		OnStep: func(step Step, took time.Duration) {
			m.stats.steps[step].add(took)
			if step == Authorize {
				l.authorized = time.Now()
				m.stats.authorized.Add(1)
				m.stats.open.Add(1)
				m.notices.Do(func() { m.log.Info().Str("pool", addr).Str("user", l.user).Msg("authorized by pool") })
			}
		},
		OnJob: func(job *Job, at time.Time) {
			m.stats.notified(l, job, at)
			m.work.send()
		},
		OnResult: func(r Result) {
			m.stats.result(&r)
			if m.cfg.OnShare != nil {
				m.cfg.OnShare(r)
			}
			if m.enough() {
				m.stop()
			}
			m.inFlight.Done()
			if m.cfg.Rate == 0 {
				m.work.send()
			}
		},
		OnBytes: m.stats.bytes,
	}, m.log)
}

// slots returns the connections a thread works for: with fewer connections than threads several threads share one.
func (m *Miner) slots(thread int) []*link {
	if len(m.links) <= m.cfg.Threads {
		return m.links[thread%len(m.links):][:1]
	}
	var own []*link
	for i := thread; i < len(m.links); i += m.cfg.Threads {
		own = append(own, m.links[i])
	}
	return own
}

// mine is one thread: it gives its connections their turns, one after the other.
func (m *Miner) mine(ctx context.Context, thread int) {
	slots := m.slots(thread)
	h := newHasher()
	pace := m.newPace(thread, len(slots))
	var work <-chan struct{}
	idle := 0 // turns since a connection could be given one
	for n := uint64(0); ctx.Err() == nil; n++ {
		missed, ok := pace.wait(ctx)
		if !ok {
			return
		}
		if idle == 0 {
			work = m.work.wait() // taken before looking round, so that no job is missed
		}
		client := slots[n%uint64(len(slots))].client.Load()
		hasJob := client != nil && client.Job() != nil
		submitted := false
		if hasJob && !client.Busy() {
			idle = 0
			submitted = m.turn(ctx, h, client, m.cfg.Invalid.at(n/uint64(len(slots))), len(slots) > 1)
		} else {
			idle++
		}
		if m.cfg.Rate > 0 {
			if hasJob && !submitted {
				missed++
			}
			m.stats.missed.Add(missed)
		} else if idle == len(slots) {
			select {
			case <-work:
			case <-ctx.Done():
			}
			idle = 0
		}
	}
}

// turn finds and submits one share for a connection and reports whether it did. It gives up when the job changes, when
// ctx ends and, if other connections wait, after turnHashes.
func (m *Miner) turn(ctx context.Context, h *hasher, client *Client, fault Fault, shared bool) bool {
	job := client.Job()
	if job == nil {
		return false
	}
	if fault == Malformed || fault == Oversized {
		return m.submit(client, Share{Fault: fault})
	}
	extranonce2, jobTime, versionBits := job.variation(client.counter.Add(1))
	if fault == BadTime {
		jobTime += badTimeSeconds
	}
	header := job.Header(extranonce2, jobTime, versionBits, 0)
	h.reset(&header)

	limit := uint64(1) << 32
	if shared {
		limit = turnHashes
	}
	nonce, found := m.search(ctx, h, client, job, fault == LowDifficulty, limit)
	if !found {
		return false
	}
	share := job.share(extranonce2, jobTime, versionBits, nonce)
	switch fault {
	case Duplicate:
		m.submit(client, share)
	case BadJob:
		share.JobID = []byte(unknownJob)
	}
	share.Fault = fault
	return m.submit(client, share)
}

// search tries up to limit nonces of the hasher's header while job is the client's. With miss it looks for a hash above
// the target.
func (m *Miner) search(ctx context.Context, h *hasher, client *Client, job *Job, miss bool, limit uint64) (uint32, bool) {
	for tried := uint64(0); tried < limit && client.Job() == job && ctx.Err() == nil; tried += chunk {
		start := time.Now()
		scan := h.scan
		if miss {
			scan = h.scanMiss
		}
		nonce, n, found := scan(uint32(tried), chunk, &job.Target)
		m.stats.hashed(n, time.Since(start))
		if found {
			return nonce, true
		}
	}
	return 0, false
}

func (m *Miner) submit(client *Client, share Share) bool {
	m.inFlight.Add(1)
	m.stats.submitted.Add(1)
	var err error
	if share.Fault == Malformed || share.Fault == Oversized {
		err = client.send(pending{kind: submit, share: share}, share.Fault.appendFaulty)
	} else {
		err = client.Submit(share)
	}
	if err != nil { // nothing was sent
		m.stats.submitted.Add(-1)
		m.inFlight.Done()
	}
	return err == nil
}

// pace spreads the turns of a thread evenly in time.
type pace struct {
	due      time.Time     // when the next turn is
	interval time.Duration // between turns; 0: they are due at once
	timer    *time.Timer
}

// maxBehind is how late a turn may be before turns are given up to catch up.
const maxBehind = time.Second

func (m *Miner) newPace(thread, slots int) *pace {
	p := &pace{due: time.Now(), timer: time.NewTimer(0)}
	if m.cfg.Rate > 0 {
		const longest = 1e15 // nanoseconds, 11 days
		apart := time.Duration(min(max(1, 1e9/m.cfg.Rate/float64(slots)), longest))
		// Threads that share a connection take turns at its rate.
		sharing := (m.cfg.Threads-1-thread%len(m.links))/len(m.links) + 1
		p.interval = apart * time.Duration(sharing)
		p.due = p.due.Add(apart * time.Duration(thread/len(m.links)))
	}
	return p
}

// wait returns when the next turn is due, and how many turns were given up because the thread is too slow; false when
// ctx ends first.
func (p *pace) wait(ctx context.Context) (missed int64, ok bool) {
	if p.interval == 0 {
		return 0, true
	}
	if early := time.Until(p.due); early > 0 {
		p.timer.Reset(early)
		select {
		case <-p.timer.C:
		case <-ctx.Done():
			return 0, false
		}
	} else if -early > maxBehind {
		missed = int64(-early / p.interval)
		p.due = p.due.Add(time.Duration(missed) * p.interval)
	}
	p.due = p.due.Add(p.interval)
	return missed, true
}

// signal wakes all that wait.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}
