// Package vardiff decides the difficulty of a miner's shares from the shares it
// sends: pure functions of samples and time.
//
// The difficulty changes when the shares since the last change say, with good confidence, that their rate is off the
// target by more than about half a step of two; and then by as many steps as they say. So a steady miner is left alone
// however its luck runs, and a start far off takes no more changes than one near by. A burst and silence cut off the
// history that would hide them.
package vardiff

import (
	"math"
	"time"

	"btcpool/internal/bitcoin"
)

// Policy says what to aim at. Its methods may be called concurrently on different States.
type Policy struct {
	Interval time.Duration      // wanted between the shares of a miner
	Window   time.Duration      // how far back shares count; many Intervals
	Min, Max bitcoin.Difficulty // what any miner's may be
	Levels   []Level            // those of fast miners, slowest first; may be none
}

// Level has miners of a hashrate send shares more often, so that what they earn depends less on luck.
type Level struct {
	From  float64 // hashes per second, more than those of the level before
	Speed float64 // shares for one at Interval, from 1
}

// UsualLevels are those of btcpool.
func UsualLevels() []Level {
	const tera = 1e12
	return []Level{{16 * tera, 1.2}, {32 * tera, 1.5}, {64 * tera, 2}, {128 * tera, 3}, {256 * tera, 4}, {512 * tera, 6}}
}

// A miner moves up and down between levels when it is that far beyond the border between them.
const (
	levelUp   = 1.5
	levelDown = 0.75
)

// State is what is known of one miner: a plain value, made by Policy.Start. Difficulty is for reading; the rest is the
// policy's.
type State struct {
	Difficulty bitcoin.Difficulty
	Floor      bitcoin.Difficulty // the miner's own minimum

	Level    int8 // how many of Policy.Levels the miner has climbed
	Known    bool // the miner has sent a share at some time
	Silenced bool // the last change was for silence

	Since  time.Time // shares count from here on
	Last   time.Time // when the last share came, or Since
	Shares uint32    // how many came since Since
	Weight float64   // what they weigh, in shares of Difficulty

	Block       time.Time // start of the current block of raiseShares
	BlockWeight float64
}

const (
	// Rates above high or below low times the target are off. A step from there leads well inside.
	high = 1.6
	low  = 0.6
	// confidence is in standard deviations of the number of shares.
	confidence = 3.0
	// Fewer shares than raiseShares say too little about how far to raise.
	raiseShares = 24
	// A block of raiseShares that took less than this part of its time is a burst.
	burst = 1.0 / 8
	// A miner is lowered by silenceSteps after silence intervals without a share. One that never sent any is sooner, by
	// more, and the next time to difficulty 1: there every machine made for mining tells, and below some cannot work.
	// It falls to its minimum after unheard intervals more, which a machine that takes minutes to start does not need.
	silence, silenceSteps   = 20.0, 4
	newcomer, newcomerSteps = 6.0, 8
	unheard                 = 30.0
	// heaviest bounds what a share of an earlier, higher difficulty counts.
	heaviest = 4.0
)

// Start returns the state of a miner that begins with difficulty d and never wants less than floor, both kept within
// p.Min and p.Max.
func (p Policy) Start(d, floor bitcoin.Difficulty, now time.Time) State {
	s := State{Floor: min(max(floor, p.Min), p.Max)}
	p.restart(&s, d, now)
	return s
}

func (p Policy) restart(s *State, d bitcoin.Difficulty, now time.Time) {
	s.Difficulty = min(max(d, s.Floor), p.Max)
	s.Since, s.Last, s.Shares, s.Weight = now, now, 0, 0
	s.Block, s.BlockWeight = now, 0
}

// Share counts a share of difficulty d and reports whether s.Difficulty changed.
func (p Policy) Share(s *State, d bitcoin.Difficulty, now time.Time) bool {
	weight := min(math.Ldexp(1, int(d-s.Difficulty)), heaviest)
	s.Known, s.Silenced = true, false
	s.Last = now
	s.Shares++
	s.Weight += weight
	s.BlockWeight += weight
	if s.Shares%raiseShares == 0 {
		if p.expected(s, s.Block, now) < burst*s.BlockWeight {
			s.Since, s.Shares, s.Weight = s.Block, raiseShares, s.BlockWeight
		}
		s.Block, s.BlockWeight = now, 0
	}
	return p.Check(s, now)
}

// Check reports whether s.Difficulty changed because of the time that has passed. It is to be called about once in an
// interval.
func (p Policy) Check(s *State, now time.Time) bool {
	steps := p.steps(s, now)
	if d := int(s.Difficulty) + steps; steps != 0 {
		// Clamped before it is narrowed: a step may be larger than int8 holds.
		d = min(max(d, int(s.Floor)), int(p.Max))
		if bitcoin.Difficulty(d) != s.Difficulty {
			s.Silenced = s.Shares == 0
			p.restart(s, bitcoin.Difficulty(d), now)
			return true
		}
	}
	if age := now.Sub(s.Since); age > p.Window {
		s.Since = s.Since.Add(age / 2)
		s.Shares /= 2
		s.Weight /= 2
	}
	return false
}

// steps returns by how much the difficulty should change.
func (p Policy) steps(s *State, now time.Time) int {
	if s.Shares > 0 {
		rate := min(s.Weight/p.expected(s, s.Since, s.Last), 1)
		if p.expected(s, s.Last, now)*rate > silence {
			s.Since, s.Shares, s.Weight = s.Last, 0, 0
		}
	}
	if s.Shares >= raiseShares {
		s.Level = p.level(s, now)
	}
	expected := p.expected(s, s.Since, now)
	switch {
	case s.Shares == 0 && s.Known && expected > silence:
		return -silenceSteps
	case s.Shares == 0 && !s.Known && s.Difficulty <= 0 && expected > unheard:
		return int(p.Min) - int(p.Max)
	case s.Shares == 0 && !s.Known && s.Difficulty > 0 && expected > newcomer:
		if s.Silenced {
			return -int(s.Difficulty)
		}
		return -min(newcomerSteps, int(s.Difficulty))
	case s.Shares >= raiseShares && s.Weight > high*expected+confidence*math.Sqrt(high*expected):
		return int(math.Round(math.Log2(s.Weight / expected)))
	case s.Shares > 0 && s.Weight < low*expected-confidence*math.Sqrt(low*expected):
		return -int(math.Round(math.Log2(expected / max(s.Weight, 1))))
	}
	return 0
}

// level returns the level of a miner that has sent shares enough to know its hashrate.
func (p Policy) level(s *State, now time.Time) int8 {
	hashrate := math.Ldexp(s.Weight, int(s.Difficulty)+32) / max(now.Sub(s.Since).Seconds(), 1e-9)
	level := min(int(s.Level), len(p.Levels))
	for level < len(p.Levels) && hashrate >= levelUp*p.Levels[level].From {
		level++
	}
	for level > 0 && hashrate <= levelDown*p.Levels[level-1].From {
		level--
	}
	return int8(level)
}

// expected returns how many shares are wanted of s in a time, never zero.
func (p Policy) expected(s *State, from, to time.Time) float64 {
	speed := 1.0
	if level := min(int(s.Level), len(p.Levels)); level > 0 { // another policy may have had more
		speed = p.Levels[level-1].Speed
	}
	return speed * float64(max(to.Sub(from), time.Nanosecond)) / float64(p.Interval)
}
