package sserver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/poll"
	"btcpool/internal/retry"
	"btcpool/internal/spool"
	"btcpool/internal/upgrade"
	"btcpool/sserver/operator"
)

// Messages between the two processes.
const (
	messageSeen     = upgrade.KindService + iota // seenShares
	messageShared                                // what belongs to no session
	messageSessions                              // some sessions, each with a descriptor
	messageEnd
	messageBase  // what times of sessions are relative to is now
	messageAhead // some sessions, which are not served yet
	messageMade  // whether all that have gone ahead are made; and that they are
	messageSince // what has become of them; after messageShared for the last time
)

const (
	// movedStep is how many sessions go in a message.
	movedStep = 64
	// maxUnsentShares is how many bytes of shares may wait for Kafka when another process is to go on: it looks through
	// them before it does, and miners wait meanwhile.
	maxUnsentShares = 64 << 20
	// stopSending is what Kafka gets to take the shares that are on their way to it.
	stopSending = 5 * time.Second
)

// move is what passes to another process while it does.
type move struct {
	to      *upgrade.Successor
	version uint32
	base    time.Time // what times of sessions are relative to; zero: when they are sent
	began   time.Time // when sessions were read from last

	arrived  chan struct{}  // one of each loop all whose answers have left
	all      chan struct{}  // closed when all loops are there, or nothing moves
	failed   error          // set before all is closed: nothing moves
	exported sync.WaitGroup // loops that have sent their sessions, or will not
	outcome  chan struct{}
	gone     bool // set before outcome is closed: another process has the sessions

	messages atomic.Uint32 // with sessions that went ahead
	sessions atomic.Int64  // that go on
	changed  atomic.Int64  // of them, those whose state is another than the one that went ahead

	mu  sync.Mutex // of what follows, and of sending
	err error
}

func (m *move) send(kind byte, code func(*upgrade.Codec), fds ...int) error {
	p := parcel{fds: fds}
	if err := p.pack(m.version, time.Now(), code); err != nil {
		return err
	}
	return m.sendParcel(kind, p)
}

func (m *move) sendParcel(kind byte, p parcel) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.to.Send(kind, p.body, p.fds...)
}

// parcel is a message that can be sent.
type parcel struct {
	body []byte
	fds  []int
}

func (p *parcel) pack(version uint32, now time.Time, code func(*upgrade.Codec)) error {
	w := upgrade.NewWriter(version, now, nil)
	code(w)
	p.body = w.Bytes()
	return w.Err()
}

func (m *move) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
	}
}

// HandOver has a new process go on with all sessions, and Run end. When it fails, nothing has changed, and the new
// process is gone.
func (s *Service) HandOver(ctx context.Context, to *upgrade.Successor) (sessions int, pause time.Duration, err error) {
	var undo []func()
	defer func() {
		if err != nil {
			to.Kill()
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	if err := s.Ready(); err != nil {
		return 0, 0, fmt.Errorf("this process is not ready itself: %w", err)
	}
	if !s.inTerm.Load() {
		return 0, 0, errors.New("this process serves nobody: it has just begun, or is about to end")
	}
	if !s.moving.TryLock() {
		return 0, 0, errors.New("another hand-over is under way")
	}
	defer s.moving.Unlock()
	if s.board != nil {
		undo = append(undo, s.board.pass())
	}
	m := &move{to: to, arrived: make(chan struct{}, len(s.loops)), all: make(chan struct{}), outcome: make(chan struct{})}
	if err := s.introduce(m); err != nil {
		return 0, 0, err
	}
	theirs, err := s.agreed(ctx, to)
	if err != nil {
		return 0, 0, err
	}
	m.version = theirs.version

	// While miners are served: all that can be done before.
	sending, cancel := context.WithTimeout(ctx, stopSending)
	defer cancel()
	for _, sp := range s.spooled() {
		if _, bytes := sp.Depth(); bytes > maxUnsentShares {
			return 0, 0, fmt.Errorf("%d bytes for topic %s wait for Kafka: more than a new process should look through", bytes, sp.topic)
		}
		if err := sp.StopSending(sending); err != nil {
			return 0, 0, fmt.Errorf("what is on its way to topic %s does not arrive: %w", sp.topic, err)
		}
		undo = append(undo, sp.GoOnSending)
	}
	if err := s.reserveEpochs(theirs.epoch); err != nil {
		return 0, 0, err
	}
	for of, seen := range s.seen() {
		undo = append(undo, func() { seen.recorded() })
		if err := m.sendSeen(of, seen.record()); err != nil {
			return 0, 0, err
		}
	}

	if m.version >= withAhead {
		undo = append(undo, func() { s.onLoops((*loop).forgetAhead) })
		if err := s.sendAhead(ctx, m); err != nil {
			return 0, 0, err
		}
	}

	// Nobody is served from here on.
	defer upgrade.WithoutGC()()
	open := s.gate.Shut(s.listeners()...)
	undo = append(undo, func() { open(false) })
	s.keepStill(true)
	undo = append(undo, func() { s.keepStill(false) })
	m.began = time.Now()
	_ = to.SetDeadline(m.began.Add(upgrade.MoveTimeout))
	m.exported.Add(len(s.loops))
	s.onLoops(func(l *loop) {
		if l.move = m; len(l.held) > 0 {
			for _, c := range s.chains {
				c.shares.Hurry()
			}
		}
	})
	undo = append(undo, func() {
		close(m.outcome)
		s.onLoops(func(l *loop) { l.stay(m) })
	})
	if err := m.awaitLoops(len(s.loops)); err != nil {
		m.failed = fmt.Errorf("answers still wait for the disk: %w", err)
		close(m.all)
		return 0, 0, m.failed
	}

	// Sessions come behind what they are judged by.
	answered := time.Now()
	m.failed = s.sendShared(m)
	close(m.all)
	if m.failed != nil {
		return 0, 0, m.failed
	}
	undo = append(undo, s.reopenSpools)
	left, err := s.leaveSpools()
	if err != nil {
		return 0, 0, err
	}
	spoolsLeft := time.Now()
	m.exported.Wait()
	moved := time.Now()
	if m.err != nil {
		return 0, 0, m.err
	}
	if err := m.send(messageEnd, left.code); err != nil {
		return 0, 0, err
	}
	if err := to.Taken(); err != nil {
		return 0, 0, err
	}
	s.log.Debug().Int64("changed", m.changed.Load()).Dur("answers_ms", answered.Sub(m.began)).Dur("spools_ms", spoolsLeft.Sub(answered)).
		Dur("sessions_ms", moved.Sub(answered)).Dur("taken_ms", time.Since(moved)).Msg("the new process could go on")
	s.guard.Bans.Leave()
	undo = append(undo, func() { s.guard.Bans.Open(s.cfg.DataDir, time.Now()) })
	undo = append(undo, s.lease.Load().Leave())
	if err := ctx.Err(); err != nil { // this process is to end, and all with it
		return 0, 0, err
	}
	if err := to.Go(); err != nil {
		return 0, 0, err
	}
	if s.admin != nil {
		s.admin.Leave()
	}
	m.gone = true
	s.gone.Store(true)
	close(m.outcome)
	open(true)
	return int(m.sessions.Load()), time.Since(m.began), nil
}

// awaitLoops returns when all answers have left.
func (m *move) awaitLoops(n int) error {
	late := time.After(closeGrace)
	for range n {
		select {
		case <-m.arrived:
		case <-late:
			return context.DeadlineExceeded
		}
	}
	return nil
}

// introduce has the new process get what listens, and know what it must agree with.
func (s *Service) introduce(m *move) error {
	v := s.settings()
	for i, p := range s.ports {
		file, err := p.File()
		if err != nil {
			return err
		}
		m.to.Offer(v.listeners[i].name, file)
	}
	if s.admin != nil {
		if file, err := s.admin.File(); err == nil {
			m.to.Offer(operator.Name(s.cfg.AdminAPI), file)
		}
	}
	w := upgrade.NewWriter(0, time.Now(), nil)
	v.code(w)
	return m.to.Introduce(w.Bytes())
}

func (s *Service) settings() settings {
	v := settings{newest: stateVersion, oldest: oldestState, serverID: s.cfg.ServerID, epoch: s.epoch(), dataDir: s.cfg.DataDir, grandPool: s.cfg.GrandPool}
	if v.serverID == 0 {
		v.lockPath = s.cfg.LockPath
	}
	if lease := s.lease.Load(); lease != nil {
		v.lease = lease.Estate()
	}
	for _, p := range s.ports {
		v.listeners = append(v.listeners, listenerState{p.name, p.nonceBytes})
	}
	for _, c := range s.chains {
		v.chains = append(v.chains, chainState{c.name, c.cfg.DataDir, c.jobs.round.Load() != nil})
	}
	return v
}

// agreed waits for the new process and returns what it says.
func (s *Service) agreed(ctx context.Context, to *upgrade.Successor) (theirs readiness, err error) {
	body, err := to.Ready(ctx)
	if err != nil {
		return theirs, err
	}
	r := upgrade.NewReader(0, time.Now(), body)
	if theirs.code(r); r.Err() == nil && (theirs.version < oldestState || theirs.version > stateVersion) {
		r.Fail("version %d of the state is not known here", theirs.version)
	}
	if r.Err() == nil && theirs.version < withChains && s.cfg.several() {
		r.Fail("version %d of the state knows nothing of [[chains]]", theirs.version)
	}
	return theirs, r.Err()
}

// seen are the shares that were accepted of all jobs.
func (s *Service) seen() iter.Seq2[seenOf, *shareSet] {
	return func(yield func(seenOf, *shareSet) bool) {
		for _, c := range s.chains {
			for _, w := range *c.jobs.works.Load() {
				if !yield(seenOf{c.index, w.ID}, &w.seen) {
					return
				}
			}
		}
	}
}

func (m *move) sendSeen(of seenOf, keys []shareKey) error {
	for chunk := range slices.Chunk(keys, seenChunk) {
		if err := m.send(messageSeen, (&seenShares{of, chunk}).code); err != nil {
			return err
		}
	}
	return nil
}

// sendShared sends what belongs to no session.
func (s *Service) sendShared(m *move) error {
	for of, seen := range s.seen() {
		if err := m.sendSeen(of, seen.recorded()); err != nil {
			return err
		}
	}
	v := shared{instance: s.twins.instance, lease: s.lease.Load().Estate(), ids: s.ids, memories: s.guard.Memories()}
	for _, c := range s.chains {
		v.books = append(v.books, c.jobs.carry())
	}
	if s.board != nil {
		v.board = s.board.carry()
	}
	return m.send(messageShared, v.code)
}

func (s *Service) listeners() (all []*poll.Listener) {
	for _, p := range s.ports {
		all = append(all, p.Listener)
	}
	return all
}

// reserveEpochs has the spools begin epochs for the new process, whose shares want one that is not below least.
func (s *Service) reserveEpochs(least uint32) error {
	var g errgroup.Group
	for _, c := range s.chains {
		for _, sp := range c.spooled {
			if sp.Spool == c.shares {
				g.Go(func() error { return sp.Reserve(least) })
			} else {
				g.Go(func() error { return sp.Reserve(0) })
			}
		}
	}
	return g.Wait()
}

func (s *Service) leaveSpools() (batons, error) {
	spools := s.spooled()
	all := make([]spool.Baton, len(spools))
	var g errgroup.Group
	for i, sp := range spools {
		g.Go(func() (err error) {
			all[i], err = sp.Leave()
			return err
		})
	}
	err := g.Wait()
	left := make(batons)
	for i, sp := range spools {
		left[sp.name] = all[i]
	}
	return left, err
}

// reopenSpools goes on with the spools, which the new process has let go of.
func (s *Service) reopenSpools() {
	open := func() error { return s.openSpools(nil) }
	_ = retry.Do(context.Background(), retry.Pace{First: 100 * time.Millisecond, Longest: time.Second}, open,
		func(err error, _ time.Duration) {
			s.log.Error().Err(err).Msg("spools cannot be opened again, will try again")
		})
}

// openSpools opens those that are closed.
func (s *Service) openSpools(left batons) error {
	var g errgroup.Group
	for _, sp := range s.spooled() {
		if !sp.IsOpen() {
			g.Go(func() error { return sp.Reopen(left[sp.name]) })
		}
	}
	return g.Wait()
}

// handOver is called when all answers have left: it sends all sessions, and returns when it is known whose they are.
func (l *loop) handOver() {
	m := l.move
	for i := len(l.sessions) - 1; i >= 0; i-- { // they would wait for an answer only
		if s := l.sessions[i]; s.closing && !s.over {
			s.fail(nil)
			l.settle(s)
		}
	}
	m.arrived <- struct{}{}         // has room
	since, others, err := l.pack(m) // while others wait for the disk
	<-m.all
	for i := 0; i < len(since) && err == nil && m.failed == nil; i++ {
		err = m.sendParcel(messageSince, since[i])
	}
	for i := 0; i < len(others) && err == nil && m.failed == nil; i++ {
		err = m.sendParcel(messageSessions, others[i])
	}
	if err != nil {
		m.fail(err)
	}
	m.exported.Done()
	<-m.outcome
	if m.gone {
		l.move = nil
		l.letGo()
		return
	}
	l.now = time.Now()
	l.stay(m)
}

// stay goes on with all sessions, if that has not been done: nothing has moved.
func (l *loop) stay(m *move) {
	if l.move != m {
		return
	}
	l.move = nil
	l.forgetAhead()
	for _, s := range slices.Clone(l.sessions) {
		s.link.Keep()
		s.Serve(poll.CanRead | poll.CanWrite)
	}
}

// pack returns messages that say what has become of the sessions that went ahead, and others that have all others.
func (l *loop) pack(m *move) (since, others []parcel, err error) {
	for _, a := range l.ahead {
		p, of, err := a.pack()
		if err != nil {
			return nil, nil, err
		}
		since = append(since, p)
		m.sessions.Add(of[asItWas] + of[changed])
		m.changed.Add(of[changed])
	}
	all := slices.DeleteFunc(slices.Clone(l.sessions), func(s *session) bool { return s.over || s.ahead })
	for step := range slices.Chunk(all, movedStep) {
		p := parcel{fds: make([]int, len(step))}
		for i, s := range step {
			if p.fds[i], err = s.link.Pass(); err != nil {
				return nil, nil, err
			}
		}
		now := m.base
		if now.IsZero() {
			now = time.Now()
		}
		if err := p.pack(m.version, now, func(c *upgrade.Codec) {
			for _, s := range step {
				s.moved().code(c)
			}
		}); err != nil {
			return nil, nil, err
		}
		others = append(others, p)
	}
	m.sessions.Add(int64(len(all)))
	return since, others, nil
}

// moved is what there is to send of the session.
func (s *session) moved() *moved { return &moved{s, s.port.index} }

// letGo ends all sessions here, and the loop: another process has them.
func (l *loop) letGo() {
	var left, over []poll.Link
	for _, s := range l.sessions {
		if s.over {
			over = append(over, s.link)
		} else {
			left = append(left, s.link)
		}
		s.over, s.pos = true, -1 // for what is still posted
	}
	l.sessions, l.ahead, l.leaving = nil, nil, true
	l.Close() // or it would have to forget each link by itself
	for _, link := range over {
		link.Close()
	}
	for _, link := range left {
		l.srv.relays.Add(link.Leave())
	}
}
