package agentproxy

import (
	"errors"
	"slices"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
	"btcpool/internal/share"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/upgrade"
	"btcpool/internal/vardiff"
)

// What the proxy is to another process, field by field. A field that comes with a later version is coded if c.Version
// has it; stateVersion grows with it, and oldestState says which are still written and read.
const stateVersion, oldestState uint32 = 1, 1

// Bounds of what is read.
const (
	maxText     = 64 << 10
	maxPending  = 1 << 20
	maxWhole    = 1 << 20 // of a part of a coinbase
	maxBranch   = 1 << 10
	maxObjects  = 1 << 22
	maxGoals    = 1 << 12
	maxToldAt   = 1 << 12
	maxRejects  = 1 << 8
	maxQuestion = 1 << 16 // of a link
)

// table is all there is of a kind. Whoever refers to one of it says its place.
type table[T any] struct {
	all    []*T
	places map[*T]uint32 // from 1
}

// add reports whether v is new.
func (t *table[T]) add(v *T) bool {
	if _, known := t.places[v]; known {
		return false
	}
	if t.places == nil {
		t.places = make(map[*T]uint32)
	}
	t.all = append(t.all, v)
	t.places[v] = uint32(len(t.all))
	return true
}

// size is how many there are: when they are read, each can be referred to from then on.
func (t *table[T]) size(c *upgrade.Codec, bare func() *T) {
	n := uint32(len(t.all))
	if upgrade.Uint(c, &n); !c.Reading() || c.Err() != nil {
		return
	}
	if n > maxObjects || int(n) > c.Left() {
		c.Fail("%d are too many", n)
		return
	}
	for range n {
		t.add(bare())
	}
}

// ref is for one of the table, or nil: one that is not in the table is nobody who passes.
func (t *table[T]) ref(c *upgrade.Codec, v **T) {
	at := t.places[*v]
	upgrade.Uint(c, &at)
	switch {
	case !c.Reading() || c.Err() != nil:
	case at == 0:
		*v = nil
	case int(at) > len(t.all):
		c.Fail("%d of %d", at, len(t.all))
	default:
		*v = t.all[at-1]
	}
}

// must is ref for what cannot be missing.
func (t *table[T]) must(c *upgrade.Codec, v **T) {
	if t.ref(c, v); c.Reading() && c.Err() == nil && *v == nil {
		c.Fail("something is missing")
	}
}

// carried is all that passes to another process, but for shares that were seen.
type carried struct {
	svc      *Service
	accounts table[account]
	goals    table[goal]
	links    table[link]
	works    table[work]
	miners   table[miner]
	lines    []*relay // that have one
	nobody   *miner   // whose shares are those of machines that have left
}

func (t *carried) code(c *upgrade.Codec) {
	s := t.svc
	t.accounts.size(c, s.bareAccount)
	t.links.size(c, bareLink)
	t.works.size(c, func() *work { return new(work) })
	t.miners.size(c, func() *miner { return &miner{svc: s} })
	each(c, t.accounts.all, t.codeAccount)
	each(c, t.links.all, t.codeLink)
	each(c, t.works.all, t.codeWork)
	each(c, t.miners.all, t.codeMiner)

	upgrade.Map(c, &s.masks, maxObjects, text, upgrade.Uint[uint32])
	agents := s.dialer.known()
	if upgrade.List(c, &agents, maxObjects, text); c.Reading() {
		s.dialer.learn(agents)
	}
	s.shunned.code(c)
	upgrade.List(c, &s.gone.workers, maxGone, t.codeWorker)
	codeFewLines(c, &s.silences)
	codeFewLines(c, &s.returns)
	if upgrade.Int(c, &s.numbers.next); s.numbers.next < 0 || s.numbers.next >= maxMiners {
		c.Fail("number %d is next", s.numbers.next)
		s.numbers.next = 0
	}
	if c.Reading() && c.Err() == nil {
		t.check(c)
	}
}

func each[T any](c *upgrade.Codec, all []*T, code func(*upgrade.Codec, *T)) {
	for _, v := range all {
		if c.Err() != nil {
			return
		}
		code(c, v)
	}
}

// check refuses what no proxy has, and what would be a fault later.
func (t *carried) check(c *upgrade.Codec) {
	for _, a := range t.accounts.all {
		if slices.ContainsFunc(a.broken, func(l *link) bool { return !l.over || l.acct != a }) {
			c.Fail("a broken link is none")
		}
	}
	for _, l := range t.links.all {
		if !l.over && (!l.up() || l.work.link != l) {
			c.Fail("a link cannot be mined on")
		}
		steps := 0
		for heir := l.heir; heir != nil; heir = heir.heir {
			if steps++; steps > len(t.links.all) {
				c.Fail("links are each other's heirs")
				return
			}
		}
		for number, g := range l.guests {
			if g.miner.number != number || g.miner.acct != l.acct || l.over {
				c.Fail("a guest is none")
			}
		}
	}
	numbers := make(map[uint16]bool)
	for _, m := range t.miners.all {
		switch {
		case m.subscribed && (numbers[m.number] || int(m.number) >= maxMiners):
			c.Fail("number %d", m.number)
		case (m.acct == nil) != (m.goal == nil), m.acct != nil && (m.goal.acct != m.acct || !m.subscribed):
			c.Fail("a miner counts for nobody")
		case m.link != nil && (m.link.over || m.link.acct != m.acct):
			c.Fail("a miner is on a link of others")
		}
		numbers[m.number] = numbers[m.number] || m.subscribed
	}
}

func text(c *upgrade.Codec, v *string) { c.Text(v, maxText) }

// codeError is for what it says: of what kind it is, is lost.
func codeError(c *upgrade.Codec, v *error) {
	said := ""
	has := *v != nil
	if has {
		said = (*v).Error()
		said = said[:min(len(said), maxText)]
	}
	if c.Bool(&has); has {
		text(c, &said)
	}
	if c.Reading() {
		if *v = nil; has {
			*v = errors.New(said)
		}
	}
}

func codePoolKey(c *upgrade.Codec, k *poolKey) {
	text(c, &k.addr)
	text(c, &k.account)
}

func codeTarget(c *upgrade.Codec, t *target) {
	text(c, &t.Addr)
	text(c, &t.Account)
	c.Bool(&t.TLS)
	c.Bool(&t.TLSSkipVerify)
	text(c, (*string)(&t.Protocol))
	c.Bool(&t.NoExtensions)
	text(c, &t.PayoutAddress)
	c.Float(&t.PayoutShare)
	c.Float(&t.Weight)
	c.Bool(&t.verdicts)
}

func (t *carried) codeAccount(c *upgrade.Codec, a *account) {
	text(c, &a.name)
	upgrade.List(c, &a.goals, maxGoals, func(c *upgrade.Codec, g **goal) { t.codeGoal(c, a, g) })
	c.Time(&a.left)
	c.Time(&a.away)
	upgrade.Maybe(c, &a.last, codeWhole)
	t.works.ref(c, &a.standIn)
	upgrade.Map(c, &a.errs, maxObjects, codePoolKey, codeError)
	c.Float(&a.mean)
	upgrade.List(c, &a.broken, maxObjects, t.links.must)
}

// codeGoal is for what a goal is known by. What it is made by is the configuration's.
func (t *carried) codeGoal(c *upgrade.Codec, a *account, v **goal) {
	var main target
	var slots uint16
	if !c.Reading() {
		main, slots = (*v).main(), uint16(len((*v).slots))
	}
	codeTarget(c, &main)
	if upgrade.Uint(c, &slots); !c.Reading() || c.Err() != nil {
		return
	}
	if slots > maxLinks {
		c.Fail("%d links", slots)
		return
	}
	g := bareGoal(a, main)
	for i := range slots {
		g.slots = append(g.slots, newSlot(g, int(i)))
	}
	t.goals.add(g)
	*v = g
}

func bareGoal(a *account, main target) *goal {
	g := &goal{acct: a}
	g.plan.Store(&plan{targets: []target{main}})
	return g
}

func (t *carried) codeLink(c *upgrade.Codec, l *link) {
	t.accounts.must(c, &l.acct)
	codeTarget(c, &l.target)
	t.codeSlot(c, l)
	c.Bool(&l.agent)
	text(c, &l.via)
	c.Data(&l.pending, maxPending)
	l.outbox.Code(c, maxUnsent)
	c.Bool(&l.login.subscribed)
	c.Bool(&l.login.authorized)
	c.Time(&l.began)
	c.Time(&l.heard)
	c.Bool(&l.over)
	c.Data(&l.extraNonce1, maxText)
	if upgrade.Int(c, &l.nonceBytes); l.nonceBytes < 0 || l.nonceBytes > maxText {
		c.Fail("extranonce2 of %d bytes", l.nonceBytes)
	}
	upgrade.Uint(c, &l.versionBits)
	c.Float(&l.difficulty)
	t.works.ref(c, &l.work)
	c.Bool(&l.replaced)
	upgrade.Map(c, &l.guests, maxMiners, upgrade.Uint[uint16], func(c *upgrade.Codec, g *guest) {
		t.miners.must(c, &g.miner)
		c.Float(&g.difficulty)
		c.Time(&g.until)
	})
	c.Bool(&l.sessions)
	text(c, &l.key)
	text(c, &l.session)
	t.links.ref(c, &l.heir)
	c.Time(&l.brokeAt)
	upgrade.List(c, &l.late, maxObjects, t.codeQuestion)
	upgrade.Uint(c, &l.submits)
	c.Bool(&l.batches)
	c.Bool(&l.verdicts)
	upgrade.Map(c, &l.workers, maxObjects, text, func(*upgrade.Codec, *struct{}) {})
	c.Bool(&l.named)
	upgrade.Map(c, &l.questions, maxQuestion, upgrade.Uint[uint32], t.codeQuestion)
	c.Time(&l.asked)
	c.Time(&l.pinged)
	upgrade.Int(c, &l.roundTrip)
	upgrade.Int(c, &l.bytesIn)
	upgrade.Int(c, &l.bytesOut)
	if !c.Reading() || c.Err() != nil {
		return
	}
	if close(l.ready); l.over {
		close(l.ended)
	}
}

// codeSlot is for whose the link is. It may be that of nobody any more.
func (t *carried) codeSlot(c *upgrade.Codec, l *link) {
	var g *goal
	at := -1
	if !c.Reading() {
		g = l.slot.goal
		at = slices.Index(g.slots, l.slot)
	}
	t.goals.ref(c, &g)
	if upgrade.Int(c, &at); !c.Reading() || c.Err() != nil {
		return
	}
	switch {
	case g == nil || at < 0:
		l.slot = newSlot(bareGoal(l.acct, l.target), 0)
		l.slot.ended = true
	case at >= len(g.slots) || g.acct != l.acct:
		c.Fail("link %d of %d", at, len(g.slots))
	default:
		l.slot = g.slots[at]
	}
}

func (t *carried) codeQuestion(c *upgrade.Codec, q *question) {
	if t.miners.ref(c, &q.miner); q.miner == nil {
		q.miner = t.nobody
	}
	c.Data(&q.id, maxText)
	c.Float(&q.hashes)
	c.Time(&q.at)
	t.works.must(c, &q.work)
	upgrade.Uint(c, &q.extraNonce2)
	upgrade.Uint(c, &q.time)
	upgrade.Uint(c, &q.nonce)
	upgrade.Uint(c, &q.versionBits)
	c.Bool(&q.rolled)
	c.Bool(&q.block)
	upgrade.Uint(c, &q.tries)
}

func (t *carried) codeWork(c *upgrade.Codec, w *work) {
	t.links.ref(c, &w.link)
	if c.Reading() {
		w.whole = new(job.StratumJob)
	}
	codeWhole(c, w.whole)
	c.Data(&w.id, maxText)
	upgrade.Uint(c, &w.number)
	c.Time(&w.since)
	if c.Reading() && c.Err() == nil {
		w.derive()
	}
}

// codeWhole is for what minersJob sets.
func codeWhole(c *upgrade.Codec, j *job.StratumJob) {
	hash := func(c *upgrade.Codec, h *chainhash.Hash) { c.Fixed(h[:]) }
	hash(c, &j.PrevHash)
	c.Data(&j.Coinbase1, maxWhole)
	c.Data(&j.Coinbase2, maxWhole)
	upgrade.List(c, &j.MerkleBranch, maxBranch, hash)
	upgrade.Int(c, &j.Version)
	upgrade.Uint(c, &j.Bits)
	upgrade.Uint(c, &j.Time)
}

func (t *carried) codeMiner(c *upgrade.Codec, m *miner) {
	c.Addr(&m.ip)
	codeV1(c, &m.state)
	upgrade.Maybe(c, &m.relay, func(c *upgrade.Codec, r *relay) { t.codeRelay(c, m, r) })
	upgrade.Uint(c, &m.number)
	c.Bool(&m.spoken)
	c.Bool(&m.subscribed)
	c.Bool(&m.loggedIn)
	text(c, &m.software)
	text(c, &m.accountName)
	text(c, &m.worker)
	t.accounts.ref(c, &m.acct)
	t.goals.ref(c, &m.goal)
	c.Float(&m.load)
	t.links.ref(c, &m.link)
	c.Time(&m.waiting)
	c.Bool(&m.rolls)
	upgrade.Uint(c, &m.misrolled)
	upgrade.Uint(c, &m.wantedBits)
	upgrade.Uint(c, &m.toldBits)
	upgrade.Int(c, &m.rolled)
	c.Time(&m.reconnected)
	c.Float(&m.difficulty)
	upgrade.Maybe(c, &m.own, codeVardiff)
	c.Bool(&m.retarget)
	c.Float(&m.told)
	upgrade.List(c, &m.jobs, maxSentJobs, func(c *upgrade.Codec, j *sentJob) {
		t.works.must(c, &j.work)
		upgrade.Uint(c, &j.number)
		upgrade.Uint(c, &j.later)
	})
	upgrade.Uint(c, &m.next)
	c.Time(&m.heardOf)
	upgrade.List(c, &m.toldAt, maxToldAt, func(c *upgrade.Codec, t *toldDifficulty) {
		upgrade.Uint(c, &t.from)
		c.Float(&t.difficulty)
		c.Float(&t.pool)
	})
	c.Data(&m.pending, maxPending)
	m.outbox.Code(c, maxUnsent)
	c.Time(&m.readBy)
	c.Bool(&m.closing)
	c.Bool(&m.cut)
	c.Bool(&m.silent)
	codeError(c, &m.why)
	upgrade.Int(c, &m.junk)
	codeCounts(c, &m.counts)
	upgrade.Maybe(c, &m.before, codeRecord)
	c.Time(&m.linked)
}

func codeV1(c *upgrade.Codec, s *v1.State) {
	if upgrade.Uint(c, &s.ExtraNonce2Size); s.ExtraNonce2Size > job.Extranonce2Size {
		c.Fail("extranonce2 of %d bytes", s.ExtraNonce2Size)
		s.ExtraNonce2Size = 0
	}
	c.Bool(&s.UniqueJobIDs)
	c.Bool(&s.Named)
	upgrade.Int(c, &s.Skip)
	c.Bool(&s.Responses)
	c.Bool(&s.SmallDifficulties)
	upgrade.Uint(c, &s.Submits)
	c.Data(&s.LoginID, maxText)
	c.Bool(&s.Unclear)
}

func codeDifficulty(c *upgrade.Codec, d *bitcoin.Difficulty) {
	if upgrade.Int(c, d); *d < bitcoin.MinDifficulty || *d > bitcoin.MaxDifficulty {
		c.Fail("difficulty 2^%d", *d)
		*d = 0
	}
}

func codeVardiff(c *upgrade.Codec, s *vardiff.State) {
	codeDifficulty(c, &s.Difficulty)
	codeDifficulty(c, &s.Floor)
	if upgrade.Int(c, &s.Level); s.Level < 0 || int(s.Level) > len(vardiff.UsualLevels()) {
		c.Fail("level %d", s.Level)
		s.Level = 0
	}
	c.Bool(&s.Known)
	c.Bool(&s.Silenced)
	c.Time(&s.Since)
	c.Time(&s.Last)
	upgrade.Uint(c, &s.Shares)
	c.Float(&s.Weight)
	c.Time(&s.Block)
	c.Float(&s.BlockWeight)
}

func codeCounts(c *upgrade.Codec, v *counts) {
	c.Time(&v.since)
	c.Time(&v.lastShare)
	upgrade.Uint(c, &v.accepted)
	upgrade.Uint(c, &v.easy)
	upgrade.Uint(c, &v.rejected)
	upgrade.List(c, &v.rejects, maxRejects, func(c *upgrade.Codec, r *rejects) {
		codeStatus(c, &r.status)
		upgrade.Uint(c, &r.shares)
	})
	c.Float(&v.work)
	c.Float(&v.hashes.sum)
	c.Time(&v.hashes.at)
	c.Time(&v.hashes.since)
}

func codeStatus(c *upgrade.Codec, s *share.Status) { upgrade.Int(c, s) }

func codeRecord(c *upgrade.Codec, r *record) {
	c.Time(&r.last)
	c.Float(&r.rate)
	c.Time(&r.reconnected)
}

// codeRelay is for a conversation of another proxy. One that no pool has been found for yet begins again with that.
func (t *carried) codeRelay(c *upgrade.Codec, m *miner, r *relay) {
	reached := r.line != nil
	c.Bool(&reached)
	text(c, &r.pool)
	r.outbox.Code(c, maxUnsent)
	c.Data(&r.early, 2*maxPoolLine)
	if !c.Reading() {
		return
	}
	if r.agent = m; reached {
		t.lines = append(t.lines, r)
	}
}

func (t *carried) codeWorker(c *upgrade.Codec, w *worker) {
	text(c, &w.Account)
	text(c, &w.Name)
	text(c, &w.IP)
	text(c, &w.Software)
	c.Bool(&w.Online)
	c.Bool(&w.Silent)
	c.Time(&w.Since)
	upgrade.Maybe(c, &w.LastShare, (*upgrade.Codec).Time)
	upgrade.Maybe(c, &w.Hashrate, (*upgrade.Codec).Float)
	c.Float(&w.Difficulty)
	upgrade.Uint(c, &w.Accepted)
	upgrade.Uint(c, &w.Easy)
	upgrade.Uint(c, &w.Rejected)
	upgrade.Map(c, &w.Rejects, maxRejects, text, upgrade.Uint[uint64])
	upgrade.Maybe(c, &w.Pool, text)
	c.Time(&w.left)
	text(c, &w.login)
	t.goals.ref(c, &w.goal)
	upgrade.Maybe(c, &w.record, codeRecord)
}

// code is for who is shunned, and for how long. One that does not do better is shunned for a short time first again.
func (s *shunned) code(c *upgrade.Codec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	upgrade.Map(c, &s.of, maxObjects, codeTarget, func(c *upgrade.Codec, v **shun) {
		if c.Reading() {
			*v = &shun{pauses: shunPace.Pauses()}
		}
		codeError(c, &(*v).why)
		c.Time(&(*v).until)
	})
}

func codeFewLines(c *upgrade.Codec, f *fewLines) {
	c.Time(&f.began)
	upgrade.Int(c, &f.lines)
	upgrade.Int(c, &f.more)
}

// Generations of shares that were seen.
const (
	seenOld   uint8 = iota
	seenYoung       // before seenFresh are sent
	seenFresh       // came since
)

// seenShares are some of the shares that were seen.
type seenShares struct {
	generation uint8
	keys       []uint64
}

// seenChunk is how many shares are told of in one message.
const seenChunk = 1 << 15

func (v *seenShares) code(c *upgrade.Codec) {
	upgrade.Uint(c, &v.generation)
	upgrade.List(c, &v.keys, seenChunk, upgrade.Uint[uint64])
}

// settings are what both processes must agree about.
type settings struct {
	newest, oldest uint32 // versions of the state's format
	multiUser      bool
}

func (v *settings) code(c *upgrade.Codec) {
	upgrade.Uint(c, &v.newest)
	upgrade.Uint(c, &v.oldest)
	c.Bool(&v.multiUser)
}
