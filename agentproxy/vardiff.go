package agentproxy

import (
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/vardiff"
)

// Vardiff gives machines difficulties of their own, by which their hashrates are known sooner than by the pool's. They
// are never above the pool's: work beyond that is paid by nobody.
type Vardiff struct {
	// ShareInterval is the wanted time between the shares of a machine; 0: they have the pool's difficulty.
	ShareInterval config.Duration `toml:"share_interval"`
	// AdjustPeriod is how far back shares count.
	AdjustPeriod config.Duration `toml:"diff_adjust_period"`
	// MinDifficulty is rounded up to a power of two.
	MinDifficulty float64 `toml:"min_difficulty"`
}

func (v Vardiff) on() bool { return v.ShareInterval > 0 }

// validate reports all faults, of which there are none while it is off.
func (v Vardiff) validate(checked bool) error {
	var faults config.Faults
	if v.ShareInterval == 0 {
		return nil
	}
	faults.AtLeast("share_interval", v.ShareInterval, time.Second)
	if !checked {
		faults.Addf("share_interval = %q: takes check_shares = true: shares below the pool's difficulty must not reach it", v.ShareInterval)
	}
	if v.AdjustPeriod < 10*v.ShareInterval {
		faults.Addf("diff_adjust_period = %q: must be at least 10 times share_interval = %q", v.AdjustPeriod, v.ShareInterval)
	}
	if !(v.MinDifficulty > 0 && v.MinDifficulty <= bitcoin.MaxDifficulty.Float()) {
		faults.Addf("min_difficulty = %v: must be more than 0, up to 2^%d", v.MinDifficulty, bitcoin.MaxDifficulty)
	}
	return faults.Err()
}

// policy is that of a machine whose pool has a difficulty.
func (v Vardiff) policy(ofPool float64) vardiff.Policy {
	highest := bitcoin.DifficultyAtLeast(ofPool)
	return vardiff.Policy{
		Interval: v.ShareInterval.Std(),
		Window:   v.AdjustPeriod.Std(),
		Min:      min(bitcoin.DifficultyAtLeast(v.MinDifficulty), highest),
		Max:      highest,
	}
}

// aim returns the difficulty that the miner is to have for w. With one of its own it begins at the pool's.
func (m *miner) aim(w *work) float64 {
	v := m.svc.cfg.Vardiff
	if !v.on() || w.link == nil {
		return m.difficulty
	}
	if m.own == nil {
		p := v.policy(m.difficulty)
		own := p.Start(p.Max, p.Min, m.svc.now)
		m.own = &own
	}
	return min(m.difficulty, m.own.Difficulty.Float())
}

// adjust lets the miner's difficulty follow a share that was good for the one it was told, or, with 0, the time that
// has passed. The miner hears of it with a job.
func (m *miner) adjust(told float64) {
	if m.own == nil || m.link == nil || !m.svc.cfg.Vardiff.on() {
		return
	}
	p := m.svc.cfg.Vardiff.policy(m.difficulty)
	changed := false
	if told > 0 {
		changed = p.Share(m.own, bitcoin.DifficultyAtLeast(told), m.svc.now)
	} else {
		changed = p.Check(m.own, m.svc.now)
	}
	m.retarget = m.retarget || changed
}

// tellDifficulty gives the miner its job once more if its difficulty is a new one.
func (m *miner) tellDifficulty() {
	if m.retarget && m.link != nil {
		m.announce(m.link.work, false)
	}
}
