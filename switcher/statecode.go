package switcher

import (
	"errors"
	"time"

	"btcpool/internal/guard"
	"btcpool/internal/registry"
	"btcpool/internal/upgrade"
)

// What a switcher is to another process, field by field. A field that comes with a later version is coded if c.Version has
// it; stateVersion grows with it, and oldestState says which are still written and read.
const stateVersion, oldestState uint32 = 1, 1

// Bounds of what is read.
const (
	maxText     = 64 << 10
	maxPending  = 1 << 20
	maxMany     = 1 << 22
	maxChains   = 1 << 12
	maxNonce    = 64 // bytes
	usersChunk  = 1 << 12
	maxMemories = 1 << 22
)

func text(c *upgrade.Codec, v *string) { c.Text(v, maxText) }

func data(c *upgrade.Codec, v *[]byte) { c.Data(v, maxText) }

// size is for that of an extranonce2.
func size(c *upgrade.Codec, v *int) {
	if upgrade.Int(c, v); *v < 0 || *v > maxNonce {
		c.Fail("extranonce2 of %d bytes", *v)
		*v = 0
	}
}

func (s *state) code(c *upgrade.Codec) {
	if upgrade.Int(c, &s.Phase); s.Phase < 0 || s.Phase >= phases {
		c.Fail("phase %d", int(s.Phase))
		s.Phase = connected
	}
	upgrade.Uint(c, &s.ID)
	c.Addr(&s.IP)
	c.Time(&s.Since)
	text(c, &s.Agent)
	c.Bool(&s.Farm)
	c.Bool(&s.Patient)
	data(c, &s.ExtraNonce1)
	size(c, &s.ExtraNonce2Size)
	c.Bool(&s.TakesExtraNonce)
	c.Bool(&s.Rolls)
	upgrade.Uint(c, &s.Wanted)
	upgrade.Uint(c, &s.Told)
	data(c, &s.Configure)
	data(c, &s.Difficulty)
	text(c, &s.Name.user)
	text(c, &s.Name.miner)
	text(c, &s.Typed)
	text(c, &s.Password)
	data(c, &s.LoginID)
	upgrade.List(c, &s.Others, maxOthers, codeWorker)
	text(c, &s.Suggestion.Method)
	text(c, &s.Suggestion.Params)
	text(c, &s.Chain)
	upgrade.Uint(c, &s.Marks)
	c.Float(&s.Pace.Credit)
	c.Time(&s.Pace.At)
	c.Bool(&s.Trusted)
}

func codeWorker(c *upgrade.Codec, w *worker) {
	text(c, &w.Name)
	text(c, &w.Password)
}

// dials reports whether a server is being reached. Another process begins with that again.
func (s *session) dials() bool { return s.next != nil && s.next.link == nil }

// code is for all of a session but its connections.
func (s *session) code(c *upgrade.Codec) {
	s.state.code(c)
	s.codeUpstream(c, &s.now)
	s.codeUpstream(c, &s.next)
	upgrade.List(c, &s.past, maxPast, s.codeUpstream)
	if c.Reading() && c.Err() == nil {
		s.to = s.srv.chain(s.Chain)
		if s.Phase >= joining && s.to == nil {
			c.Fail("chain %q", s.Chain)
		}
		for _, u := range s.past {
			if u == nil {
				c.Fail("no server")
			}
		}
	}
	s.srv.codeChain(c, &s.counted)
	s.srv.codeChain(c, &s.lastChain)
	c.Time(&s.moving)
	c.Time(&s.lost)
	retryAt := s.retryAt
	if s.dials() {
		retryAt = c.Now
	}
	if c.Time(&retryAt); c.Reading() {
		s.retryAt = retryAt
	}
	upgrade.Int(c, &s.tries)
	if s.tries < 0 {
		c.Fail("%d tries", s.tries)
		s.tries = 0
	}
	s.codeAvoid(c)
	c.Time(&s.sendAway)
	c.Bool(&s.used)
	c.Bool(&s.proxied)
	c.Bool(&s.spoken)
	c.Data(&s.pending, maxPending)
	s.outbox.Code(c, maxUnsent)
	c.Time(&s.readBy)
	upgrade.Int(c, &s.strange)
	upgrade.Int(c, &s.junk)
	c.Time(&s.junkAt)
	c.Time(&s.pausedTo)
	c.Bool(&s.admitted)
	c.Bool(&s.full)
}

// codeAvoid is for a server that is none to other chains, and to a configuration without it.
func (s *session) codeAvoid(c *upgrade.Codec) {
	var addr string
	if s.avoid != nil {
		addr = s.avoid.Addr
	}
	if text(c, &addr); !c.Reading() {
		return
	}
	if s.avoid = nil; s.to != nil {
		s.avoid = s.to.server(addr)
	}
}

func (s *Service) codeChain(c *upgrade.Codec, v **chain) {
	var name string
	if *v != nil {
		name = (*v).Name
	}
	if text(c, &name); !c.Reading() || c.Err() != nil {
		return
	}
	if *v = s.chain(name); *v == nil && name != "" {
		c.Fail("chain %q", name)
	}
}

// codeUpstream is for a connection to a server that has been reached, or none.
func (s *session) codeUpstream(c *upgrade.Codec, v **upstream) {
	has := *v != nil && (*v).link != nil
	if c.Bool(&has); !has || c.Err() != nil {
		return
	}
	if c.Reading() {
		*v = &upstream{session: s, loop: s.loop, cancel: func() {}}
	}
	u := *v
	s.srv.codeChain(c, &u.chain)
	var addr string
	if u.server != nil {
		addr = u.server.Addr
	}
	if text(c, &addr); c.Reading() && c.Err() == nil {
		if u.chain == nil {
			c.Fail("a server of no chain")
			return
		}
		if u.server = u.chain.server(addr); u.server == nil {
			u.server = u.chain.formerServer(addr)
		}
	}
	u.code(c)
	c.Data(&u.pending, maxPending)
	u.outbox.Code(c, maxUnsentUp)
	c.Time(&u.began)
	c.Time(&u.heard)
	c.Time(&u.until)
}

func (u *upState) code(c *upgrade.Codec) {
	upgrade.Uint(c, &u.ext.Mark)
	data(c, &u.ext.Coinbase1)
	inside := u.ext.ExtraNonce2 != nil
	c.Bool(&inside)
	if data(c, &u.ext.ExtraNonce2); inside && u.ext.ExtraNonce2 == nil {
		u.ext.ExtraNonce2 = []byte{}
	}
	data(c, &u.extraNonce1)
	size(c, &u.extraNonce2Size)
	c.Bool(&u.asIs)
	upgrade.Uint(c, &u.mask)
	c.Bool(&u.suffixed)
	c.Bool(&u.subscribed)
	c.Bool(&u.authorized)
	c.Bool(&u.working)
	c.Data(&u.difficulty, maxPending)
	c.Data(&u.early, maxPending)
	upgrade.Uint(c, &u.next)
	upgrade.Map(c, &u.questions, maxQuestions, upgrade.Uint[uint64], codeQuestion)
	if c.Reading() && u.next < firstNumber {
		c.Fail("request %d is next", u.next)
	}
}

func codeQuestion(c *upgrade.Codec, q *question) {
	c.Data(&q.id, maxPending)
	if upgrade.Uint(c, &q.kind); q.kind > askedAuthorize {
		c.Fail("question %d", q.kind)
	}
	codeWorker(c, &q.worker)
	c.Time(&q.at)
}

// code is for all there is to know of which ids are free.
func (p *idPool) code(c *upgrade.Codec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	upgrade.Uint(c, &p.server)
	if upgrade.Uint(c, &p.given); p.given > sessionIDs {
		c.Fail("%d ids given", p.given)
		p.given = 0
	}
	upgrade.List(c, &p.freed, sessionIDs, func(c *upgrade.Codec, f *freedID) {
		upgrade.Uint(c, &f.id)
		c.Time(&f.at)
	})
}

// serverState is what is known of a server, besides what sessions know.
type serverState struct {
	chain, addr  string
	mask         uint64
	fault        string // "": none
	since, until time.Time
}

func (v *serverState) code(c *upgrade.Codec) {
	text(c, &v.chain)
	text(c, &v.addr)
	upgrade.Uint(c, &v.mask)
	text(c, &v.fault)
	c.Time(&v.since)
	c.Time(&v.until)
}

func (s *server) carry(of string) serverState {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := serverState{chain: of, addr: s.Addr, mask: s.mask.Load(), since: s.since, until: s.until}
	if s.err != nil {
		v.fault = s.err.Error()
		v.fault = v.fault[:min(len(v.fault), maxText)]
	}
	return v
}

func (s *server) adopt(v serverState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mask.Store(v.mask)
	s.since, s.until = v.since, v.until
	if s.err = nil; v.fault != "" {
		s.err = errors.New(v.fault)
		s.up.Set(0)
		return
	}
	s.up.Set(1)
}

// shared is what belongs to no session.
type shared struct {
	lease    registry.Estate
	ids      *idPool
	memories []guard.Memory
	servers  []serverState
	spelt    map[string]string // users by their names in lower case
}

func (v *shared) code(c *upgrade.Codec) {
	v.lease.Code(c)
	v.ids.code(c)
	upgrade.List(c, &v.memories, maxMemories, func(c *upgrade.Codec, m *guard.Memory) { m.Code(c) })
	upgrade.List(c, &v.servers, maxMany, func(c *upgrade.Codec, s *serverState) { s.code(c) })
	upgrade.Map(c, &v.spelt, maxMany, text, text)
}

// settings are what both processes must agree about.
type settings struct {
	newest, oldest uint32 // versions of the state's format
	serverID       uint8
	lockPath       string          // of a leased id
	lease          registry.Estate // as it is now
	dataDir        string          // a process writes there that both see
	chains         []string
	zookeeper      bool // it answers
}

func (v *settings) code(c *upgrade.Codec) {
	upgrade.Uint(c, &v.newest)
	upgrade.Uint(c, &v.oldest)
	upgrade.Uint(c, &v.serverID)
	text(c, &v.lockPath)
	v.lease.Code(c)
	text(c, &v.dataDir)
	upgrade.List(c, &v.chains, maxChains, text)
	c.Bool(&v.zookeeper)
}
