package switcher

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/poll"
	"btcpool/internal/upgrade"
)

// Messages between the two processes.
const (
	messageUsers    = upgrade.KindService + iota // what is known of some users since their file was left
	messageShared                                // what else belongs to no session
	messageSessions                              // some sessions, each with the descriptors of its connections
	messageEnd
)

// movedStep is how many sessions go in a message: each has its miner's connection, and those to the servers where it is,
// will be and was.
const movedStep = upgrade.MaxFDs / (3 + maxPast)

// HandOver has a new process go on with all sessions, and Run end. When it fails, nothing has changed, and the new
// process is gone.
func (s *Service) HandOver(ctx context.Context, to *upgrade.Successor) (sessions int, pause time.Duration, err error) {
	var undo []func()
	defer func() {
		if err != nil {
			to.Kill() // before anything is read here
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	if !s.running.Load() {
		return 0, 0, errors.New("this process serves nobody: it has just begun, or is about to end")
	}
	if !s.moving.TryLock() {
		return 0, 0, errors.New("another hand-over is under way")
	}
	defer s.moving.Unlock()
	undo = append(undo, s.users.LeaveFile()) // which the new process reads when it has been introduced
	if err := s.introduce(to); err != nil {
		return 0, 0, err
	}
	m := move{Service: s, to: to}
	if m.version, err = agreed(ctx, to); err != nil {
		return 0, 0, err
	}

	// Nobody is served from here on.
	defer upgrade.WithoutGC()()
	began := time.Now()
	open := s.gate.Shut(s.listeners()...)
	undo = append(undo, func() { open(false) })
	release, err := s.still()
	undo = append(undo, func() { release(false) })
	if err != nil {
		return 0, 0, err
	}
	parcels, err := m.pack()
	undo = append(undo, m.keep)
	if err != nil {
		return 0, 0, err
	}
	if err := m.sendAll(parcels); err != nil {
		return 0, 0, err
	}
	if err := to.Taken(); err != nil {
		return 0, 0, err
	}
	s.guard.Bans.Leave()
	undo = append(undo, func() { s.guard.Bans.Open(s.cfg.DataDir, time.Now()) }, s.lease.Load().Leave())
	if err := ctx.Err(); err != nil { // this process is to end, and all with it
		return 0, 0, err
	}
	if err := to.Go(); err != nil {
		return 0, 0, err
	}
	close(s.gone)
	release(true)
	open(true)
	return m.sessions, time.Since(began), nil
}

// introduce has the new process get what listens, and know what it must agree with.
func (s *Service) introduce(to *upgrade.Successor) error {
	offer := func(name string, l interface{ File() (*os.File, error) }) error {
		file, err := l.File()
		if err == nil {
			to.Offer(name, file)
		}
		return err
	}
	for i, p := range s.ports {
		if err := offer(s.cfg.Listeners[i].name(), p); err != nil {
			return err
		}
	}
	if status, ok := s.status.(*net.TCPListener); ok {
		if err := offer(statusName(s.cfg.Status), status); err != nil {
			return err
		}
	}
	v := s.settings()
	w := upgrade.NewWriter(0, time.Now(), nil)
	v.code(w)
	return to.Introduce(w.Bytes())
}

func (l Listener) name() string { return "listen " + l.Listen }

func statusName(addr string) string { return "status " + addr }

func (s *Service) listeners() (all []*poll.Listener) {
	for _, p := range s.ports {
		all = append(all, p.Listener)
	}
	return all
}

func (s *Service) settings() settings {
	v := settings{
		newest: stateVersion, oldest: oldestState, serverID: s.cfg.ServerID, dataDir: s.cfg.DataDir, zookeeper: s.users.Fault() == nil,
	}
	if v.serverID == 0 {
		v.lockPath = s.cfg.LockPath
	}
	if lease := s.lease.Load(); lease != nil {
		v.lease = lease.Estate()
	}
	for _, c := range s.chains {
		v.chains = append(v.chains, c.Name)
	}
	return v
}

// agreed waits for the new process and returns the version of the state that it wants.
func agreed(ctx context.Context, to *upgrade.Successor) (version uint32, err error) {
	body, err := to.Ready(ctx)
	if err != nil {
		return 0, err
	}
	r := upgrade.NewReader(0, time.Now(), body)
	upgrade.Uint(r, &version)
	if r.Err() == nil && (version < oldestState || version > stateVersion) {
		r.Fail("version %d of the state is not known here", version)
	}
	return version, r.Err()
}

var errEnding = errors.New("this process is about to end")

// still returns when no loop does anything. They go on when it is said whether their sessions have passed.
func (s *Service) still() (release func(passed bool), err error) {
	var arrived sync.WaitGroup
	gone, outcome := false, make(chan struct{})
	for _, l := range s.loops {
		arrived.Add(1)
		if !l.Post(func() {
			arrived.Done()
			if <-outcome; gone {
				l.letGo()
			}
		}) {
			arrived.Done()
			err = errEnding
		}
	}
	arrived.Wait()
	if slices.ContainsFunc(s.loops, func(l *loop) bool { return l.leaving }) {
		err = errEnding
	}
	return func(passed bool) {
		gone = passed
		close(outcome)
	}, err
}

// move is a HandOver under way.
type move struct {
	*Service
	to       *upgrade.Successor
	version  uint32
	sessions int
}

func (m *move) send(kind byte, code func(*upgrade.Codec)) error {
	w := upgrade.NewWriter(m.version, time.Now(), nil)
	if code(w); w.Err() != nil {
		return w.Err()
	}
	return m.to.Send(kind, w.Bytes())
}

// sendAll sends what is known of users since their file was left, and all else.
func (m *move) sendAll(parcels []parcel) error {
	for some := range slices.Chunk(m.users.Memories(), usersChunk) {
		if err := m.send(messageUsers, func(c *upgrade.Codec) { codeUsers(c, &some) }); err != nil {
			return err
		}
	}
	v := shared{lease: m.lease.Load().Estate(), ids: m.ids, memories: m.guard.Memories(), spelt: m.spellings.all()}
	for _, c := range m.chains {
		for _, server := range c.servers {
			v.servers = append(v.servers, server.carry(c.Name))
		}
	}
	if err := m.send(messageShared, v.code); err != nil {
		return err
	}
	for _, p := range parcels {
		if err := m.to.Send(messageSessions, p.body, p.fds...); err != nil {
			return err
		}
	}
	return m.to.Send(messageEnd, nil)
}

// parcel is a message with sessions.
type parcel struct {
	body []byte
	fds  []int
}

// pack returns the messages that have all sessions, each loop's made apart.
func (m *move) pack() (parcels []parcel, err error) {
	of := make([][]parcel, len(m.loops))
	var g errgroup.Group
	for i, l := range m.loops {
		m.sessions += len(l.live())
		g.Go(func() (err error) {
			of[i], err = l.pack(m.version)
			return err
		})
	}
	err = g.Wait()
	return slices.Concat(of...), err
}

// live returns the sessions that another process goes on with. Of those that are over the last answer is still to leave.
func (l *loop) live() []*session {
	return slices.DeleteFunc(slices.Clone(l.sessions), func(s *session) bool { return s.over })
}

func (l *loop) pack(version uint32) (parcels []parcel, err error) {
	for some := range slices.Chunk(l.live(), movedStep) {
		var p parcel
		w := upgrade.NewWriter(version, time.Now(), nil)
		for _, s := range some {
			s.code(w)
			for link := range s.links {
				fd, err := (*link).Pass()
				if err != nil {
					return nil, err
				}
				p.fds = append(p.fds, fd)
			}
		}
		p.body = w.Bytes()
		parcels = append(parcels, p)
		if w.Err() != nil {
			return nil, w.Err()
		}
	}
	return parcels, nil
}

// keep takes back what was packed.
func (m *move) keep() {
	for _, l := range m.loops {
		for _, s := range l.live() {
			for link := range s.links {
				(*link).Keep()
			}
		}
	}
}

// links yields the session's connections: to its miner, and to servers that have been reached.
func (s *session) links(yield func(*poll.Link) bool) {
	if !yield(&s.link) {
		return
	}
	for u := range s.servers {
		if (u != s.next || !s.dials()) && !yield(&u.link) {
			return
		}
	}
}

// letGo forgets all that another process serves now. The loop goes on with what is over until that has left.
func (l *loop) letGo() {
	for _, s := range l.live() {
		for link := range s.links {
			l.srv.relays.Add((*link).Leave())
		}
		for u := range s.servers {
			u.over, u.session = true, nil
			u.cancel()
		}
		s.pos, s.over = -1, true // for what is still posted
	}
	l.sessions = slices.DeleteFunc(l.sessions, func(s *session) bool { return s.pos < 0 })
	for i, s := range l.sessions {
		s.pos = i
	}
	clear(l.users)
	clear(l.due)
	l.leaving = true
}
