package switcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"btcpool/internal/chainwatch"
	"btcpool/internal/poll"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/upgrade"
)

// takeOver goes on with what another process serves, under its id. The loops do not run yet.
func (s *Service) takeOver(ctx context.Context, serve func(context.Context, registry.Lease) error) error {
	p := s.before
	t := taking{Service: s}
	if err := t.takeAll(ctx, p); err != nil {
		p.Refuse(err)
		t.close()
		return fmt.Errorf("not taken over: %w", err)
	}
	s.guard.Bans.Open(s.cfg.DataDir, time.Now())
	for _, l := range s.loops {
		l.Post(l.takeUp)
	}
	p.GoOn()
	s.log.Info().Int("sessions", t.sessions).Msg("taken over from another process")
	if t.heir != nil {
		return t.heir.Lease(ctx, t.lease, serve)
	}
	return s.registry.Lease(ctx, s.cfg.LockPath, s.cfg.ServerID, serve)
}

// taking is a takeOver under way.
type taking struct {
	*Service
	version  uint32
	heir     *registry.Heir // nil: the id is fixed
	lease    registry.Estate
	sessions int
}

// close closes what the other process serves still.
func (t *taking) close() {
	if t.heir != nil {
		t.heir.Close()
	}
	for _, l := range t.loops {
		for _, s := range l.sessions {
			for link := range s.links {
				(*link).Close()
			}
		}
		l.sessions = nil
	}
}

// takeAll takes what the other process has, which has nothing more when it returns.
func (t *taking) takeAll(ctx context.Context, p *upgrade.Predecessor) (err error) {
	var theirs settings
	r := upgrade.NewReader(0, time.Now(), p.Settings)
	if theirs.code(r); r.Err() != nil {
		return r.Err()
	}
	if t.version, err = t.agree(theirs); err != nil {
		return err
	}
	if err := t.ready(ctx, theirs); err != nil {
		return err
	}
	w := upgrade.NewWriter(0, time.Now(), nil)
	upgrade.Uint(w, &t.version)
	if err := p.Ready(w.Bytes()); err != nil {
		return err
	}
	defer upgrade.WithoutGC()()
	if err := t.receive(p); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // who was told to stop serves nobody
		return err
	}
	return p.Taken()
}

// agree returns the version of the state to use.
func (s *Service) agree(theirs settings) (version uint32, err error) {
	ours := s.settings()
	version = min(ours.newest, theirs.newest)
	switch {
	case version < ours.oldest || version < theirs.oldest:
		return 0, fmt.Errorf("state has versions %d to %d there, %d to %d here", theirs.oldest, theirs.newest, ours.oldest, ours.newest)
	case ours.serverID != theirs.serverID:
		return 0, fmt.Errorf("server_id is %d there, %d here", theirs.serverID, ours.serverID)
	case ours.lockPath != theirs.lockPath:
		return 0, fmt.Errorf("zookeeper_lock_path is %q there, %q here", theirs.lockPath, ours.lockPath)
	case ours.dataDir != theirs.dataDir:
		return 0, fmt.Errorf("data_dir is %q there, %q here", theirs.dataDir, ours.dataDir)
	}
	for _, name := range theirs.chains {
		if !slices.Contains(ours.chains, name) {
			return 0, fmt.Errorf("chain %q is not configured here: its miners would have nowhere to go", name)
		}
	}
	return version, nil
}

// ready returns when the service could serve: ZooKeeper says what users mine, if it does so in the other process, and the
// id is where it would be gone on with.
func (t *taking) ready(ctx context.Context, theirs settings) (err error) {
	ctx, cancel := context.WithTimeout(ctx, upgrade.ReadyTimeout)
	defer cancel()
	for theirs.zookeeper && t.users.Fault() != nil {
		if !retry.Sleep(ctx, 10*time.Millisecond) {
			return fmt.Errorf("what users mine is not known here: %w", t.users.Fault())
		}
	}
	if t.cfg.ServerID != 0 {
		return nil
	}
	if t.heir, err = t.registry.Heir(t.cfg.LockPath); err != nil {
		return err
	}
	return t.heir.Knows(theirs.lease)
}

// receive takes what comes until all has.
func (t *taking) receive(p *upgrade.Predecessor) error {
	for shared := false; ; {
		m, err := p.Receive()
		if err != nil {
			return err
		}
		r := upgrade.NewReader(t.version, time.Now(), m.Body)
		switch {
		case m.Kind == messageUsers && !shared:
			var some []chainwatch.Memory
			if codeUsers(r, &some); r.Err() == nil {
				t.users.Remember(some)
			}
		case m.Kind == messageShared && !shared:
			shared = true
			t.takeShared(r)
		case m.Kind == messageSessions && shared:
			err = t.takeSessions(r, &m)
		case m.Kind == messageEnd && shared:
			return nil
		default:
			err = fmt.Errorf("message %d does not belong here", m.Kind)
		}
		m.Close()
		if err = errors.Join(err, r.Err()); err != nil {
			return err
		}
	}
}

func codeUsers(c *upgrade.Codec, some *[]chainwatch.Memory) {
	upgrade.List(c, some, usersChunk, func(c *upgrade.Codec, m *chainwatch.Memory) { m.Code(c) })
}

func (t *taking) takeShared(r *upgrade.Codec) {
	v := shared{ids: t.ids}
	if v.code(r); r.Err() != nil {
		return
	}
	t.lease = v.lease
	t.guard.Remember(v.memories)
	t.spellings.learn(v.spelt)
	for _, of := range v.servers {
		if c := t.chain(of.chain); c != nil {
			if server := c.server(of.addr); server != nil {
				server.adopt(of)
			}
		}
	}
}

// takeSessions makes sessions of those in a message. They are read from when their loops run.
func (t *taking) takeSessions(r *upgrade.Codec, m *upgrade.Message) error {
	for r.Left() > 0 {
		s := &session{srv: t.Service, loop: t.loops[t.sessions%len(t.loops)], pos: -1}
		if s.code(r); r.Err() != nil {
			return r.Err()
		}
		if s.admitted && !s.full && uint8(s.ID>>24) != t.ids.server {
			return fmt.Errorf("%w: session %08x is of nobody", upgrade.ErrMalformed, s.ID)
		}
		if err := s.restore(m); err != nil {
			return err
		}
		t.sessions++
	}
	if len(m.FDs) > 0 {
		return fmt.Errorf("%w: connections without sessions", upgrade.ErrMalformed)
	}
	return nil
}

// restore gives a session its connections, and has others know it as they do when it has come so far.
func (s *session) restore(m *upgrade.Message) (err error) {
	links := []*poll.Link{&s.link}
	for u := range s.servers {
		links = append(links, &u.link)
	}
	if len(links) > len(m.FDs) {
		return fmt.Errorf("%w: a session without connections", upgrade.ErrMalformed)
	}
	for _, link := range links {
		if *link, err = poll.Passed(m.FDs[0]); err != nil {
			return err
		}
		m.FDs = m.FDs[1:]
	}
	srv, l := s.srv, s.loop
	s.pos = len(l.sessions)
	l.sessions = append(l.sessions, s)
	err = s.link.Attach(l.Loop, s)
	for u := range s.servers {
		err = errors.Join(err, u.link.Attach(l.Loop, u))
	}
	srv.open.Add(1)
	if s.admitted {
		srv.metrics.sessions[s.Phase].Add(1)
		srv.guard.Restore(s.IP, s.Trusted)
	}
	counted := s.counted
	s.counted = nil
	s.countChain(counted)
	if s.used && s.Phase != finding { // who is being found is asked for again
		l.keepUser(s)
		srv.users.Follow(s.Name.user)
	}
	if s.waits() {
		s.wake()
	}
	return err
}

// takeUp is the first that a loop does with sessions of another process.
func (l *loop) takeUp() {
	for _, s := range slices.Clone(l.sessions) {
		l.visit(s, s.takeUp)
	}
	l.tick()
}

// takeUp begins again with what the other process has not finished, and goes over to the configuration, and to what that
// one may have been told last.
func (s *session) takeUp() {
	switch {
	case s.Phase == finding && s.used:
		s.find()
		return
	case s.Phase == finding:
		s.spell()
		return
	case s.used:
		if answer, ok := s.srv.users.Last(s.Name.user); ok {
			s.follow(answer, s.loop.now)
		}
	}
	if u := s.next; u != nil && u.server.former {
		u.fail(errFormer)
	}
	if u := s.now; u != nil && u.server.former && !s.Farm {
		u.sentAway()
	}
}
