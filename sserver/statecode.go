package sserver

import (
	"btcpool/internal/bitcoin"
	"btcpool/internal/guard"
	"btcpool/internal/job"
	v1 "btcpool/internal/stratum/v1"
	"btcpool/internal/upgrade"
	"btcpool/internal/vardiff"
)

// What sessions are to another process, field by field. A field that comes with a later version is coded if
// c.Version has it; stateVersion grows with it, and oldestState says which are still written and read.
const stateVersion, oldestState uint32 = 5, 1

const (
	// withChains is the version from which on there may be several chains. To an older one all is of the first.
	withChains = 2
	// withAhead is the version from which on sessions go ahead.
	withAhead = 3
	// withSubPools is the version from which on jobs may have several coinbases. To an older one nobody passes who was
	// told another than the server's: its shares would be judged by that.
	withSubPools = 4
	// withGrandPools is the version from which on a client may serve a pool of its own, which does not pass to an older
	// one.
	withGrandPools = 5
)

const (
	maxText        = 64 << 10
	maxFarm        = 1 << 16
	maxTold        = 4096
	maxPending     = 1 << 20
	maxUnsentMoved = 1 << 20
)

func text(c *upgrade.Codec, v *string) { c.Text(v, maxText) }

func difficulty(c *upgrade.Codec, d *bitcoin.Difficulty) {
	if upgrade.Int(c, d); *d < bitcoin.MinDifficulty || *d > bitcoin.MaxDifficulty {
		c.Fail("difficulty 2^%d", *d)
		*d = 0
	}
}

func (s *state) code(c *upgrade.Codec) {
	if upgrade.Int(c, &s.Phase); s.Phase < 0 || s.Phase >= phases {
		c.Fail("phase %d", int(s.Phase))
		s.Phase = connected
	}
	upgrade.Uint(c, &s.ID)
	c.Addr(&s.IP)
	text(c, &s.Agent)
	c.Time(&s.Since)
	upgrade.List(c, &s.Workers, maxWorkers, codeWorker)
	if upgrade.SortedMap(c, &s.Names, 2*maxWorkers, text, upgrade.Int[int]); c.Reading() {
		for _, i := range s.Names {
			if i < 0 || i >= len(s.Workers) {
				c.Fail("worker %d of %d", i, len(s.Workers))
			}
		}
		if s.Phase == authorized && len(s.Workers) == 0 {
			c.Fail("nobody has logged in")
		}
	}
	upgrade.Uint(c, &s.VersionMask)
	c.Bool(&s.OwnFloor)
	c.Bool(&s.Wished)
	difficulty(c, &s.Wish)
	c.Bool(&s.Patient)
	codeV1(c, &s.V1)
	codeTally(c, &s.Tally)
	c.Float(&s.Pace.Credit)
	c.Time(&s.Pace.At)
	c.Bool(&s.Trusted)
	upgrade.Int(c, &s.Refused)
	if c.Version >= withGrandPools {
		c.Bool(&s.Grand)
	} else if s.Grand {
		c.Fail("a client with a pool of its own, which the other program does not know")
	}
	c.Bool(&s.Resumed)
	upgrade.Int(c, &s.BadInputs)
	c.Time(&s.BadSince)
	codeMiner(c, &s.Miner)
	upgrade.Maybe(c, &s.Farm, codeFarm)
	c.Bool(&s.Ready)
	codeChain(c, &s.Chain)
	if c.Version >= withSubPools {
		text(c, &s.SubPool)
	}
	upgrade.Uint(c, &s.Round)
	upgrade.Uint(c, &s.Tip)
	upgrade.List(c, &s.Jobs, maxSentJobs+1, codeSentJob)
	upgrade.Uint(c, &s.Next)
	upgrade.Maybe(c, &s.Question, codeQuestion)
	if c.Reading() && s.Tip != 0 && (len(s.Miner.Told) == 0 || len(s.Jobs) == 0) {
		c.Fail("a job without its difficulty")
	}
}

func codeWorker(c *upgrade.Codec, w *worker) {
	text(c, &w.Login)
	text(c, &w.UserName)
	upgrade.Int(c, &w.UserID)
	if c.Version >= withChains {
		upgrade.List(c, &w.Past, maxChains, func(c *upgrade.Codec, p *credit) {
			codeChain(c, &p.Chain)
			upgrade.Int(c, &p.UserID)
		})
	}
	text(c, &w.Name)
	upgrade.Int(c, &w.ID)
	codeConduct(c, &w.Conduct)
}

func codeConduct(c *upgrade.Codec, v *guard.Conduct) {
	upgrade.Int(c, &v.Shares)
	upgrade.Int(c, &v.Invalid)
	c.Bool(&v.Proven)
	c.Bool(&v.Doubtful)
	c.Time(&v.BarredUntil)
}

func codeV1(c *upgrade.Codec, s *v1.State) {
	upgrade.Uint(c, &s.ExtraNonce2Size)
	if n := s.ExtraNonce2Size; n > job.Extranonce2Size && (n != job.GrandExtranonce2Size || c.Version < withGrandPools) {
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

func codeTally(c *upgrade.Codec, t *tally) {
	upgrade.Uint(c, &t.Accepted)
	upgrade.Uint(c, &t.Rejected)
	upgrade.Int(c, &t.Last)
}

func codeMiner(c *upgrade.Codec, m *miner) {
	codeVardiff(c, &m.Difficulty)
	c.Bool(&m.Fixed)
	upgrade.List(c, &m.Told, maxTold, func(c *upgrade.Codec, t *told) {
		upgrade.Uint(c, &t.From)
		difficulty(c, &t.Difficulty)
	})
	upgrade.List(c, &m.Rejects.At, maxRejects, upgrade.Int[int64])
	upgrade.Int(c, &m.Rejects.Next)
	if n := len(m.Rejects.At); c.Reading() && (n != 0 && n != maxRejects || m.Rejects.Next < 0 || m.Rejects.Next >= maxRejects) {
		c.Fail("reject %d of %d", m.Rejects.Next, n)
	}
}

func codeVardiff(c *upgrade.Codec, s *vardiff.State) {
	difficulty(c, &s.Difficulty)
	difficulty(c, &s.Floor)
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

func codeSentJob(c *upgrade.Codec, j *sentJob) {
	upgrade.Uint(c, &j.ID)
	upgrade.Uint(c, &j.Number)
	upgrade.Uint(c, &j.Later)
	codeChain(c, &j.Chain)
	if c.Version >= withSubPools {
		upgrade.Uint(c, &j.Coinbase)
	} else if j.Coinbase != 0 {
		c.Fail("a sub-pool's job, which the other program does not know")
	}
}

// codeChain is for a chain by its index, which is the same in both processes.
func codeChain(c *upgrade.Codec, chain *uint8) {
	if c.Version < withChains {
		return
	}
	if upgrade.Uint(c, chain); *chain >= maxChains {
		c.Fail("chain %d", *chain)
		*chain = 0
	}
}

func codeFarm(c *upgrade.Codec, f *farm) {
	codeFarmMiners(c, &f.Miners)
	codeFarmMiners(c, &f.Past)
	upgrade.Uint(c, &f.From)
}

func codeFarmMiners(c *upgrade.Codec, all *map[uint16]*farmMiner) {
	upgrade.SortedMap(c, all, maxFarm, upgrade.Uint[uint16], func(c *upgrade.Codec, v **farmMiner) {
		if c.Reading() {
			*v = new(farmMiner)
		}
		m := *v
		codeMiner(c, &m.miner)
		codeWorker(c, &m.worker)
		codeTally(c, &m.Tally)
		text(c, &m.Agent)
		if c.Reading() && len(m.Told) == 0 {
			c.Fail("a miner without a difficulty")
		}
	})
}

func codeQuestion(c *upgrade.Codec, q *question) {
	codeWorker(c, &q.Worker)
	difficulty(c, &q.Wishes.Start)
	difficulty(c, &q.Wishes.Floor)
	c.Bool(&q.Wishes.HasStart)
	c.Bool(&q.Wishes.HasFloor)
	c.Bool(&q.Wishes.Unclear)
	if c.Version >= withChains {
		codeChain(c, &q.Chain)
		c.Bool(&q.ByNode)
	}
	upgrade.Uint(c, &q.Ends)
}

func codePast(c *upgrade.Codec, p *past) {
	codeMiner(c, &p.Miner)
	upgrade.List(c, &p.Jobs, maxSentJobs+1, codeSentJob)
	upgrade.Uint(c, &p.Next)
	has := p.Farm != nil
	if c.Bool(&has); has {
		codeFarmMiners(c, &p.Farm)
	}
}

// code is for all there is to know of which ids are free, and of who had them.
func (p *idPool) code(c *upgrade.Codec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	upgrade.Uint(c, &p.server)
	c.Fixed(p.secret[:])
	upgrade.Uint(c, &p.first)
	upgrade.Uint(c, &p.given)
	upgrade.List(c, &p.freed, 2*sessionIDs, func(c *upgrade.Codec, f *freedID) {
		upgrade.Uint(c, &f.id)
		c.Time(&f.at)
	})
	upgrade.Map(c, &p.claimed, 2*sessionIDs, upgrade.Uint[uint32], upgrade.Int[int])
	upgrade.Map(c, &p.pasts, maxPasts, upgrade.Uint[uint32], func(c *upgrade.Codec, h *heldPast) {
		codePast(c, &h.past)
		c.Addr(&h.ip)
		c.Time(&h.at)
	})
	if !c.Reading() {
		return
	}
	if p.first >= sessionIDs || p.given > sessionIDs {
		c.Fail("ids from %d, %d given", p.first, p.given)
	}
	p.miners = 0
	for _, h := range p.pasts {
		p.miners += len(h.Farm)
	}
}

// moved is a session on its way, with what its process knows of it besides.
type moved struct {
	*session
	listener uint32 // which of those that the old process named
}

func (m *moved) code(c *upgrade.Codec) {
	s := m.session
	upgrade.Uint(c, &m.listener)
	s.code(c)
	c.Bool(&s.admitted)
	c.Data(&s.pending, maxPending)
	s.outbox.Code(c, maxUnsentMoved)
	c.Time(&s.said)
	c.Time(&s.readBy)
	c.Time(&s.pausedUntil)
	upgrade.Int(c, &s.strange)
	upgrade.Int(c, &s.discard)
}
