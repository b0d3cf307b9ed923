package sserver_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade/upgradetest"
	"btcpool/sserver"
)

const grandAgent = "__PoolGrandPoolWatcher__"

// withGrandPool gives a job room for clients with a pool of their own, as jobmaker does.
func withGrandPool(j *job.StratumJob) *job.StratumJob {
	j.GrandCoinbase1 = bytes.Clone(j.Coinbase1)
	j.Coinbase1 = append(j.Coinbase1, make([]byte, job.GrandPrefixSize)...)
	return j
}

// A client with a pool of its own has 12 bytes of the extranonce2. Its shares count in btcpool's form and in everybody's, each
// prefix for itself, and a block has the prefix in its coinbase.
func TestGrandPool(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GrandPool = true
	direct := blkmaker(t, &cfg)
	p := startPool(t, cfg)
	p.TakeJob(withGrandPool(p.newJob(1, 100)))
	c := p.dial()
	c.loginWith(grandAgent, "alice", "x")
	w := c.work()
	other, others := p.miner()
	if c.nonceBytes != 12 || other.nonceBytes != 8 || others.coinbase1 != w.coinbase1+"00000000" || others.coinbase2 != w.coinbase2 {
		t.Fatalf("%d bytes before %s, an ordinary miner %d before %s", c.nonceBytes, w.coinbase1, other.nonceBytes, others.coinbase1)
	}
	other.wantSubmit(other.share(others, 1), 0)

	// with is the client as its own miner of a prefix would be.
	with := func(prefix string) *client {
		miner := *c
		miner.extraNonce1, miner.nonceBytes = c.extraNonce1+prefix, 8
		return &miner
	}
	one := with("0000000a").share(w, 5)
	if code := p.submitAs(c, "0000000a", one); code != 0 {
		t.Errorf("btcpool's form has code %d", code)
	}
	if code := p.submitAs(c, "a", one); code != 22 {
		t.Errorf("the same again has code %d", code)
	}
	whole := one
	whole.extraNonce2 = "0000000a" + one.extraNonce2
	c.wantSubmit(whole, 22)
	otherPrefix := with("ffffff0b").share(w, 5)
	if code := p.submitAs(c, "0000000c", otherPrefix); code != 23 {
		t.Errorf("a share with another's prefix has code %d", code)
	}
	otherPrefix.extraNonce2 = "ffffff0b" + otherPrefix.extraNonce2
	c.wantSubmit(otherPrefix, 0)
	for _, params := range []struct{ prefix, extraNonce2 string }{{"alice.rig", one.extraNonce2}, {"0000000aa", one.extraNonce2}, {"0a", "00" + one.extraNonce2}, {"", one.extraNonce2}} {
		bad := one
		bad.extraNonce2 = params.extraNonce2
		if code := p.submitAs(c, params.prefix, bad); code != 27 {
			t.Errorf("%+v has code %d", params, code)
		}
	}

	j := withGrandPool(p.newJob(2, 101))
	j.Bits = 0x1f00ffff
	j.SubPools = map[string]job.SubPool{"farm": {Coinbase1: []byte{1}, Coinbase2: []byte{2}}}
	p.TakeJob(j)
	w = c.work()
	miner := with("12345678")
	header := miner.header(w, 1, unhex32(t, w.version), unhex32(t, w.time))
	header.Nonce = c.mine(w, header, 1.0/(1<<16), 1e30)
	block := find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 1), time: w.time, nonce: fmt.Sprintf("%08x", header.Nonce)}
	if code := p.submitAs(c, "12345678", block); code != 0 {
		t.Errorf("the block has code %d", code)
	}
	select {
	case s := <-direct:
		want := unhex(t, w.coinbase1+c.extraNonce1+"12345678"+fmt.Sprintf("%016x", 1)+w.coinbase2)
		if !bytes.Equal(s.Coinbase, want) || j.SubPoolOf(s.Coinbase) != "" {
			t.Errorf("coinbase %x, want %x", s.Coinbase, want)
		}
		j.SubPools["farm"] = j.Own()
		j.Coinbase1, j.GrandCoinbase1 = nil, nil
		if got := j.SubPoolOf(s.Coinbase); got != "farm" {
			t.Errorf("a sub-pool's block is known as that of %q", got)
		}
	case <-time.After(patience):
		t.Fatal("not handed over")
	}

	other.work()
	p.TakeJob(p.newJob(3, 102))
	other.work()
	p.TakeJob(withGrandPool(p.newJob(4, 103)))
	if next := c.work(); next.prev[:8] != "00000004" {
		t.Errorf("a job without room was sent: %+v", next)
	}
	if n := p.metric("grand_coinbase_missing_total"); n != 1 {
		t.Errorf("%v jobs have no room, want 1", n)
	}
}

// Where nobody wants them, they are as anybody else.
func TestNoGrandPool(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(withGrandPool(p.newJob(1, 100)))
	c := p.dial()
	c.loginWith(grandAgent, "alice", "x")
	if c.nonceBytes != 8 {
		t.Errorf("%d bytes", c.nonceBytes)
	}
	c.wantSubmit(c.share(c.work(), 1), 0)
}

// A client with a pool of its own is told of a job before all others of its loop, however small it says that it is.
func TestGrandPoolHearsFirst(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GrandPool = true
	p := startPool(t, cfg)
	p.TakeJob(withGrandPool(p.newJob(1, 100)))
	const miners = 12
	for i := range miners {
		c, agent, password := p.dial(), "test/1", "d=1024"
		if i == miners/2 {
			agent, password = grandAgent, "d=1"
		}
		c.loginWith(agent, "alice", password)
		c.work()
	}
	p.TakeJob(withGrandPool(p.newJob(2, 101))) // by whose tour they are put in order
	testkit.Eventually(t, "it is first", func() bool {
		for _, order := range p.Hearing() {
			if len(order) > 1 && order[0] == 1 {
				return true
			}
		}
		return false
	})
}

// Another process goes on with such a client, unless it would not serve it.
func TestGrandPoolTakenOver(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.GrandPool = true
	p := startKnown(t, cfg)
	p.TakeJob(withGrandPool(p.newJob(2, 101)))
	c := p.dial()
	c.loginWith(grandAgent, "alice", "x")
	w := c.work()
	miner := *c
	miner.extraNonce1, miner.nonceBytes = c.extraNonce1+"0000000a", 8
	first, second := miner.share(w, 1), miner.share(w, 2)
	if code := p.submitAs(c, "0000000a", first); code != 0 {
		t.Errorf("code %d", code)
	}

	other := cfg
	other.GrandPool = false
	before, moved := upgradetest.Offer(t, p)
	next, err := sserver.New(other, service.Deps{Log: zerolog.Nop(), Predecessor: before})
	if err == nil {
		err = next.Run(t.Context())
	}
	_ = before.Close()
	if err == nil || !strings.Contains(err.Error(), "grand_pool is true there") {
		t.Errorf("it goes on without: %v", err)
	}
	if err := (<-moved).Err; err == nil {
		t.Fatal("taken over")
	}

	p = succeed(t, p, cfg)
	for _, test := range []struct {
		share find
		code  int
	}{{first, 22}, {second, 0}} {
		if code := p.submitAs(c, "0000000a", test.share); code != test.code {
			t.Errorf("code %d, want %d", code, test.code)
		}
	}
	p.TakeJob(withGrandPool(p.newJob(3, 102)))
	if next := c.work(); next.coinbase1 != w.coinbase1 {
		t.Errorf("job %+v", next)
	}
	p.stop()
}
