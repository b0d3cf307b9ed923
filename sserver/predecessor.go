package sserver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"btcpool/internal/poll"
	"btcpool/internal/registry"
	"btcpool/internal/retry"
	"btcpool/internal/upgrade"
)

// takeOver goes on with what another process serves, which starts when it returns.
func (s *Service) takeOver(ctx context.Context) error {
	p := s.before
	err := s.takeAll(ctx, p)
	if err != nil {
		p.Refuse(err)
		if s.takenOver != nil {
			s.takenOver.close()
		}
		for _, l := range s.loops {
			l.closeAhead()
			for _, session := range l.sessions {
				session.link.Close()
			}
		}
		return fmt.Errorf("not taken over: %w", err)
	}
	return nil
}

// succession is what a term needs to go on with that of another process.
type succession struct {
	heir  *registry.Heir // nil: the id is fixed
	lease registry.Estate
	epoch uint32 // of its shares; 0: the one that the spool begins
}

func (v *succession) close() {
	if v.heir != nil {
		v.heir.Close()
	}
}

func (s *Service) takeAll(ctx context.Context, p *upgrade.Predecessor) error {
	theirs, err := readSettings(p.Settings)
	if err != nil {
		return err
	}
	version, ports, err := s.agree(theirs)
	if err != nil {
		return err
	}
	s.takenOver = new(succession)
	if s.cfg.ServerID == 0 {
		if err := s.takenOver.ready(ctx, s, theirs); err != nil {
			return err
		}
	}
	if err := s.awaitJobsAndUsers(ctx, theirs.chains); err != nil {
		return err
	}
	w := upgrade.NewWriter(0, time.Now(), nil)
	(&readiness{version, s.takenOver.epoch}).code(w)
	if err := p.Ready(w.Bytes()); err != nil {
		return err
	}
	defer upgrade.WithoutGC()()
	t := taking{Service: s, version: version, ports: ports, common: len(theirs.chains), seen: make(map[seenOf]*shareSet)}
	if err := t.receive(p); err != nil {
		return err
	}
	if err := s.openSpools(t.left); err != nil { // the old process has closed them
		return err
	}
	for _, c := range s.chains { // one that the old process did not have has an epoch of its own
		if epoch := s.takenOver.epoch; epoch > c.shares.Epoch() {
			if err := c.shares.SetEpoch(epoch); err != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil { // who was told to stop serves nobody
		return err
	}
	if err := p.Taken(); err != nil {
		return err
	}
	s.guard.Bans.Open(s.cfg.DataDir, time.Now())
	for _, sp := range s.spooled() {
		sp.GoOnSending()
	}
	p.GoOn()
	s.log.Info().Int64("sessions", s.open.Load()).Int("seen_shares", t.shares).Msg("taken over from another process")
	return nil
}

// epochAhead is by how much the epoch of a leased id is ahead of the clock when it passes: the one that the spool begins
// for itself is behind it.
const epochAhead = 600

// ready finds the lease that is to pass, and gets an epoch that nobody else has under its id.
func (v *succession) ready(ctx context.Context, s *Service, theirs settings) (err error) {
	ctx, cancel := context.WithTimeout(ctx, upgrade.ReadyTimeout)
	defer cancel()
	if v.heir, err = s.registry.Heir(s.cfg.LockPath); err != nil {
		return err
	}
	if v.epoch, err = v.heir.Epoch(ctx, max(uint32(time.Now().Unix())+epochAhead, theirs.epoch+2)); err != nil {
		return err
	}
	return v.heir.Knows(theirs.lease)
}

// readSettings returns what the old process says.
func readSettings(text []byte) (theirs settings, err error) {
	r := upgrade.NewReader(0, time.Now(), text)
	theirs.code(r)
	return theirs, r.Err()
}

// agree returns the version of the state to use, and which ports the old process's are here.
func (s *Service) agree(theirs settings) (version uint32, ports []*port, err error) {
	ours := s.settings()
	version = min(ours.newest, theirs.newest)
	switch {
	case version < ours.oldest || version < theirs.oldest:
		return 0, nil, fmt.Errorf("state has versions %d to %d there, %d to %d here", theirs.oldest, theirs.newest, ours.oldest, ours.newest)
	case ours.serverID != theirs.serverID:
		return 0, nil, fmt.Errorf("server_id is %d there, %d here", theirs.serverID, ours.serverID)
	case ours.lockPath != theirs.lockPath:
		return 0, nil, fmt.Errorf("zookeeper_lock_path is %q there, %q here", theirs.lockPath, ours.lockPath)
	case theirs.grandPool && !ours.grandPool:
		return 0, nil, errors.New("grand_pool is true there, false here: its clients would have no jobs")
	case ours.dataDir != theirs.dataDir:
		return 0, nil, fmt.Errorf("data_dir is %q there, %q here", theirs.dataDir, ours.dataDir)
	}
	for i, c := range theirs.chains {
		switch {
		case i == len(ours.chains) || ours.chains[i].name != c.name:
			return 0, nil, fmt.Errorf("chain %q is not configured here: its miners and their shares would have nowhere to go", c.name)
		case ours.chains[i].dataDir != c.dataDir:
			return 0, nil, fmt.Errorf("data_dir of chain %q is %q there, %q here", c.name, c.dataDir, ours.chains[i].dataDir)
		}
	}
	for _, l := range theirs.listeners {
		i := slices.IndexFunc(s.ports, func(p *port) bool { return p.name == l.name })
		switch {
		case i < 0:
			return 0, nil, fmt.Errorf("%s is not configured here: its miners would have nowhere to go", l.name)
		case s.ports[i].nonceBytes != l.nonceBytes:
			return 0, nil, fmt.Errorf("extranonce2_size of %s is %d there, %d here", l.name, l.nonceBytes, s.ports[i].nonceBytes)
		}
		ports = append(ports, s.ports[i])
	}
	return version, ports, nil
}

// awaitJobsAndUsers returns when miners could be served.
func (s *Service) awaitJobsAndUsers(ctx context.Context, theirs []chainState) error {
	ctx, cancel := context.WithTimeout(ctx, upgrade.ReadyTimeout)
	defer cancel()
	for {
		err := s.missing(theirs)
		if err == nil || !retry.Sleep(ctx, 10*time.Millisecond) {
			return err
		}
	}
}

// missing returns what miners need who have it in the other process, and would not have it here.
func (s *Service) missing(theirs []chainState) error {
	for i, c := range theirs {
		if c.mined && s.chains[i].jobs.round.Load() == nil {
			return s.chains[i].named(errNoJob)
		}
	}
	if !s.users.Ready() {
		return errors.New("users have not been read")
	}
	return nil
}

// taking is a takeOver under way.
type taking struct {
	*Service
	version  uint32
	ports    []*port
	common   int // chains that the other process has, too: the first
	seen     map[seenOf]*shareSet
	left     batons
	base     time.Time      // what times of sessions are relative to; zero: when they arrive
	messages uint32         // with sessions that did not go ahead
	making   sync.WaitGroup // messages with sessions that have arrived
	shares   int
}

// arrival is a message with sessions, whose maker depends on its number.
type arrival struct {
	upgrade.Message
	body   *upgrade.Codec
	number uint32
	last   bool // it comes while nobody is served
}

// receive takes what comes until all has. Sessions are made by as many as will serve them.
func (t *taking) receive(p *upgrade.Predecessor) error {
	var made errgroup.Group
	var queues []chan arrival
	for _, l := range t.loops {
		queue := make(chan arrival, 1)
		queues = append(queues, queue)
		made.Go(func() (err error) {
			for m := range queue {
				if err == nil {
					err = t.take(l, &m)
				}
				m.Close()
				t.making.Done()
			}
			if err == nil && len(l.ahead) > 0 {
				err = fmt.Errorf("%w: sessions have gone ahead, and nobody says what has become of them", upgrade.ErrMalformed)
			}
			return err
		})
	}
	err := t.receiveAll(p, queues)
	for _, queue := range queues {
		close(queue)
	}
	return errors.Join(err, made.Wait())
}

func (t *taking) take(l *loop, m *arrival) (err error) {
	switch m.Kind {
	case messageAhead:
		err = t.takeAhead(l, m)
	case messageSince:
		err = t.takeSince(l, m)
	default:
		err = t.takeSessions(l, m)
	}
	if err == nil && m.body.Left() > 0 {
		err = fmt.Errorf("%w: %d bytes too many in message %d", upgrade.ErrMalformed, m.body.Left(), m.Kind)
	}
	return err
}

func (t *taking) receiveAll(p *upgrade.Predecessor, queues []chan arrival) error {
	for shared := false; ; {
		m, err := p.Receive()
		if err != nil {
			return err
		}
		if m.Kind == messageAhead && !shared || m.Kind == messageSince || m.Kind == messageSessions && shared {
			a := arrival{m, upgrade.NewReader(t.version, t.now(), m.Body), t.messages, shared}
			if m.Kind == messageSessions {
				t.messages++
			} else {
				upgrade.Uint(a.body, &a.number)
			}
			t.making.Add(1)
			queues[a.number%uint32(len(queues))] <- a
			continue
		}
		r := upgrade.NewReader(t.version, time.Now(), m.Body)
		switch {
		case m.Kind == messageBase:
			t.base = time.Now()
		case m.Kind == messageMade && !shared:
			t.making.Wait()
			err = p.Send(messageMade, nil)
		case m.Kind == messageSeen:
			t.takeSeen(r)
		case m.Kind == messageShared && !shared:
			shared = true
			err = t.takeShared(r)
		case m.Kind == messageEnd && shared:
			t.left.code(r)
			return r.Err()
		default:
			err = fmt.Errorf("message %d does not belong here", m.Kind)
		}
		m.Close()
		if err = errors.Join(err, r.Err()); err != nil {
			return err
		}
	}
}

func (t *taking) takeSeen(r *upgrade.Codec) {
	var some seenShares
	some.code(r)
	set := t.seen[some.of]
	if set == nil {
		set = new(shareSet)
		t.seen[some.of] = set
	}
	for _, k := range some.keys {
		set.add(k)
	}
	t.shares += len(some.keys)
}

func (t *taking) takeShared(r *upgrade.Codec) error {
	v := shared{ids: t.ids}
	if v.code(r); r.Err() != nil {
		return r.Err()
	}
	t.twins.goOnAs(v.instance)
	t.serverID.Store(uint32(t.ids.server))
	t.takenOver.lease = v.lease
	t.guard.Remember(v.memories)
	if len(v.books) != t.common {
		return fmt.Errorf("%w: jobs of %d chains", upgrade.ErrMalformed, len(v.books))
	}
	for _, h := range t.ids.pasts {
		if !t.knows(h.Jobs) {
			return errNoChain
		}
	}
	if t.board != nil && v.board != nil {
		if err := t.board.adopt(v.board); err != nil {
			return err
		}
	}
	for i, book := range v.books {
		if err := t.chains[i].adopt(book, t.seen, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

var errNoChain = fmt.Errorf("%w: a chain that there is not", upgrade.ErrMalformed)

// knows reports whether jobs are of chains that the other process has.
func (t *taking) knows(jobs []sentJob) bool {
	return !slices.ContainsFunc(jobs, func(j sentJob) bool { return int(j.Chain) >= t.common })
}

func (t *taking) now() time.Time {
	if t.base.IsZero() {
		return time.Now()
	}
	return t.base
}

// takeSessions makes sessions of those in a message. They are read from when their loops run.
func (t *taking) takeSessions(l *loop, m *arrival) error {
	for len(m.FDs) > 0 {
		s := &session{srv: t.Service, loop: l}
		if err := t.read(m.body, s); err != nil {
			return err
		}
		if err := t.check(s); err != nil {
			return err
		}
		link, err := poll.Passed(m.FDs[0])
		if err != nil {
			return err
		}
		m.FDs = m.FDs[1:]
		s.link = link
		t.restore(s)
	}
	return nil
}

// read has a session be what is said of it.
func (t *taking) read(r *upgrade.Codec, s *session) error {
	v := moved{session: s}
	if v.code(r); r.Err() != nil {
		return r.Err()
	}
	if int(v.listener) >= len(t.ports) {
		return fmt.Errorf("session %08x of listener %d is of nobody", s.ID, v.listener)
	}
	s.port = t.ports[v.listener]
	return nil
}

// check returns why a session cannot go on.
func (t *taking) check(s *session) error {
	if s.ID>>24 != t.serverID.Load() && s.admitted {
		return fmt.Errorf("session %08x is of nobody", s.ID)
	}
	if int(s.Chain) >= t.common || !t.knows(s.Jobs) || s.Question != nil && int(s.Question.Chain) >= t.common {
		return errNoChain
	}
	return nil
}

// restore makes of a session, whose loop does not run yet, what accept and what came later had.
func (s *Service) restore(session *session) {
	l := session.loop
	session.protocol = stratumV1{session}
	if !session.admitted {
		session.protocol = proxied{stratumV1{session}}
	}
	s.open.Add(1)
	if session.admitted {
		s.metrics.sessions[session.Phase].Add(1)
		s.guard.Restore(session.IP, session.Trusted)
	}
	if session.Farm != nil {
		s.agentMiners.Add(int64(len(session.Farm.Miners)))
	}
	for _, w := range session.Workers {
		if id, known := session.userID(w.UserName); !known || id != w.UserID {
			session.list().Learn(w.UserName, w.UserID)
		}
	}
	if session.Phase == authorized {
		session.chain().miners.Add(1)
	}
	if !session.pausedUntil.IsZero() {
		l.paused = append(l.paused, session)
	}
	session.users = math.MaxUint64 // to be compared: users may be others here
	l.now = time.Now()
	l.add(session)
	if s.board != nil && session.Phase == authorized {
		s.board.join(session)
	}
	if session.Question != nil {
		session.ask(session.Question)
	}
}
