package agentproxy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"btcpool/internal/poll"
	"btcpool/internal/upgrade"
)

// takeOver goes on with what another process serves. The loop does not run yet.
func (s *Service) takeOver() error {
	p := s.before
	t := taking{carried: carried{svc: s, nobody: &miner{svc: s, pos: -1}}}
	if err := t.takeAll(p); err != nil {
		p.Refuse(err)
		t.close()
		return fmt.Errorf("not taken over: %w", err)
	}
	s.now = time.Now()
	s.goOn(&t.carried)
	p.GoOn()
	s.log.Info().Int("sessions", len(s.miners)).Int("links", t.up).Msg("taken over from another process")
	return nil
}

// taking is a takeOver under way.
type taking struct {
	carried
	conns []poll.Link // that passed; their place in carried is known later
	up    int         // links
}

// close closes what the other process serves still.
func (t *taking) close() {
	for _, conn := range t.conns {
		conn.Close()
	}
}

// takeAll takes what the other process has, which has nothing more when it returns.
func (t *taking) takeAll(p *upgrade.Predecessor) error {
	version, err := t.svc.agree(p.Settings)
	if err != nil {
		return err
	}
	w := upgrade.NewWriter(0, time.Now(), nil)
	upgrade.Uint(w, &version)
	if err := p.Ready(w.Bytes()); err != nil {
		return err
	}
	for taken := false; !taken; {
		m, err := p.Receive()
		if err != nil {
			return err
		}
		r := upgrade.NewReader(version, time.Now().UTC(), m.Body)
		switch m.Kind {
		case messageSeen:
			var some seenShares
			if some.code(r); r.Err() == nil {
				t.svc.checker.seen.restore(some)
			}
		case messageConns:
			err = t.takeConns(&m)
		case messageState:
			taken = true
			err = t.takeState(r)
		default:
			err = fmt.Errorf("message %d does not belong here", m.Kind)
		}
		m.Close()
		if err = errors.Join(err, r.Err()); err != nil {
			return err
		}
	}
	return p.Taken()
}

func (t *taking) takeConns(m *upgrade.Message) error {
	for len(m.FDs) > 0 {
		conn, err := poll.Passed(m.FDs[0])
		if err != nil {
			return err
		}
		m.FDs = m.FDs[1:]
		t.conns = append(t.conns, conn)
	}
	return nil
}

// takeState has s be what the other process is. Of the connections nothing is read, and nothing written.
func (t *taking) takeState(r *upgrade.Codec) error {
	s := t.svc
	if t.code(r); r.Err() != nil {
		return r.Err()
	}
	owners := t.owners()
	if len(owners) != len(t.conns) {
		return fmt.Errorf("%w: %d connections for %d", upgrade.ErrMalformed, len(t.conns), len(owners))
	}
	for i, o := range owners {
		*o.conn = t.conns[i]
		if err := t.conns[i].Attach(s.loop, o.Owner); err != nil {
			return err
		}
	}
	for _, a := range t.accounts.all {
		s.accounts[a.name] = a
	}
	for _, l := range t.links.all {
		t.restoreLink(l)
	}
	for i, m := range t.miners.all {
		m.pos = i
		s.restoreMiner(m)
	}
	s.miners = t.miners.all
	return nil
}

// restoreLink has others know a link as they do when it comes up, or breaks.
func (t *taking) restoreLink(l *link) {
	s := t.svc
	s.held += len(l.late)
	if l.over {
		return
	}
	t.up++
	l.acct.links[l] = struct{}{}
	l.conn.Want(true, l.outbox.Len() > 0)
	s.metrics.links.WithLabelValues(l.addr(), l.protocol()).Inc()
}

// restoreMiner has others know a miner as they do when it has logged in.
func (s *Service) restoreMiner(m *miner) {
	m.conn.Want(!m.closing, m.outbox.Len() > 0)
	if m.subscribed {
		s.numbers.claim(m.number)
	}
	if r := m.relay; r != nil {
		s.relays++
		s.metrics.relays.Inc()
		r.cancel = func() {}
		if r.line != nil {
			r.line.Want(!m.closing, r.outbox.Len() > 0)
		}
	}
	if m.acct == nil {
		return
	}
	s.metrics.miners.Inc()
	m.acct.miners[m] = struct{}{}
	m.goal.miners++
	m.goal.load += m.load
	if m.link != nil {
		m.link.miners[m.number] = m
	}
	if !m.waiting.IsZero() {
		s.metrics.waiting.Inc()
	}
	if m.silent {
		s.silent++
	}
}

// goOn is the first that the proxy does with what was another process'. It goes over to its configuration as it does to
// one that is new.
func (s *Service) goOn(t *carried) {
	s.shunned.keep(s.routes)
	obsolete := t.assign()
	for _, a := range t.accounts.all {
		a.adopt()
	}
	for _, l := range obsolete {
		l.replace()
	}
	for _, m := range slices.Clone(s.miners) {
		if m.relay != nil && m.relay.line == nil {
			m.relay.start()
		}
		m.settle()
	}
	s.tick()
}

// assign gives each slot its link, and returns others of theirs: a slot that goes over to another pool has two for a
// moment, of which the later one is what it wants.
func (t *carried) assign() (obsolete []*link) {
	up := slices.DeleteFunc(slices.Clone(t.links.all), func(l *link) bool { return l.over || l.replaced || l.slot.ended })
	slices.SortFunc(up, func(a, b *link) int { return cmp.Compare(b.began.UnixNano(), a.began.UnixNano()) })
	for _, l := range up {
		if l.slot.first == nil {
			l.slot.first = l
		} else {
			obsolete = append(obsolete, l)
		}
	}
	return obsolete
}
