package vardiff_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/testkit"
	"btcpool/internal/vardiff"
)

// asics is a pool's usual policy, with levels or without; small is for miners on processors and microcontrollers.
var (
	asics = vardiff.Policy{Interval: 10 * time.Second, Window: 15 * time.Minute, Min: 0, Max: bitcoin.MaxDifficulty}
	fleet = vardiff.Policy{Interval: 10 * time.Second, Window: 15 * time.Minute, Min: 0, Max: bitcoin.MaxDifficulty, Levels: vardiff.UsualLevels()}
	small = vardiff.Policy{Interval: 10 * time.Second, Window: 15 * time.Minute, Min: -16, Max: bitcoin.MaxDifficulty}
)

var epoch = time.Unix(1_700_000_000, 0)

// miner finds shares at random, as hashing does.
type miner struct {
	policy   vardiff.Policy
	hashrate float64 // per second
	rand     *rand.Rand
	state    vardiff.State
	now      time.Time
	shares   int
	changes  []time.Time
}

func newMiner(policy vardiff.Policy, hashrate float64, start bitcoin.Difficulty, seed uint64) *miner {
	if hashrate < 1e9 {
		policy.Min = small.Min
	}
	return &miner{
		policy:   policy,
		hashrate: hashrate,
		rand:     rand.New(rand.NewPCG(seed, uint64(hashrate))),
		state:    policy.Start(start, policy.Min, epoch),
		now:      epoch,
	}
}

// run mines for d, with a check in each interval.
func (m *miner) run(d time.Duration) {
	policy := m.policy
	end := m.now.Add(d)
	check := m.now.Add(policy.Interval)
	for m.now.Before(end) {
		changed := false
		meanSeconds := math.Ldexp(1, int(m.state.Difficulty)+32) / m.hashrate
		wait := m.rand.ExpFloat64() * meanSeconds
		if next := check.Sub(m.now); wait >= next.Seconds() {
			m.now = check
			check = check.Add(policy.Interval)
			changed = policy.Check(&m.state, m.now)
		} else {
			m.now = m.now.Add(time.Duration(wait * float64(time.Second)))
			m.shares++
			changed = policy.Share(&m.state, m.state.Difficulty, m.now)
		}
		if changed {
			m.changes = append(m.changes, m.now)
		}
	}
}

// interval returns how often the miner should find a share, as far as its level says.
func (m *miner) interval() time.Duration {
	speed := 1.0
	if m.state.Level > 0 {
		speed = m.policy.Levels[m.state.Level-1].Speed
	}
	return time.Duration(float64(m.policy.Interval) / speed)
}

// off returns how far the difficulty is from the ideal, in steps.
func (m *miner) off() float64 {
	ideal := math.Log2(m.hashrate*m.interval().Seconds()) - 32
	return float64(m.state.Difficulty) - ideal
}

// hashrates run from a microcontroller to the largest machine, in steps that put the ideal difficulty everywhere
// between two powers of two.
func hashrates() []float64 {
	all := []float64{1e9, 500e12}
	for h := 100e3; h < 2000e12; h *= 2.3 {
		all = append(all, h)
	}
	return all
}

func forPolicies(t *testing.T, test func(*testing.T, vardiff.Policy)) {
	for name, policy := range map[string]vardiff.Policy{"one interval": asics, "levels": fleet} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, policy)
		})
	}
}

func TestConvergesFromAnyStart(t *testing.T) {
	t.Parallel()
	forPolicies(t, func(t *testing.T, policy vardiff.Policy) {
		runs, unlucky := 0, 0
		for _, hashrate := range hashrates() {
			most := 4
			if hashrate < 1e9 { // first it is taken for a machine
				most = 6
			}
			for start := small.Min; start <= bitcoin.MaxDifficulty; start += 4 {
				for seed := range uint64(3) {
					m := newMiner(policy, hashrate, start, seed)
					m.run(30 * time.Minute)
					if len(m.changes) > most || math.Abs(m.off()) > 1.5 {
						t.Errorf("%.3g H/s from 2^%d, seed %d: %.2f steps off after %d changes", hashrate, start, seed, m.off(), len(m.changes))
					}
					if hashrate < 1e9 {
						continue
					}
					runs++
					if len(m.changes) > 3 {
						unlucky++
					}
				}
			}
		}
		if unlucky > runs/500 { // luck may take a change back
			t.Errorf("%d of %d miners needed more than 3 changes", unlucky, runs)
		}
	})
}

func TestSteadyMinerIsLeftAlone(t *testing.T) {
	t.Parallel()
	forPolicies(t, func(t *testing.T, policy vardiff.Policy) {
		const weeks = 2
		total, miners := 0, 0
		for i, hashrate := range hashrates() {
			if i%testkit.Thin > 0 {
				continue
			}
			miners++
			for seed := range uint64(weeks) {
				m := newMiner(policy, hashrate, 14, seed)
				m.run(time.Hour)
				m.changes = nil
				m.run(7 * 24 * time.Hour)
				total += len(m.changes)
				if len(m.changes) > 6 { // three strokes of luck, each taken back
					t.Errorf("%.3g H/s, seed %d: %d changes in a week", hashrate, seed, len(m.changes))
				}
			}
		}
		if 3*total > weeks*miners {
			t.Errorf("%d miners changed %d times in %d weeks", miners, total, weeks)
		}
	})
}

func TestSettlesNearTheInterval(t *testing.T) {
	t.Parallel()
	forPolicies(t, func(t *testing.T, policy vardiff.Policy) {
		for _, hashrate := range hashrates() {
			m := newMiner(policy, hashrate, 14, 1)
			m.run(time.Hour)
			m.shares = 0
			m.run(24 * time.Hour)
			interval := 24 * time.Hour / time.Duration(max(m.shares, 1))
			if interval < m.interval()/3 || interval > m.interval()*3 {
				t.Errorf("%.3g H/s: a share each %v", hashrate, interval)
			}
		}
	})
}

func TestReactions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		before  float64 // hashrate of the first 6 hours
		after   float64
		within  time.Duration // of the change
		changes int
		off     float64
	}{
		{name: "100 times faster", before: 1e12, after: 100e12, within: time.Minute, changes: 2, off: 1.5},
		{name: "4 times faster", before: 1e12, after: 4e12, within: 15 * time.Minute, changes: 2, off: 1.5},
		{name: "10 times slower", before: 10e12, after: 1e12, within: 30 * time.Minute, changes: 3, off: 1.5},
		{name: "1000 times slower", before: 100e12, after: 100e9, within: 30 * time.Minute, changes: 4, off: 1.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				m := newMiner(asics, test.before, 14, seed)
				m.run(6 * time.Hour)
				m.changes = nil
				m.hashrate = test.after
				m.run(test.within)
				if len(m.changes) > test.changes || math.Abs(m.off()) > test.off {
					t.Errorf("seed %d: %.2f steps off after %d changes", seed, m.off(), len(m.changes))
				}
			}
		})
	}
}

func TestSilenceLowersStepByStep(t *testing.T) {
	t.Parallel()
	m := newMiner(asics, 100e12, 14, 1)
	m.run(time.Hour)
	before := m.state.Difficulty
	m.hashrate = 1e-300
	m.changes = nil
	m.run(210 * time.Second)
	if got := before - m.state.Difficulty; got != 4 || len(m.changes) != 1 {
		t.Errorf("lowered by %d steps in %d changes", got, len(m.changes))
	}
}

// In-flight shares of the old difficulty must not be taken for a burst.
func TestOldSharesCountTheirWeight(t *testing.T) {
	t.Parallel()
	s := asics.Start(20, asics.Min, epoch)
	now := epoch
	for range 1000 {
		now = now.Add(time.Millisecond)
		if asics.Share(&s, 4, now) {
			t.Fatalf("changed to 2^%d", s.Difficulty)
		}
	}
}

// A machine that takes minutes to start must not find a difficulty below 1.
func TestNewcomerInSilence(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		start bitcoin.Difficulty
		after time.Duration
		want  bitcoin.Difficulty
	}{
		{14, time.Minute, 14},
		{14, 2 * time.Minute, 6},
		{14, 3 * time.Minute, 0},
		{14, 7 * time.Minute, 0},
		{14, 8 * time.Minute, small.Min},
		{4, 2 * time.Minute, 0},
		{0, 4 * time.Minute, 0},
		{-8, 4 * time.Minute, -8},
		{-8, 6 * time.Minute, small.Min},
	} {
		s := small.Start(test.start, small.Min, epoch)
		for age := time.Duration(0); age <= test.after; age += small.Interval {
			small.Check(&s, epoch.Add(age))
		}
		if s.Difficulty != test.want {
			t.Errorf("from 2^%d after %s: 2^%d, want 2^%d", test.start, test.after, s.Difficulty, test.want)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	p := asics
	p.Min, p.Max = 6, 30
	for _, test := range []struct{ d, floor, want, wantFloor bitcoin.Difficulty }{
		{d: 0, floor: -32, want: 6, wantFloor: 6},
		{d: 62, floor: 6, want: 30, wantFloor: 6},
		{d: 8, floor: 12, want: 12, wantFloor: 12},
		{d: 8, floor: 62, want: 30, wantFloor: 30},
	} {
		t.Run(fmt.Sprint(test.d, test.floor), func(t *testing.T) {
			t.Parallel()
			s := p.Start(test.d, test.floor, epoch)
			if s.Difficulty != test.want || s.Floor != test.wantFloor {
				t.Errorf("difficulty %d, floor %d", s.Difficulty, s.Floor)
			}
			for now := epoch; now.Before(epoch.Add(time.Hour)); now = now.Add(p.Interval) {
				p.Check(&s, now)
			}
			if s.Difficulty != test.wantFloor {
				t.Errorf("after an hour of silence: difficulty %d", s.Difficulty)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hashrate float64
		lowest   int8
		highest  int8
	}{
		{1e12, 0, 0},
		{20e12, 0, 1}, // near a border either is right
		{100e12, 2, 3},
		{360e12, 4, 5},
		{1000e12, 6, 6},
	} {
		m := newMiner(fleet, test.hashrate, 14, 1)
		m.run(6 * time.Hour)
		if l := m.state.Level; l < test.lowest || l > test.highest {
			t.Errorf("%.3g H/s: level %d", test.hashrate, l)
		}
		m.hashrate = 1e12
		m.run(2 * time.Hour)
		if m.state.Level != 0 {
			t.Errorf("%.3g H/s, slowed down: level %d", test.hashrate, m.state.Level)
		}
	}
}

// The curve shows how the difficulty of miners follows their hashrate from the usual start, in minutes:
// testdata/curve.txt.
func TestCurve(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	minutes := []int{0, 1, 2, 3, 4, 5, 7, 10, 15, 30, 60, 120, 240}
	fmt.Fprintf(&out, "difficulty 2^n after minutes\n%10s", "hashes/s")
	for _, minute := range minutes {
		fmt.Fprintf(&out, "%5d", minute)
	}
	fmt.Fprintf(&out, "%7s%10s%16s\n", "ideal", "changes", "shares/min last")
	for h := 1e9; h <= 500e12; h *= 4 {
		m := newMiner(fleet, h, 14, 1)
		fmt.Fprintf(&out, "%10.3g", h)
		last := 0
		for i, minute := range minutes {
			if i > 0 {
				m.shares, last = 0, minute-minutes[i-1]
				m.run(time.Duration(last) * time.Minute)
			}
			fmt.Fprintf(&out, "%5d", m.state.Difficulty)
		}
		fmt.Fprintf(&out, "%7.1f%10d%16.1f\n", float64(m.state.Difficulty)-m.off(), len(m.changes), float64(m.shares)/float64(last))
	}
	testkit.Golden(t, "curve.txt", out.Bytes())
}

// Who had climbed a level that the policy does not have, as another process's did, is treated by those that there are.
func TestLevelsAreGone(t *testing.T) {
	t.Parallel()
	now := epoch
	for _, levels := range [][]vardiff.Level{nil, vardiff.UsualLevels()[:2]} {
		p := fleet
		p.Levels = levels
		s := p.Start(0, 0, now)
		s.Level = 6
		for range 1000 {
			now = now.Add(time.Second)
			p.Share(&s, s.Difficulty, now)
			p.Check(&s, now)
		}
		if int(s.Level) > len(levels) {
			t.Errorf("level %d of %d", s.Level, len(levels))
		}
	}
}
