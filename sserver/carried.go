package sserver

import (
	"slices"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/guard"
	"btcpool/internal/job"
	"btcpool/internal/registry"
	"btcpool/internal/spool"
	"btcpool/internal/upgrade"
)

const (
	maxJobText  = 16 << 20
	maxMemories = 1 << 22
	maxSpools   = 4 * maxChains
	// seenChunk is how many shares are told of in one message.
	seenChunk = 1 << 15
)

// shared is what belongs to no session.
type shared struct {
	instance string // that names the process to its twins: to them nothing has changed
	lease    registry.Estate
	books    []book // by chain
	ids      *idPool
	memories []guard.Memory
	board    *board // nil: users have no nodes
}

func (v *shared) code(c *upgrade.Codec) {
	text(c, &v.instance)
	v.lease.Code(c)
	if c.Version >= withChains {
		upgrade.List(c, &v.books, maxChains, func(c *upgrade.Codec, b *book) { b.code(c) })
	} else {
		if c.Reading() {
			v.books = make([]book, 1)
		}
		v.books[0].code(c)
	}
	v.ids.code(c)
	upgrade.List(c, &v.memories, maxMemories, func(c *upgrade.Codec, m *guard.Memory) { m.Code(c) })
	if c.Version >= withChains {
		upgrade.Maybe(c, &v.board, func(c *upgrade.Codec, b *board) { b.code(c) })
	}
}

// book is a jobBook on its way to another process. Rounds and tips keep their numbers, so that nobody is sent a job
// again.
type book struct {
	works []carriedWork // in the order of arrival
	left  [][chainhash.HashSize]byte
	tip   uint64
	since time.Time
	round uint64 // 0: none yet
	job   job.ID // of the round
	start time.Time
}

type carriedWork struct {
	text []byte
	made time.Time
	tip  uint64
}

func (v *book) code(c *upgrade.Codec) {
	upgrade.List(c, &v.works, maxWorks, func(c *upgrade.Codec, w *carriedWork) {
		c.Data(&w.text, maxJobText)
		c.Time(&w.made)
		upgrade.Uint(c, &w.tip)
	})
	upgrade.List(c, &v.left, maxLeft, func(c *upgrade.Codec, h *[chainhash.HashSize]byte) { c.Fixed(h[:]) })
	upgrade.Uint(c, &v.tip)
	c.Time(&v.since)
	upgrade.Uint(c, &v.round)
	upgrade.Uint(c, &v.job)
	c.Time(&v.start)
}

// carry returns what another process needs to go on with the jobs.
func (b *jobBook) carry() (v book) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range *b.works.Load() {
		v.works = append(v.works, carriedWork{w.AppendTo(nil), w.made, w.tip})
	}
	for _, h := range b.left {
		v.left = append(v.left, h)
	}
	v.tip = b.tip.Load()
	if since := b.since.Load(); since != nil {
		v.since = *since
	}
	if r := b.round.Load(); r != nil {
		v.round, v.job, v.start = r.number, r.work.ID, r.start
	}
	return v
}

// adopt has c go on with the jobs of another process. Those that came here alone come behind them.
func (c *chain) adopt(v book, seen map[seenOf]*shareSet, now time.Time) error {
	var works []*work
	for _, carried := range v.works {
		j, err := job.ParseStratumJob(carried.text)
		if err != nil {
			return err
		}
		w, err := c.jobs.work(j, c.mergedMining(j), carried.made)
		if err != nil {
			return err
		}
		w.tip = carried.tip
		if set := seen[seenOf{c.index, j.ID}]; set != nil {
			w.seen.takeFrom(set)
		}
		works = append(works, w)
	}
	for _, w := range c.jobs.replace(v, works) {
		if _, err := c.jobs.add(w.StratumJob, w.merged, now); err != nil {
			c.log.Debug().Err(err).Uint64("job", uint64(w.ID)).Msg("job not taken over")
		}
	}
	return nil
}

// replace makes works all that are known, and returns those that were and are not among them.
func (b *jobBook) replace(v book, works []*work) (others []*work) {
	b.mu.Lock()
	defer b.mu.Unlock()
	byID := make(map[job.ID]*work)
	for _, w := range works {
		byID[w.ID] = w
	}
	others = slices.DeleteFunc(slices.Clone(*b.works.Load()), func(w *work) bool { return byID[w.ID] != nil })
	b.left = nil
	for _, h := range v.left {
		b.left = append(b.left, h)
	}
	b.works.Store(&works)
	b.tip.Store(v.tip)
	b.since.Store(&v.since)
	b.round.Store(nil)
	if w := byID[v.job]; w != nil && v.round > 0 {
		b.round.Store(&round{number: v.round, work: w, start: v.start})
	}
	return others
}

// takeFrom makes the shares of other, which nobody uses, those of s, which nobody uses yet.
func (s *shareSet) takeFrom(other *shareSet) {
	for i := range s.parts {
		s.parts[i].keys = other.parts[i].keys
	}
}

// seenShares are some of the shares that were accepted of a job.
type seenShares struct {
	of   seenOf
	keys []shareKey
}

// seenOf is a chain's job.
type seenOf struct {
	chain uint8
	job   job.ID
}

func (v *seenShares) code(c *upgrade.Codec) {
	codeChain(c, &v.of.chain)
	upgrade.Uint(c, &v.of.job)
	upgrade.List(c, &v.keys, seenChunk, func(c *upgrade.Codec, k *shareKey) {
		if c.Version >= withGrandPools {
			upgrade.Uint(c, &k.extraNonce2[0])
		}
		last := uint64(k.extraNonce2[1])<<32 | uint64(k.extraNonce2[2])
		upgrade.Uint(c, &last)
		k.extraNonce2[1], k.extraNonce2[2] = uint32(last>>32), uint32(last)
		upgrade.Uint(c, &k.extraNonce1)
		upgrade.Uint(c, &k.time)
		upgrade.Uint(c, &k.nonce)
		upgrade.Uint(c, &k.versionBits)
	})
}

// listenerState is what both processes must agree about of a listener, whose sessions move.
type listenerState struct {
	name       string
	nonceBytes uint8
}

// chainState is what both processes must agree about of a chain, by whose index sessions and jobs know it.
type chainState struct {
	name    string
	dataDir string
	mined   bool // it has had a job
}

// settings are what both processes must agree about.
type settings struct {
	newest, oldest uint32 // versions of the state's format
	serverID       uint8
	lockPath       string          // of a leased id
	lease          registry.Estate // as it is now
	epoch          uint32          // of the shares
	dataDir        string          // a process writes there that both see
	listeners      []listenerState
	chains         []chainState
	grandPool      bool
}

func (v *settings) code(c *upgrade.Codec) {
	upgrade.Uint(c, &v.newest)
	upgrade.Uint(c, &v.oldest)
	upgrade.Uint(c, &v.serverID)
	text(c, &v.lockPath)
	v.lease.Code(c)
	upgrade.Uint(c, &v.epoch)
	text(c, &v.dataDir)
	upgrade.List(c, &v.listeners, upgrade.MaxFDs, func(c *upgrade.Codec, l *listenerState) {
		text(c, &l.name)
		upgrade.Uint(c, &l.nonceBytes)
	})
	if v.newest < withChains {
		v.chains = []chainState{{dataDir: v.dataDir, mined: true}}
		return
	}
	upgrade.List(c, &v.chains, maxChains, func(c *upgrade.Codec, s *chainState) {
		text(c, &s.name)
		text(c, &s.dataDir)
		c.Bool(&s.mined)
	})
	if v.newest >= withGrandPools {
		c.Bool(&v.grandPool)
	}
}

// readiness is what the new process says when it is ready.
type readiness struct {
	version uint32 // of the state's format
	epoch   uint32 // the least that its shares are to have; 0: any
}

func (v *readiness) code(c *upgrade.Codec) {
	upgrade.Uint(c, &v.version)
	upgrade.Uint(c, &v.epoch)
}

// batons are what is left of the spools, by their names.
type batons map[string]spool.Baton

func (v *batons) code(c *upgrade.Codec) {
	upgrade.Map(c, (*map[string]spool.Baton)(v), maxSpools, text, func(c *upgrade.Codec, b *spool.Baton) {
		upgrade.Uint(c, &b.Epoch)
		upgrade.Uint(c, &b.Segment)
	})
}
