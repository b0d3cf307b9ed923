package agentproxy

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/testkit"
)

// plainFarm is a proxy with one machine, whose pool of plain Stratum V1 has a difficulty.
func plainFarm(t *testing.T, difficulty float64, change func(*Config)) (l *fakeLink, s *Service, r *rig) {
	t.Helper()
	p := newFakePool(t)
	s = proxyOf(t, func(c *Config) {
		c.Pools[0].Protocol = ProtocolStratum
		change(c)
	}, p)
	l = p.plainLogin("aabbccdd", difficulty)
	r = dial(t, s)
	r.login("a.rig1")
	l.want(`{"id":"worker","method":"mining.authorize","params":["farm.rig1",""]}`)
	l.say(`{"id":"worker","result":true,"error":null}` + "\n")
	testkit.Eventually(t, "the worker is let in", func() (named bool) {
		s.onLoop(t, func() {
			for link := range s.accounts[""].links {
				named = named || link.named
			}
		})
		return named
	})
	return l, s, r
}

// plainLogin does what a pool of plain Stratum V1 does up to the first job, x-1.
func (p *fakePool) plainLogin(extraNonce1 string, difficulty float64) *fakeLink {
	p.t.Helper()
	l := p.accept()
	for range 3 {
		l.hear()
	}
	l.say(plainAnswers(extraNonce1, difficulty) + notify("x-1", true))
	return l
}

func plainAnswers(extraNonce1 string, difficulty float64) string {
	return fmt.Sprintf(`{"id":"sub","result":[[["mining.notify","s-%[1]s"]],"%[1]s",8],"error":null}
{"id":"auth","result":true,"error":null}
{"id":null,"method":"mining.set_difficulty","params":[%[2]g]}
`, extraNonce1, difficulty)
}

// found is a share.
type found struct{ job, time, nonce string }

func (f found) submit(id int) string {
	return fmt.Sprintf(`{"id":%d,"method":"mining.submit","params":["a.b","%s","00000007","%s","%s"]}`, id, f.job, f.time, f.nonce)
}

// find has the only machine look for a share of its latest job, of a difficulty from one to less than another, and with
// a nonce behind those of others.
func (s *Service) find(t *testing.T, from, to float64, others ...found) (f found) {
	t.Helper()
	s.onLoop(t, func() {
		m := s.miners[0]
		j := m.jobs[len(m.jobs)-1]
		sub := solution{extraNonce2: 7, time: j.work.time + j.later}
		for _, o := range others {
			nonce, _ := strconv.ParseUint(o.nonce, 16, 32)
			sub.nonce = max(sub.nonce, uint32(nonce)+1)
		}
		for ; ; sub.nonce++ {
			d := bitcoin.Target(s.checker.hash(j.work, m.number, &sub)).Difficulty()
			if from <= d && d < to {
				break
			}
		}
		f = found{fmt.Sprint(uint8(j.number)), fmt.Sprintf("%08x", sub.time), fmt.Sprintf("%08x", sub.nonce)}
	})
	return f
}

const tiny = 1.0 / (1 << 16)

// Junk is answered here, and the pool hears of good shares only.
func TestShareCheck(t *testing.T) {
	t.Parallel()
	l, s, r := plainFarm(t, tiny, func(c *Config) { c.CheckShares = true })
	good, low := s.find(t, tiny, 1), s.find(t, 0, tiny/2)
	r.say(low.submit(3))
	r.wantAnswers(`{"id":3,"result":null,"error":[23,"Low difficulty",null]}`)
	r.say(good.submit(4))
	l.want(`{"id":0,"method":"mining.submit","params":["farm.rig1","x-1","0000000000000007","65000000","` + good.nonce + `"]}`)
	r.say(good.submit(5))
	r.wantAnswers(`{"id":5,"result":null,"error":[22,"Duplicate share",null]}`)
	l.say(`{"id":0,"result":true,"error":null}` + "\n")
	r.wantAnswers(`{"id":4,"result":true,"error":null}`)
	for at, want := range map[int]string{
		0x65000000 - maxBehind - 1: `{"id":6,"result":null,"error":[31,"Time too old",null]}`,
		0x65000000 + maxAhead + 1:  `{"id":6,"result":null,"error":[32,"Time too new",null]}`,
	} {
		r.say(found{"0", fmt.Sprintf("%08x", at), "00000000"}.submit(6))
		r.wantAnswers(want)
	}
	r.say(found{"77", "65000000", "00000000"}.submit(7))
	r.wantAnswers(`{"id":7,"result":null,"error":[21,"Job not found (=stale)",null]}`)
	last := s.find(t, tiny, 1, good)
	r.say(last.submit(8))
	if line := l.hear(); !strings.Contains(line, last.nonce) || !strings.HasPrefix(line, `{"id":1,`) {
		t.Errorf("the pool hears %s", line)
	}
	if got := s.counter(t, "checked_total", "status", "23") + s.counter(t, "checked_total", "status", "22"); got != 2 {
		t.Errorf("%v are counted", got)
	}
	if got := s.counter(t, "answers_total", "status", "0"); got != 1 {
		t.Errorf("%v were told that they are good", got)
	}
}

// A share that is a block goes to the pool at once, whatever else is wrong with it.
func TestBlockAtOnce(t *testing.T) {
	t.Parallel()
	_, l, s, r := farm(t, func(c *Config) { c.CheckShares = true })
	l.say(strings.Replace(notify("1", true), "1703a30c", "207fffff", 1))
	r.hear()
	s.onLoop(t, func() { s.cfg.Hold = config.Duration(time.Hour) })
	block := s.find(t, 0, 1)
	s.onLoop(t, func() { // one for which every other hash is a block
		m := s.miners[0]
		j := m.jobs[len(m.jobs)-1]
		sub := solution{extraNonce2: 7, time: j.work.time + maxBehind*2}
		for hash := s.checker.hash(j.work, m.number, &sub); !j.work.target.Met(&hash); hash = s.checker.hash(j.work, m.number, &sub) {
			sub.nonce++
		}
		block.time, block.nonce = fmt.Sprintf("%08x", sub.time), fmt.Sprintf("%08x", sub.nonce)
	})
	r.say(block.submit(3))
	if frame := l.hear(); !strings.HasPrefix(frame, "7f031300"+"01"+"0000"+"07000000") {
		t.Errorf("the pool hears %s", frame)
	}
	if got := s.counter(t, "blocks_total"); got != 1 {
		t.Errorf("%v blocks are counted", got)
	}
}

// A small machine at a pool with one difficulty for all has its own; the pool gets what it pays for.
func TestOwnDifficulty(t *testing.T) {
	t.Parallel()
	l, s, r := plainFarm(t, tiny, func(c *Config) {
		c.CheckShares = true
		c.Vardiff.ShareInterval = config.Duration(time.Second)
		c.Vardiff.MinDifficulty = tiny / 256
	})
	s.onLoop(t, func() { s.miners[0].own.Since = time.Now().Add(-time.Minute) })
	r.want(`{"id":null,"method":"mining.set_difficulty","params":[0.00000005960464477539063]}`)
	if line := r.hear(); !strings.Contains(line, `"mining.notify","params":["1",`) {
		t.Errorf("heard %s", line)
	}
	easy, good := s.find(t, tiny/256, tiny/2), s.find(t, tiny, 1)
	r.say(easy.submit(3))
	r.wantAnswers(`{"id":3,"result":true,"error":null}`)
	r.say(good.submit(4))
	if line := l.hear(); !strings.Contains(line, good.nonce) || !strings.HasPrefix(line, `{"id":0,`) {
		t.Errorf("the pool hears %s", line)
	}
	l.say(`{"id":0,"result":true,"error":null}` + "\n")
	r.wantAnswers(`{"id":4,"result":true,"error":null}`)
	if here, answers := s.counter(t, "checked_total", "status", "0"), s.counter(t, "answers_total", "status", "0"); here != 1 || answers != 1 {
		t.Errorf("%v shares were answered here, %v as the pool says", here, answers)
	}
	s.onLoop(t, func() {
		if c := s.miners[0].counts; c.accepted != 1 || c.easy != 1 || c.hashes.sum < 2*tiny/256*(1<<32)*.99 {
			t.Errorf("%+v", c)
		}
		// It is never harder than the pool's.
		s.miners[0].own.Difficulty = 60
		if got := s.miners[0].aim(s.miners[0].link.work); got != tiny {
			t.Errorf("difficulty %v", got)
		}
	})
	// A new difficulty of the pool is for the next job.
	l.say(`{"id":null,"method":"mining.set_difficulty","params":[1e-9]}` + "\n" + notify("x-2", false))
	r.want(`{"id":null,"method":"mining.set_difficulty","params":[0.000000001]}`)
}

// What is remembered of shares is bounded, and not forgotten too soon.
func TestSeenSet(t *testing.T) {
	t.Parallel()
	var s seenSet
	for i := range uint64(5 * maxSeen) {
		if !s.add(i) {
			t.Fatalf("%d was seen", i)
		}
		if i >= maxSeen && s.add(i-maxSeen) {
			t.Fatalf("%d was forgotten", i-maxSeen)
		}
	}
	if n := len(s.young) + len(s.old); n > 2*maxSeen {
		t.Errorf("%d shares", n)
	}
}
