package sserver

import (
	"maps"
	"math"
	"slices"

	"btcpool/internal/config"
	"btcpool/internal/job"
)

// SubPool says for whose coinbase miners work: a sub-pool has all jobs of the pool, with coinbases of its own.
type SubPool struct {
	// Name is that of one of jobmaker's sub_pools. "": none, the pool's own coinbase.
	Name string `toml:"name"`
	// ExtUserID is what shares for this coinbase have as the external user's id, 0 or less. 0: none.
	ExtUserID int32 `toml:"ext_user_id"`
}

func (p SubPool) validate() error {
	var faults config.Faults
	if p.Name != "" {
		faults.Value("name", p.Name, job.CheckSubPool(p.Name))
	} else if p.ExtUserID != 0 {
		faults.Addf("ext_user_id = %d: needs name", p.ExtUserID)
	}
	if p.ExtUserID > 0 {
		faults.Addf("ext_user_id = %d: must not be above 0, where users' ids are", p.ExtUserID)
	}
	return faults.Err()
}

// coinbase is one that miners may work for.
type coinbase struct {
	subPool string // "": the server's
	job.SubPool
	renditions renditions
}

// coinbases returns those of a job, in an order that any process finds.
func (b *jobBook) coinbases(j *job.StratumJob) []coinbase {
	all := []coinbase{{"", j.Own(), b.render(j)}}
	if !b.subPools {
		return all
	}
	for _, name := range slices.Sorted(maps.Keys(j.SubPools)) {
		parts := j.SubPools[name]
		if len(all) <= math.MaxUint8 && len(parts.Coinbase1) > 0 && len(parts.Coinbase2) > 0 {
			all = append(all, coinbase{name, parts, b.render(j.With(parts))})
		}
	}
	return all
}

// ownCoinbase returns j with the coinbase of the server's sub-pool, if it has one. Without it miners work for the pool:
// what they find is not lost.
func (c *chain) ownCoinbase(j *job.StratumJob) *job.StratumJob {
	name := c.cfg.SubPool.Name
	if name == "" {
		return j
	}
	parts, ok := j.SubPools[name]
	if !ok || len(parts.Coinbase1) == 0 || len(parts.Coinbase2) == 0 {
		c.metrics.noSubPool.WithLabelValues("server").Inc()
		c.rareLog.Error().Str("sub_pool", name).Uint64("job", uint64(j.ID)).Msg("job has no coinbase of this server's sub-pool: miners work for the pool's")
		return j
	}
	return j.With(parts)
}

// coinbaseOf returns the place of the coinbase that the session's miner is to work for. Without it it works for the
// server's.
func (s *session) coinbaseOf(w *work) uint8 {
	c := s.chain()
	if s.SubPool == "" || s.SubPool == c.cfg.SubPool.Name {
		return 0
	}
	for i := 1; i < len(w.coinbases); i++ {
		if w.coinbases[i].subPool == s.SubPool {
			return uint8(i)
		}
	}
	c.metrics.noSubPool.WithLabelValues("user").Inc()
	c.rareLog.Error().Str("sub_pool", s.SubPool).Str("user", s.Workers[0].UserName).Uint64("job", uint64(w.ID)).
		Msg("job has no coinbase of a user's sub-pool: its miners work for the server's")
	return 0
}

// takeSubPool has the jobs to come be for a sub-pool, and reports whether it is another than before.
func (s *session) takeSubPool(name string) (changed bool) {
	changed = name != s.SubPool
	s.SubPool = name
	return changed
}
