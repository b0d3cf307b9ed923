package sserver_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/sserver"
)

// withSubPools gives a job coinbases of sub-pools, each with a digit of its own in hex.
func withSubPools(j *job.StratumJob, digits map[string]byte) *job.StratumJob {
	j.SubPools = make(map[string]job.SubPool)
	for name, digit := range digits {
		j.SubPools[name] = job.SubPool{Coinbase1: bytes.Repeat([]byte{digit * 0x11}, 60), Coinbase2: bytes.Repeat([]byte{0x22}, 120)}
	}
	return j
}

// wantCoinbase fails the test unless a job has the coinbase with that digit: 1 is the pool's own.
func wantCoinbase(t *testing.T, w work, digit string) {
	t.Helper()
	if got := w.coinbase1[:1]; got != digit {
		t.Fatalf("coinbase of %s, want %s", got, digit)
	}
}

// A server's miners work for its sub-pool, and for the pool while jobs do not have it; a block is of who it is for.
func TestSubPool(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SubPool = sserver.SubPool{Name: "farm", ExtUserID: -5}
	direct := blkmaker(t, &cfg)
	p := startPool(t, cfg)
	p.TakeJob(withSubPools(p.newJob(1, 100), map[string]byte{"farm": 3, "other": 4}))
	c, w := p.miner()
	wantCoinbase(t, w, "3")
	c.wantSubmit(c.share(w, 1), 0)

	j := withSubPools(p.newJob(2, 101), map[string]byte{"farm": 3})
	j.Bits = 0x1f00ffff
	p.TakeJob(j)
	w = c.work()
	header := c.header(w, 1, unhex32(t, w.version), unhex32(t, w.time))
	header.Nonce = c.mine(w, header, 1.0/(1<<16), 1e30)
	c.wantSubmit(find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 1), time: w.time, nonce: fmt.Sprintf("%08x", header.Nonce)}, 0)
	select {
	case s := <-direct:
		if got := j.SubPoolOf(s.Coinbase); got != "farm" {
			t.Errorf("the block is of sub-pool %q", got)
		}
	case <-time.After(patience):
		t.Fatal("not handed over")
	}
	if n := p.metric("sub_pool_missing_total"); n != 0 {
		t.Errorf("%v jobs lack the sub-pool", n)
	}

	p.TakeJob(withSubPools(p.newJob(3, 102), map[string]byte{"other": 4}))
	w = c.work()
	wantCoinbase(t, w, "1")
	c.wantSubmit(c.share(w, 1), 0)
	if n := p.metric("sub_pool_missing_total", "of", "server"); n != 1 {
		t.Errorf("%v jobs lack the sub-pool, want 1", n)
	}
	for _, text := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 3) {
		var s share.Share
		if err := s.Parse(text); err != nil || s.ExtUserID != -5 || s.UserID != 7 {
			t.Errorf("share %+v, %v", s, err)
		}
	}
}

// A user works for the sub-pool that its node names: others on the server do not. What was found before the user changed
// counts, for the coinbase that it was found for.
func TestUsersSubPool(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "btc/farm", "bob": "btc"})
	cfg.SubPool = sserver.SubPool{Name: "house", ExtUserID: -5}
	p := startPool(t, cfg)
	p.TakeJobOf(btc, withSubPools(p.newJob(1, 100), map[string]byte{"farm": 3, "house": 4, "more": 5}))
	alice, w := p.miner()
	wantCoinbase(t, w, "3")
	alice.wantSubmit(alice.share(w, 1), 0)
	bob := p.dial()
	bob.loginAs("bob")
	bobs := bob.work()
	wantCoinbase(t, bobs, "4")
	p.SetSubPool("alice", "more")
	fresh := alice.work()
	wantCoinbase(t, fresh, "5")
	if !fresh.clean || fresh.time == w.time {
		t.Errorf("job after the change: %+v, before %+v", fresh, w)
	}
	alice.wantSubmit(alice.share(w, 2), 0)
	alice.wantSubmit(alice.share(w, 2), 22)
	alice.wantSubmit(alice.share(fresh, 3), 0)
	p.SetSubPool("alice", "house")
	wantCoinbase(t, alice.work(), "4")
	p.SetSubPool("alice", "nobody")
	fallback := alice.work()
	wantCoinbase(t, fallback, "4")
	alice.wantSubmit(alice.share(fallback, 4), 0)
	if n := p.metric("sub_pool_missing_total", "of", "user"); n != 1 {
		t.Errorf("%v jobs lacked a user's sub-pool, want 1", n)
	}
	for i, s := range sharesOf(t, cfg, btc, 4) {
		if want := []int32{0, 0, 0, -5}[i]; s.ExtUserID != want || s.UserID != 7 {
			t.Errorf("share %d: %+v, want the external id %d", i, s, want)
		}
	}
}

func TestSubPoolConfig(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]sserver.SubPool{
		`sub_pool.name = "a b": must be 1 to 64 letters`: {Name: "a b"},
		"sub_pool.ext_user_id = 5: must not be above 0":  {Name: "a", ExtUserID: 5},
		"sub_pool.ext_user_id = -1: needs name":          {ExtUserID: -1},
	} {
		cfg := sserver.DefaultConfig()
		cfg.SubPool = c
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Another process goes on with who works for a user's sub-pool.
func TestSubPoolTakenOver(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "btc/farm"})
	p := startKnownChains(t, cfg)
	p.TakeJobOf(btc, withSubPools(p.newJob(3, 101), map[string]byte{"house": 4, "farm": 3, "another": 5}))
	c := p.dial()
	c.login()
	w := c.work()
	wantCoinbase(t, w, "3")
	c.wantSubmit(c.share(w, 1), 0)
	p = succeed(t, p, cfg)
	c.wantSubmit(c.share(w, 1), 22)
	c.wantSubmit(c.share(w, 2), 0)
	if len(c.notes) > 0 {
		t.Errorf("told %+v", c.notes)
	}
	p.TakeJobOf(btc, withSubPools(p.newJob(4, 102), map[string]byte{"farm": 6}))
	wantCoinbase(t, c.work(), "6")
	p.stop()
}
