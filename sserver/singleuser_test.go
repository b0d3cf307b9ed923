package sserver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"btcpool/internal/agentwire"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/sserver"
)

// All users' miners are workers of one user: shares, events and blocks say it, and whose they are really.
func TestSingleUserMode(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Users.Static["bob"] = 9
	cfg.SingleUser = sserver.SingleUser{Name: "pool", Mode: true, PUID: 77}
	cfg.SubPool = sserver.SubPool{Name: "farm", ExtUserID: -5}
	direct := blkmaker(t, &cfg)
	p := startPool(t, cfg)
	easy := func(prev byte, height int32) *job.StratumJob {
		j := withSubPools(p.newJob(prev, height), map[string]byte{"farm": 3})
		j.Bits = 0x1f00ffff
		return j
	}
	p.TakeJob(easy(1, 100))
	c, w := p.miner()
	c.mustCall(nil, "mining.authorize", "bob.left", "")
	if code := p.submitAs(c, "bob.left", c.share(w, 1)); code != 0 {
		t.Fatalf("bob's share has code %d", code)
	}
	if code := p.submitAs(c, "bob.right", c.share(w, 2)); code != 0 { // logs the worker in
		t.Fatalf("code %d", code)
	}
	header := c.header(w, 3, unhex32(t, w.version), unhex32(t, w.time))
	header.Nonce = c.mine(w, header, 1.0/(1<<16), 1e30)
	c.wantSubmit(find{job: w.id, extraNonce2: fmt.Sprintf("%016x", 3), time: w.time, nonce: fmt.Sprintf("%08x", header.Nonce)}, 0)
	select {
	case s := <-direct:
		for s.WorkerName != "pool.alice.rig" { // a share may happen to be a block
			s = <-direct
		}
		if s.UserID != 77 || s.WorkerID != share.WorkerID("alice.rig") {
			t.Errorf("solved share %+v", s)
		}
	case <-time.After(patience):
		t.Fatal("not handed over")
	}
	a, _ := p.agent("x")
	a.frame(agentwire.Register{Session: 3, Worker: "s3", Agent: "soft"})

	for i, text := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 3) {
		var s share.Share
		name, user := []string{"bob.left", "bob.right", "alice.rig"}[i], []int32{9, 9, 7}[i]
		if err := s.Parse(text); err != nil || s.UserID != 77 || s.ExtUserID != user || s.WorkerID != share.WorkerID(name) {
			t.Errorf("share of %s: %+v, %v", name, s, err)
		}
	}
	users := map[string]int32{"alice.rig": 7, "bob.left": 9, "bob.right": 9, "alice.__default__": 7, "alice.s3": 7}
	for _, e := range minerEvents(t, cfg, 5) {
		if e.UserID != 77 || e.UserName != "pool" || e.ExtUserID != users[e.WorkerName] || e.WorkerID != share.WorkerID(e.WorkerName) {
			t.Errorf("event %+v", e)
		}
	}
}

// Each chain has an id of the user of its own; all users follow that user's node, with their own ids.
func TestSingleUserChain(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"pool": "auto", "alice": "btc", "bob": "btc"})
	cfg.SingleUser = sserver.SingleUser{Name: "pool", Mode: true, Chain: true}
	for i := range cfg.Chains {
		cfg.Chains[i].SingleUserPUID = int32(70 + i)
		cfg.Chains[i].Users.Static["bob"] = int32(90 + i)
	}
	cfg.Management.Enabled = true
	next, _ := replies(t, cfg.PerChain()[btc])
	p, _ := startChains(t, cfg)
	alice, w := p.miner()
	bob := p.dial()
	bob.loginAs("bob")
	bob.work()
	alice.wantSubmit(alice.share(w, 1), 0)
	if users, connections := p.switchAuto(t, "1", "bch"); users != 2 || connections != 2 {
		t.Errorf("%d users, %d connections switched", users, connections)
	}
	fresh := alice.work()
	if other := bob.work(); fresh.prev == w.prev || other.prev != fresh.prev {
		t.Errorf("jobs on %s and %s after the switch", fresh.prev, other.prev)
	}
	alice.wantSubmit(alice.share(fresh, 2), 0)
	alice.wantSubmit(alice.share(w, 3), 0)
	p.TellNode("pool", "btc")
	p.TellNode("pool", "nonsense")
	if back := alice.work(); back.prev != w.prev {
		t.Errorf("a job on %s after the node's change", back.prev)
	}
	next(object{"type": "sserver_notify", "action": "online"})
	v := next(object{
		"type": "sserver_action", "action": "single_user_switch_chain", "result": true, "old_chain_name": "bch", "new_chain_name": "btc",
		"switched_users": 2.0, "switched_connections": 2.0,
	})
	if id, has := v["id"]; !has || id != nil {
		t.Errorf("%v", v)
	}
	for chain, want := range [][2]int32{{70, 7}, {71, 8}} {
		for _, s := range sharesOf(t, cfg, chain, 2-chain) {
			if got := [2]int32{s.UserID, s.ExtUserID}; got != want {
				t.Errorf("chain %d: share for %v, want %v", chain, got, want)
			}
		}
	}
}

func TestSingleUserConfig(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]sserver.SingleUser{
		"single_user.name is missing":                           {Mode: true, PUID: 1},
		`single_user.name = "pool": has no effect`:              {Name: "pool"},
		`single_user.name = "a.b": ends at the first dot`:       {Name: "a.b", Mode: true, PUID: 1},
		"single_user.puid = 0: must be the id":                  {Name: "pool", Mode: true},
		"single_user.puid = 5: needs single_user.mode":          {Name: "pool", Chain: true, PUID: 5},
		`user_chain.path = "": must be where users' nodes are,`: {Name: "pool", Chain: true},
	} {
		cfg := sserver.DefaultConfig()
		cfg.SingleUser = c
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	cfg := chainsConfig(t, nil)
	cfg.SingleUser = sserver.SingleUser{Name: "pool", Mode: true, PUID: 5}
	cfg.Chains[0].SingleUserPUID = 6
	err := cfg.Validate()
	for _, want := range []string{"single_user.puid = 5: with [[chains]]", "chains[1].single_user_puid = 0: must be the id"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
