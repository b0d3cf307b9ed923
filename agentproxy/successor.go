package agentproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"btcpool/internal/poll"
	"btcpool/internal/upgrade"
)

// Messages between the two processes.
const (
	messageSeen  = upgrade.KindService + iota // seenShares
	messageConns                              // connections of what is carried, in its order
	messageState                              // carried
)

// HandOver has a new process go on with all miners and links, and Run end. When it fails, nothing has changed, and the
// new process is gone.
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
	if !s.serving.Load() {
		return 0, 0, errors.New("this process serves nobody: it has just begun, or is about to end")
	}
	if !s.moving.TryLock() {
		return 0, 0, errors.New("another hand-over is under way")
	}
	defer s.moving.Unlock()
	if err := s.introduce(to); err != nil {
		return 0, 0, err
	}
	m := move{Service: s, to: to}
	if m.version, err = agreed(ctx, to); err != nil {
		return 0, 0, err
	}
	undo = append(undo, func() { s.loop.Post(func() { s.checker.seen.recorded() }) })
	if err := m.sendSeen(ctx); err != nil {
		return 0, 0, err
	}
	resume, err := s.pausePorts()
	if err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	if !s.loop.Post(func() { done <- m.do() }) {
		done <- net.ErrClosed
	}
	err = <-done
	resume(err == nil)
	return m.sessions, time.Since(m.began), err
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
	if page, ok := s.page.(*net.TCPListener); ok {
		if err := offer(pageName(s.pageAddr), page); err != nil {
			return err
		}
	}
	s.ports.mu.Lock()
	ports := s.ports.all
	s.ports.mu.Unlock()
	for _, p := range ports {
		if err := offer(p.key.name(), p); err != nil {
			return err
		}
	}
	v := s.settings()
	w := upgrade.NewWriter(0, time.Now(), nil)
	v.code(w)
	return to.Introduce(w.Bytes())
}

func pageName(addr string) string { return "page " + addr }

func (s *Service) settings() settings { return settings{stateVersion, oldestState, s.multiUser} }

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

// move is a HandOver under way.
type move struct {
	*Service
	to       *upgrade.Successor
	version  uint32
	sessions int
	began    time.Time // when nobody was served any more
}

func (m *move) send(kind byte, code func(*upgrade.Codec)) error {
	w := upgrade.NewWriter(m.version, time.Now(), nil)
	if code(w); w.Err() != nil {
		return w.Err()
	}
	return m.to.Send(kind, w.Bytes())
}

// sendSeen sends the shares that were seen while miners are served, and has those noted that come meanwhile.
func (m *move) sendSeen(ctx context.Context) error {
	var old, young []uint64
	if err := m.loop.Call(ctx, func() { old, young = m.checker.seen.record() }); err != nil {
		return err
	}
	return errors.Join(m.sendSome(seenOld, old), m.sendSome(seenYoung, young))
}

func (m *move) sendSome(generation uint8, keys []uint64) error {
	for chunk := range slices.Chunk(keys, seenChunk) {
		if err := m.send(messageSeen, (&seenShares{generation, chunk}).code); err != nil {
			return err
		}
	}
	return nil
}

// do is the loop's: it does nothing else until another process serves, or will not.
func (m *move) do() (err error) {
	s := m.Service
	if s.leaving {
		return errors.New("this process is about to end")
	}
	m.began = time.Now()
	s.now = m.began
	s.flushAll()
	t := s.gather()
	var passed []poll.Link
	defer func() {
		if err == nil {
			return
		}
		m.to.Kill() // before anything is read here
		for _, conn := range passed {
			conn.Keep()
		}
	}()
	var fds []int
	for _, conn := range t.conns() {
		fd, err := conn.Pass()
		if err != nil {
			return err
		}
		passed, fds = append(passed, conn), append(fds, fd)
	}
	if err := m.sendSome(seenFresh, s.checker.seen.recorded()); err != nil {
		return err
	}
	for some := range slices.Chunk(fds, upgrade.MaxFDs) {
		if err := m.to.Send(messageConns, nil, some...); err != nil {
			return err
		}
	}
	if err := m.send(messageState, t.code); err != nil {
		return err
	}
	if err := m.to.Taken(); err != nil {
		return err
	}
	if err := m.to.Go(); err != nil {
		return err
	}
	m.sessions = len(s.miners)
	s.letGo(t)
	return nil
}

// flushAll sends what waits for more. Links may end by that, of which others hear.
func (s *Service) flushAll() {
	waits := func(l *link) bool { return !l.over && len(l.batch)+len(l.rows) > 0 }
	for again := true; again; {
		again = false
		for _, a := range s.accounts {
			for l := range a.links {
				if waits(l) {
					l.flush()
					again = true
				}
			}
		}
	}
}

// gather collects all that is to pass. Links that have not come so far that miners can mine on them are none: they are
// made again.
func (s *Service) gather() *carried {
	t := &carried{svc: s}
	for _, a := range s.accounts {
		t.accounts.add(a)
		for _, g := range a.goals {
			t.goals.add(g)
		}
		t.addWork(a.standIn)
		for l := range a.links {
			if l.up() {
				t.addLink(l)
			}
		}
		for _, l := range a.broken {
			t.addLink(l)
		}
	}
	for _, m := range s.miners {
		t.miners.add(m)
		for _, j := range m.jobs {
			t.addWork(j.work)
		}
		if m.relay != nil && m.relay.line != nil {
			t.lines = append(t.lines, m.relay)
		}
	}
	return t
}

func (t *carried) addLink(l *link) {
	if l == nil || !t.links.add(l) {
		return
	}
	if !l.over {
		t.addWork(l.work)
	}
	for _, q := range l.questions {
		t.addWork(q.work)
	}
	for _, q := range l.late {
		t.addWork(q.work)
	}
	t.addLink(l.heir)
}

func (t *carried) addWork(w *work) {
	if w != nil && t.works.add(w) {
		t.addLink(w.link)
	}
}

// owner is whom a connection belongs to.
type owner struct {
	poll.Owner
	conn *poll.Link
}

// owners returns all who have connections, in the order in which those pass.
func (t *carried) owners() (all []owner) {
	for _, l := range t.links.all {
		if !l.over {
			all = append(all, owner{l, &l.conn})
		}
	}
	for _, m := range t.miners.all {
		all = append(all, owner{m, &m.conn})
	}
	for _, r := range t.lines {
		all = append(all, owner{r, &r.line})
	}
	return all
}

func (t *carried) conns() (all []poll.Link) {
	for _, o := range t.owners() {
		all = append(all, *o.conn)
	}
	return all
}

// letGo forgets all that another process serves now.
func (s *Service) letGo(t *carried) {
	for _, conn := range t.conns() {
		s.relayed.Add(conn.Leave())
	}
	for _, l := range t.links.all {
		l.over = true
	}
	for _, m := range t.miners.all {
		if m.pos = -1; m.relay != nil {
			m.relay.cancel()
		}
	}
	for _, a := range t.accounts.all {
		for _, g := range a.goals {
			for _, sl := range g.slots {
				sl.stop()
			}
		}
		for l := range a.links {
			l.close(nil) // those that did not pass
		}
	}
	s.miners, s.accounts = nil, make(map[string]*account)
	s.leaving = true
}

// agree returns the version of the state to use with a process that says text of itself.
func (s *Service) agree(text []byte) (version uint32, err error) {
	var theirs settings
	r := upgrade.NewReader(0, time.Now(), text)
	if theirs.code(r); r.Err() != nil {
		return 0, r.Err()
	}
	ours := s.settings()
	version = min(ours.newest, theirs.newest)
	switch {
	case version < ours.oldest || version < theirs.oldest:
		return 0, fmt.Errorf("state has versions %d to %d there, %d to %d here", theirs.oldest, theirs.newest, ours.oldest, ours.newest)
	case ours.multiUser != theirs.multiUser:
		return 0, fmt.Errorf("multi_user is %v there, %v here: that takes a restart", theirs.multiUser, ours.multiUser)
	}
	return version, nil
}
