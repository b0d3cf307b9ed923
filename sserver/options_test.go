package sserver_test

import (
	"strconv"
	"testing"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/testkit"
	"btcpool/sserver"
)

func TestExtraNonce2Sizes(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.NonceBytes = 4
	for size := 5; size <= 8; size++ {
		cfg.Listeners = append(cfg.Listeners, sserver.Listener{Listen: "127.0.0.1:0", NonceBytes: size})
	}
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	for place := range p.Addrs() {
		c := p.dialTo(place)
		c.login()
		if c.nonceBytes != 4+place {
			t.Errorf("size %d, want %d", c.nonceBytes, 4+place)
		}
		w := c.work()
		good := c.share(w, 0xfedcba98)
		c.wantSubmit(good, 0)
		c.wantSubmit(good, 22)
		good.extraNonce2 += "00"
		c.wantSubmit(good, 27)
	}
}

func TestAgentsHaveTheFullExtraNonce2(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.NonceBytes = 4
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	a, w := p.agent("x")
	if size := len(w.coinbase1+w.coinbase2)/2 + 12; a.nonceBytes != 8 || size != 60+12+120 {
		t.Errorf("extranonce2 of %d bytes, coinbase of %d", a.nonceBytes, size)
	}
}

func TestStaleGrace(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.StaleGrace = config.Duration(time.Minute) // longer than the test
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, first := p.miner()
	p.TakeJob(p.newJob(2, 101))
	c.work()
	late := c.share(first, 1)
	c.wantSubmit(late, 0)
	c.wantSubmit(late, 22)
	p.TakeJob(p.newJob(3, 102))
	c.work()
	c.wantSubmit(c.share(first, 2), 21) // of the block before the last
	if late, now := p.metric("shares_total", "code", "stale"), p.metric("shares_total", "code", "0"); late != 1 || now != 0 {
		t.Errorf("%v late, %v in time", late, now)
	}
}

func TestSimulator(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Development.Simulator = true
	cfg.DefaultDifficulty = 1 << 40
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	blind := find{job: w.id, extraNonce2: c.nonceText(1), time: w.time, nonce: "00000000"}
	c.wantSubmit(blind, 0)
	c.wantSubmit(blind, 22)
	if got := p.metric("solved_total"); got != 0 {
		t.Errorf("%v blocks solved", got)
	}
}

func TestSubmitInvalidBlocks(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Development.SubmitInvalidBlocks = true
	solved := blkmaker(t, &cfg)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	c.wantSubmit(find{job: w.id, extraNonce2: c.nonceText(1), time: w.time, nonce: "00000000"}, 23)
	if code := p.submitAs(c, "carol.x", c.share(w, 2)); code != 24 { // but a block is a block
		t.Errorf("code %d for another account", code)
	}
	for range 2 {
		select {
		case s := <-solved:
			if s.WorkerName != "alice.rig" || s.Height != 100 {
				t.Errorf("solved %+v", s)
			}
		case <-time.After(patience):
			t.Fatal("no block was handed over")
		}
	}
}

// A miner that says what it wants again and again is lowered all the same.
func TestRepeatedSuggestion(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.ShareInterval = config.Duration(time.Second)
	cfg.DiffAdjustPeriod = config.Duration(time.Minute)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, _ := p.miner()
	c.mustCall(nil, "mining.suggest_difficulty", 1024)
	w := c.work()
	if w.difficulty != 1024 {
		t.Fatalf("difficulty %v", w.difficulty)
	}
	for len(c.notes) == 0 {
		c.mustCall(nil, "mining.suggest_difficulty", 1024)
		time.Sleep(50 * time.Millisecond) // the miner's own interval
	}
	if w = c.work(); w.difficulty >= 1024 {
		t.Errorf("difficulty %v", w.difficulty)
	}
}

// The same work must not come twice: miners that begin at the same place would find the same shares.
func TestJobsSentAgainDiffer(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	seen := map[string]bool{w.time: true}
	for i := range 5 {
		c.mustCall(nil, "mining.suggest_difficulty", w.difficulty*2)
		again := c.work()
		if seen[again.time] || again.difficulty != w.difficulty*2 {
			t.Errorf("job %d: time %s, difficulty %v", i, again.time, again.difficulty)
		}
		seen[again.time] = true
		w = again
	}
	c.wantSubmit(c.share(w, 1), 0)
}

func TestMinerWithoutAgentIsAsked(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c := p.dial()
	c.mustCall(nil, "mining.subscribe")
	c.mustCall(nil, "mining.authorize", "alice.rig", "x")
	c.work()
	if m := c.note(); m.Method != "client.get_version" || m.ID != 1.0 {
		t.Errorf("got %+v", m)
	}
	c.send(`{"id":1,"result":"a miner/1.0","error":null}` + "\n")
	c.mustCall(nil, "mining.ping")
	if got := p.Agents(); len(got) != 1 || got[0] != "aminer/1.0" {
		t.Errorf("agents %q", got)
	}
}

func TestSpreadOfDifficulties(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.ShareInterval = config.Duration(time.Second)
	cfg.DiffAdjustPeriod = config.Duration(time.Minute)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	p.miner()
	start := strconv.FormatFloat(w.difficulty, 'f', -1, 64)
	testkit.Eventually(t, "both are counted", func() bool { return p.metric("miners", "difficulty", start) == 2 })
	c.mustCall(nil, "mining.suggest_difficulty", 1024)
	testkit.Eventually(t, "one has moved", func() bool {
		return p.metric("miners", "difficulty", start) == 1 && p.metric("miners", "difficulty", "1024") == 1
	})
	c.conn.Close()
	testkit.Eventually(t, "one has gone", func() bool { return p.metric("miners") == 1 })
}
