package sserver_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

func TestShareVerdicts(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	if !w.clean {
		t.Error("the first job is not clean")
	}
	if want := 1.0 / (1 << 20); w.difficulty != want {
		t.Errorf("difficulty %v, want %v", w.difficulty, want)
	}
	version, now := unhex32(t, w.version), unhex32(t, w.time)

	good := c.share(w, 1)
	c.wantSubmit(good, 0)
	c.wantSubmit(good, 22)
	upper := good
	upper.job = "0" + good.job // another text of the same job
	c.wantSubmit(upper, 22)

	low := good
	low.nonce = fmt.Sprintf("%08x", c.mine(w, c.header(w, 1, version, now), 0, w.difficulty/2))
	c.wantSubmit(low, 23)

	unknown := good
	for _, id := range []string{"99", "256", "-1", "x", ""} {
		unknown.job = id
		c.wantSubmit(unknown, 21)
	}

	old := good
	old.time = fmt.Sprintf("%08x", now-3601)
	c.wantSubmit(old, 31)
	old.time = "00000000"
	c.wantSubmit(old, 31)
	old.time = fmt.Sprintf("%08x", now+601)
	c.wantSubmit(old, 32)

	for _, ahead := range []uint32{600, ^uint32(3600) + 1} {
		edge := good
		edge.time = fmt.Sprintf("%08x", now+ahead)
		edge.nonce = fmt.Sprintf("%08x", c.mine(w, c.header(w, 1, version, now+ahead), w.difficulty, 1e30))
		c.wantSubmit(edge, 0)
	}

	rolled := good
	rolled.bits = "20000000" // not within the server's mask
	c.wantSubmit(rolled, 33)

	for _, bad := range []find{
		{good.job, "1", good.time, good.nonce, ""},
		{good.job, good.extraNonce2 + "00", good.time, good.nonce, ""},
		{good.job, good.extraNonce2, "x" + good.time[1:], good.nonce, ""},
		{good.job, good.extraNonce2, good.time, "", ""},
		{good.job, good.extraNonce2, good.time, good.nonce, "000002000"},
	} {
		c.wantSubmit(bad, 27)
	}
	if got := p.metric("shares_total", "code", "0"); got != 3 {
		t.Errorf("%v shares accepted", got)
	}
}

func TestDuplicateAcrossRepeatedJob(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	share := c.share(w, 1)
	c.wantSubmit(share, 0)
	// A change of difficulty sends the same job again under another number.
	c.mustCall(nil, "mining.suggest_difficulty", w.difficulty/2)
	again := c.work()
	if again.id == w.id || again.coinbase1 != w.coinbase1 || again.clean || again.difficulty != w.difficulty/2 {
		t.Fatalf("job %+v", again)
	}
	share.job = again.id
	c.wantSubmit(share, 22)
}

func TestDifficultyBelongsToTheJob(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	easy := find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 5), time: w.time}
	header := c.header(w, 5, unhex32(t, w.version), unhex32(t, w.time))
	easy.nonce = fmt.Sprintf("%08x", c.mine(w, header, w.difficulty, 2*w.difficulty))

	c.mustCall(nil, "mining.suggest_difficulty", 4*w.difficulty)
	harder := c.work()
	if harder.difficulty != 4*w.difficulty {
		t.Fatalf("difficulty %v", harder.difficulty)
	}
	under := easy
	under.job = harder.id
	c.wantSubmit(under, 23)
	c.wantSubmit(easy, 0)
}

func TestPreviousBlocks(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, first := p.miner()

	// Another job on the same block: both are good. It is not sent by itself.
	p.TakeJob(p.newJob(1, 100))
	c.wantSubmit(c.share(first, 1), 0)

	// The same height on another block.
	late := p.newJob(1, 100)
	p.TakeJob(p.newJob(2, 100))
	second := c.work()
	if !second.clean {
		t.Error("a job on another block is not clean")
	}
	c.wantSubmit(c.share(first, 2), 21)
	c.wantSubmit(c.share(second, 3), 0)

	// Behind: the block that was left, and a lower height.
	p.TakeJob(late)
	p.TakeJob(p.newJob(9, 99))
	c.wantSubmit(c.share(second, 4), 0)

	p.TakeJob(p.newJob(3, 101))
	third := c.work()
	if third.prev[:2] == second.prev[:2] && third.prev == second.prev || !third.clean {
		t.Errorf("job %+v", third)
	}
	if got := p.metric("jobs_total", "result", "behind"); got != 2 {
		t.Errorf("%v jobs behind", got)
	}
	if got := p.metric("shares_total", "code", "37"); got != 1 {
		t.Errorf("%v stale shares", got)
	}
}

func TestVersionRolling(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	j := p.newJob(1, 100)
	j.Version = 0x20004001 // has a bit of the server's mask, which miners are not told
	p.TakeJob(j)

	c := p.dial()
	var configured map[string]any
	c.mustCall(&configured, "mining.configure", []string{"version-rolling"}, map[string]any{
		"version-rolling.mask": "00fff000", "version-rolling.min-bit-count": 2,
	})
	if configured["version-rolling"] != true || configured["version-rolling.mask"] != "00ffe000" {
		t.Fatalf("configured %v", configured)
	}
	if m := c.note(); m.Method != "mining.set_version_mask" || string(m.Params[0]) != `"00ffe000"` {
		t.Fatalf("note %+v", m)
	}
	c.login()
	w := c.work()

	if w.version != "20000001" {
		t.Errorf("version %s", w.version)
	}
	var submit func(extraNonce2 uint64, bits string, version uint32) int
	submit = func(extraNonce2 uint64, bits string, version uint32) int {
		header := c.header(w, extraNonce2, version, unhex32(t, w.time))
		header.Nonce = c.mine(w, header, w.difficulty, 1e30)
		if bits == "00004000" {
			other := header
			other.Version = 0x20004001
			if difficultyOf(other) >= w.difficulty { // one in 4,096 is a share with these bits too
				return submit(extraNonce2+100, bits, version)
			}
		}
		return c.submit(find{
			job: w.id, extraNonce2: fmt.Sprintf("%016x", extraNonce2), time: w.time, bits: bits,
			nonce: fmt.Sprintf("%08x", header.Nonce),
		})
	}
	for i, test := range []struct {
		name, bits string
		version    uint32
		want       int
	}{
		{name: "bits", bits: "00806000", version: 0x20806001, want: 0},
		{name: "bits without leading zeros", bits: "806000", version: 0x20806001, want: 0},
		{name: "bits of zero", bits: "00000000", version: 0x20000001, want: 0},
		{name: "no bits", bits: "", version: 0x20000001, want: 0},
		{name: "bits that the header has not", bits: "00004000", version: 0x20000001, want: 23},
		{name: "outside of what was agreed upon", bits: "01002000", version: 0x21002001, want: 33},
	} {
		if got := submit(uint64(i), test.bits, test.version); got != test.want {
			t.Errorf("%s: code %d, want %d", test.name, got, test.want)
		}
	}
}

func TestRejectsAreNotAllLogged(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	bad := find{job: w.id, time: "00000000", nonce: "00000000"}
	for i := range 30 {
		bad.extraNonce2 = fmt.Sprintf("%016x", i)
		c.wantSubmit(bad, 31)
	}
	if got := p.metric("rejects_unlogged_total"); got != 11 {
		t.Errorf("%v rejects not logged, want 11", got)
	}
	c.wantSubmit(c.share(w, 1), 0)
}

func TestVardiffFollowsTheMiner(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	start := w.difficulty
	for i := uint64(0); len(c.notes) == 0; i++ {
		if i == 100 {
			t.Fatal("difficulty not raised in 100 shares")
		}
		c.wantSubmit(c.share(w, i), 0)
	}
	raised := c.work()
	if raised.difficulty <= start || raised.clean || raised.coinbase1 != w.coinbase1 {
		t.Errorf("job %+v after %v", raised, start)
	}
	c.wantSubmit(c.share(w, 1000), 0) // in flight
}

func TestSpoolFull(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SpoolMaxBytes = 300
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"} // away
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	full := 0
	for i := range uint64(10) {
		share := c.share(w, i)
		if code := c.submit(share); code == 30 {
			full++
			c.wantSubmit(share, 30) // not remembered as seen
		} else if code != 0 {
			t.Errorf("code %d", code)
		}
	}
	if full < 5 || full == 10 {
		t.Errorf("%d of 10 refused", full)
	}
}

func TestRepeatedJob(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.MiningNotifyInterval = 1e9
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner()
	newest := p.newJob(1, 100)
	newest.Coinbase2 = []byte{0x33}
	p.TakeJob(newest)
	again := c.work()
	for again.coinbase2 == w.coinbase2 { // the first has been sent again before
		again = c.work()
	}
	if again.coinbase2 != "33" || again.clean || again.id == w.id {
		t.Errorf("job %+v", again)
	}
	if n, err := strconv.Atoi(again.id); err != nil || n > 255 {
		t.Errorf("job id %q", again.id)
	}
}

func TestIdleMinerIsLowered(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.ShareInterval = 1e9
	cfg.DefaultDifficulty = 1024 // below 1 there is more patience
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	start := time.Now()
	c, w := p.miner()
	lower := c.work()
	if lower.difficulty >= w.difficulty || lower.clean {
		t.Errorf("job %+v", lower)
	}
	if waited := time.Since(start); waited < 5*time.Second {
		t.Errorf("after %s", waited)
	}
}
