// Package chainwatch knows which chain each user mines, as the users' nodes in ZooKeeper say, and tells of each change.
//
// It has one watch a user, however many ask and however often, and looks again at the users in use each sweep and
// whenever a session with ZooKeeper begins, so that what no watch tells of is found, too. That ZooKeeper is away is never
// taken for a user without a node: what was last known goes on, across restarts by a file, until it is too old.
package chainwatch

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/service"
	"btcpool/internal/userchain"
)

// ErrUnavailable means that ZooKeeper does not say anything, and nothing is remembered.
var ErrUnavailable = errors.New("ZooKeeper does not answer, and the user's chain is not remembered")

const (
	readers     = 32 // nodes that are read at a time
	retryPause  = time.Second
	logInterval = 10 * time.Second
)

// Config says where users' nodes are.
type Config struct {
	// Path is the node that has those of users below it.
	Path string
	// File is what is remembered across restarts; "": nothing.
	File string
	Settings
	// Changed is told of a user in use whose node says something else now, or the same once more: who writes it again
	// wants it done. That was heard of at a time, if anybody said so, and is seen now else. It must not wait.
	Changed func(user string, now Answer, heard time.Time)
}

// Answer is what ZooKeeper says of a user.
type Answer struct {
	Value userchain.Value
	// Known means that there is a node. Without it Value is empty.
	Known bool
}

// equal compares two answers as far as chains go.
func (a Answer) equal(b Answer) bool {
	return a.Known == b.Known && string(a.Value.JSON()) == string(b.Value.JSON())
}

// Watcher is safe for concurrent use.
type Watcher struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	nodes   registry.Watcher
	watch   func(ctx context.Context, path string) (node registry.Node, watched bool, err error)
	away    *service.Fault // why ZooKeeper says nothing
	file    *service.Fault // why the file is not written
	bell    retry.Bell     // more is to be read
	badLog  rate.Sometimes

	saving sync.Mutex // held while the file is written
	left   bool       // the file is another process's

	mu        sync.Mutex
	users     map[string]*user
	queue     []*user // to be read, each once
	again     []*user // after a pause
	connected bool
	changed   bool               // since the file was written
	since     map[*user]struct{} // who has changed since the file was left; nil: it is not
	saved     time.Time          // when it was
}

// user is one whose node was asked for.
type user struct {
	name    string
	uses    int
	answer  Answer
	mined   string    // the chain that it mined last here; "": none
	written int64     // the transaction that wrote the node; 0: none, or it was not read by this process
	heard   time.Time // when its node was first said to have changed since it was read; zero: it was not
	read    time.Time // when answer was last known to be right; zero: there is none
	fresh   bool      // nothing has spoken against answer since, and a watch will
	queued  bool
	reading bool
	dirty   bool            // is to be read again after that
	waiting []chan struct{} // closed when it was read, or could not be
}

// New returns a Watcher that remembers what is in its file.
func New(reg *registry.Registry, cfg Config, deps service.Deps) (*Watcher, error) {
	w := &Watcher{
		cfg:    cfg,
		log:    deps.Log,
		away:   service.NewFault(deps.Log, zerolog.WarnLevel, "ZooKeeper does not say what users mine: what is known goes on", "ZooKeeper says what users mine"),
		file:   service.NewFault(deps.Log, zerolog.ErrorLevel, "what users mine is not kept on disk", "what users mine is kept on disk again"),
		bell:   retry.NewBell(),
		badLog: rate.Sometimes{Interval: logInterval},
		users:  make(map[string]*user),
	}
	w.away.Await(errors.New("ZooKeeper has not been reached yet"))
	if err := w.load(time.Now()); err != nil {
		w.log.Error().Err(err).Msg("what users mined is not remembered")
	}
	w.metrics = newMetrics(deps.Metrics, w)
	var err error
	w.nodes, err = reg.Watcher(cfg.Path, registry.News{Changed: w.touched, Connected: w.reconnected, Lost: w.lost}, cfg.MaxUsers)
	w.watch = w.nodes.Watch
	return w, err
}

// Nodes are those that the Watcher reads by.
func (w *Watcher) Nodes() *registry.Nodes { return w.nodes.Nodes }

// Close ends the session with ZooKeeper.
func (w *Watcher) Close() error { return w.nodes.Close() }

// Fault returns why ZooKeeper says nothing, nil while it does.
func (w *Watcher) Fault() error { return w.away.Err() }

// Remembers reports whether anything is.
func (w *Watcher) Remembers() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.users) > 0
}

// Known returns the users who are known to have a node, in no order.
func (w *Watcher) Known() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, u := range w.users {
		if u.answer.Known {
			names = append(names, name)
		}
	}
	return names
}

// Run keeps what is known right until ctx ends. KeepFile belongs to it.
func (w *Watcher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range readers {
		g.Go(func() error {
			for u := w.next(ctx); u != nil; u = w.next(ctx) {
				w.look(ctx, u)
			}
			return nil
		})
	}
	g.Go(func() error {
		for retry.Sleep(ctx, retryPause) {
			w.retry()
		}
		return nil
	})
	g.Go(func() error { w.sweep(ctx); return nil })
	return g.Wait()
}

// Use returns what a user mines, and has changes of it told until as many calls of Leave. It does not wait: ok is false
// when ZooKeeper has to be asked, by Ask.
func (w *Watcher) Use(name string) (a Answer, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.get(name)
	u.uses++
	if !u.fresh && w.remembered(u) && w.silent() {
		w.enqueue(u)
		return u.answer, true
	}
	return u.answer, u.fresh && !u.read.IsZero()
}

// Follow is Use for who has no time to ask: what is not known is read, and told as a change.
func (w *Watcher) Follow(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.get(name)
	if u.uses++; !u.fresh {
		w.enqueue(u)
	}
}

// Ask returns what a user mines, from ZooKeeper if that answers in time, or as it is remembered. It is
// ErrUnavailable when there is neither.
func (w *Watcher) Ask(ctx context.Context, name string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout.Std())
	defer cancel()
	w.mu.Lock()
	u := w.get(name)
	done := make(chan struct{})
	u.waiting = append(u.waiting, done)
	u.fresh = false
	w.enqueue(u)
	w.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.remembered(u) {
		return Answer{}, ErrUnavailable
	}
	return u.answer, nil
}

// Last returns what is known of a user, right or not.
func (w *Watcher) Last(name string) (a Answer, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[name]; u != nil {
		return u.answer, !u.read.IsZero()
	}
	return Answer{}, false
}

// Mines notes the chain that a user mines here, for Mined.
func (w *Watcher) Mines(name, chain string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.get(name); u.mined != chain {
		u.mined, w.changed = chain, true
	}
}

// Mined returns the chain that a user mined last here, whatever its node says; "": none that is remembered.
func (w *Watcher) Mined(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[name]; u != nil {
		return u.mined
	}
	return ""
}

// Leave takes back a Use or a Follow.
func (w *Watcher) Leave(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[name]; u != nil {
		u.uses = max(u.uses-1, 0)
	}
}

// remembered reports whether what is known of a user is of use. The caller holds w.mu.
func (w *Watcher) remembered(u *user) bool {
	return !u.read.IsZero() && time.Since(u.read) <= w.cfg.MaxAge.Std()
}

// silent reports whether nothing is to be expected of ZooKeeper. The caller holds w.mu.
func (w *Watcher) silent() bool { return !w.connected || w.away.Err() != nil }

// get returns the user of that name. The caller holds w.mu.
func (w *Watcher) get(name string) *user {
	u := w.users[name]
	if u == nil {
		w.makeRoom()
		u = &user{name: name}
		w.users[name] = u
	}
	return u
}

// makeRoom forgets a user that nobody uses, if there are too many.
func (w *Watcher) makeRoom() {
	if len(w.users) < w.cfg.MaxUsers {
		return
	}
	looked := 0
	for name, u := range w.users { // in no order
		if u.uses == 0 && !u.queued && !u.reading {
			delete(w.users, name)
			w.changed = true
			return
		}
		if looked++; looked == 100 {
			return
		}
	}
}

// enqueue has a user read, by one reader at a time, so that what was read last is the latest. The caller holds w.mu.
func (w *Watcher) enqueue(u *user) {
	switch {
	case u.queued:
	case u.reading:
		u.dirty = true
	default:
		u.queued = true
		w.queue = append(w.queue, u)
		w.bell.Ring()
	}
}

// next returns a user to be read, nil when ctx ends.
func (w *Watcher) next(ctx context.Context) *user {
	for {
		w.mu.Lock()
		if len(w.queue) > 0 {
			u := w.queue[0]
			if w.queue = w.queue[1:]; len(w.queue) > 0 {
				w.bell.Ring()
			}
			u.queued, u.reading = false, true
			w.mu.Unlock()
			return u
		}
		w.queue = nil
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-w.bell:
		}
	}
}

// look reads a user's node.
func (w *Watcher) look(ctx context.Context, u *user) {
	w.mu.Lock()
	u.fresh = true // unless that is spoken against meanwhile
	r := reading{answer: u.answer, written: u.written, heard: u.heard}
	u.heard = time.Time{}
	w.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, w.cfg.Timeout.Std())
	defer cancel()
	node, watched, err := w.watch(within, w.cfg.Path+"/"+u.name)
	if ctx.Err() != nil {
		return
	}
	if !watched { // only a sweep finds what changes, and whoever comes anew asks
		w.mu.Lock()
		u.fresh = false
		w.mu.Unlock()
	}
	missing := errors.Is(err, registry.ErrNoNode)
	if err != nil && !missing {
		w.away.Set(err)
		w.metrics.reads.WithLabelValues("failed").Inc()
		w.done(u, r)
		return
	}
	w.away.Set(nil)
	r.ok = true
	value, err := userchain.ParseValue(node.Content)
	result := "ok"
	switch {
	case missing:
		result, r.answer, r.written = "missing", Answer{}, 0
	case err == nil:
		r.answer, r.written = Answer{value, true}, node.Written
	default: // as if there were none, if nothing else is known
		result = "invalid"
		w.badLog.Do(func() {
			w.log.Warn().Err(err).Str("user", u.name).Msg("a user's node cannot be read: the user stays where it is")
		})
	}
	w.metrics.reads.WithLabelValues(result).Inc()
	w.done(u, r)
}

// reading is what came of reading a user's node.
type reading struct {
	answer  Answer
	written int64
	heard   time.Time
	ok      bool
}

// done notes what was read, and tells of it.
func (w *Watcher) done(u *user, r reading) {
	w.mu.Lock()
	changed := u.read.IsZero() || !u.answer.equal(r.answer)
	tell := r.ok && u.uses > 0 && (changed || u.written != 0 && u.written != r.written)
	if r.ok {
		if w.since != nil && (changed || u.written != r.written) {
			w.since[u] = struct{}{}
		}
		u.answer, u.written, u.read = r.answer, r.written, time.Now()
		w.changed = w.changed || changed
	} else {
		u.fresh = false
		u.heard = r.heard
		w.again = append(w.again, u)
	}
	for _, c := range u.waiting {
		close(c)
	}
	u.waiting, u.reading = nil, false
	if u.dirty {
		u.dirty = false
		w.enqueue(u)
	}
	w.mu.Unlock()
	if !tell {
		return
	}
	if r.heard.IsZero() {
		r.heard = time.Now()
	}
	w.cfg.Changed(u.name, r.answer, r.heard)
}

// retry has those read again that could not be, if they are in use.
func (w *Watcher) retry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range w.again {
		if u.uses > 0 && !u.fresh {
			w.enqueue(u)
		}
	}
	w.again = nil
}

// touched hears of a node that has changed.
func (w *Watcher) touched(path string) {
	name, ok := strings.CutPrefix(path, w.cfg.Path+"/")
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[name]; u != nil {
		u.fresh = false
		if u.heard.IsZero() {
			u.heard = time.Now()
		}
		if u.uses > 0 {
			w.enqueue(u)
		}
	}
}

func (w *Watcher) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.connected = false
}

// reconnected looks again at everybody: what happened meanwhile may not be told.
func (w *Watcher) reconnected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.connected = true
	for _, u := range w.users {
		u.fresh = false
		if u.uses > 0 {
			w.enqueue(u)
		}
	}
	if len(w.queue) == 0 {
		w.away.Set(nil)
	}
}

// sweepSteps is how many parts a sweep has.
const sweepSteps = 100

// sweep looks at all users in use within the period, a part of them at a time.
func (w *Watcher) sweep(ctx context.Context) {
	var names []string
	step := max(w.cfg.SweepInterval.Std()/sweepSteps, time.Millisecond)
	for left := 0; retry.Sleep(ctx, step); left-- {
		if left == 0 {
			names, left = w.inUse(), sweepSteps
		}
		part := (len(names) + left - 1) / left
		w.mu.Lock()
		for _, name := range names[:part] {
			if u := w.users[name]; u != nil && u.uses > 0 {
				w.enqueue(u)
			}
		}
		w.mu.Unlock()
		names = names[part:]
	}
}

func (w *Watcher) inUse() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, u := range w.users {
		if u.uses > 0 {
			names = append(names, name)
		}
	}
	return names
}
