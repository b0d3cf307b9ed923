package sserver_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// submitAs is client.submit for another name.
func (p *pool) submitAs(c *client, name string, f find) int {
	p.tb.Helper()
	params := f.params()
	params[0] = name
	m := c.call("mining.submit", params...)
	if m.Error != nil {
		return int(m.Error[0].(float64))
	}
	return 0
}

func TestSeveralWorkers(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Users.Static = map[string]int32{"alice": 7, "bob": 8}
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	c, w := p.miner() // alice.rig
	c.mustCall(nil, "mining.authorize", "Bob.left", "d=1024")
	c.mustCall(nil, "mining.authorize", "alice.right", "")
	c.mustCall(nil, "mining.authorize", "bob.left", "") // again
	if m := c.call("mining.authorize", "carol.x", ""); m.Error == nil || m.Error[0] != 29.0 {
		t.Errorf("an unknown user: %+v", m)
	}
	for i, test := range []struct{ name, user, worker string }{
		{"alice.rig", "alice", "rig"},
		{"bob.left", "bob", "left"},
		{"BOB.left", "bob", "left"},
		{"alice.right", "alice", "right"},
		{"bob.new", "bob", "new"}, // its account has logged in
		{"bob.new", "bob", "new"},
	} {
		if code := p.submitAs(c, test.name, c.share(w, uint64(i))); code != 0 {
			t.Errorf("%s: code %d", test.name, code)
		}
	}
	for i, name := range []string{"carol.x", "al ice.rig", ""} { // another account, none, and either
		if code := p.submitAs(c, name, c.share(w, uint64(100+i))); code != 24 {
			t.Errorf("%q: code %d, want 24", name, code)
		}
	}
	for credited, want := range map[string]float64{"worker": 1, "nobody": 3} {
		if got := p.metric("shares_misnamed_total", "credited", credited); got != want {
			t.Errorf("%v shares of %s", got, credited)
		}
	}
	if len(c.notes) > 0 {
		t.Errorf("the difficulty of the connection changed: %+v", c.notes)
	}
	c.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 0 })
	p.stop()
	var got []string
	for _, value := range readTopic(t, cfg, cfg.Kafka.Topics.Share, 9) {
		var s share.Share
		if err := s.Parse(value); err != nil {
			t.Fatal(err)
		}
		if s.Status == share.StatusUnauthorized {
			continue
		}
		got = append(got, fmt.Sprint(s.UserID, " ", s.WorkerID))
	}
	rig, left, right, own := share.WorkerID("rig"), share.WorkerID("left"), share.WorkerID("right"), share.WorkerID("new")
	if diff := cmp.Diff([]string{
		fmt.Sprint(7, " ", rig), fmt.Sprint(8, " ", left), fmt.Sprint(8, " ", left), fmt.Sprint(7, " ", right), fmt.Sprint(8, " ", own), fmt.Sprint(8, " ", own),
	}, got); diff != "" {
		t.Error(diff)
	}
	events := make(map[string]int)
	for _, e := range minerEvents(t, cfg, 8) {
		events[string(e.Action)+" "+e.UserName+"."+e.WorkerName]++
	}
	if diff := cmp.Diff(map[string]int{
		"miner_connect alice.rig": 1, "miner_connect bob.left": 1, "miner_connect alice.right": 1, "miner_connect bob.new": 1,
		"miner_dead alice.rig": 1, "miner_dead bob.left": 1, "miner_dead alice.right": 1, "miner_dead bob.new": 1,
	}, events); diff != "" {
		t.Error(diff)
	}
}

func (c *client) resume(extraNonce1 string) {
	c.tb.Helper()
	var result []any
	c.mustCall(&result, "mining.subscribe", "test/1", extraNonce1)
	c.extraNonce1 = result[1].(string)
}

// What was found for a connection that broke counts on the next.
func TestResume(t *testing.T) {
	t.Parallel()
	p := startPool(t, testConfig(t))
	p.TakeJob(p.newJob(1, 100))
	old, w := p.miner()
	old.mustCall(nil, "mining.suggest_difficulty", w.difficulty*2)
	hard := old.work()
	easy, inFlight, late := old.share(w, 1), old.share(hard, 2), old.share(hard, 3)
	old.wantSubmit(easy, 0)

	thief := p.dial() // while it is in use
	thief.resume(old.extraNonce1)
	if thief.extraNonce1 == old.extraNonce1 {
		t.Fatal("an extranonce1 given twice")
	}
	old.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 1 })

	c := p.dial()
	c.resume(old.extraNonce1)
	if c.extraNonce1 != old.extraNonce1 {
		t.Fatalf("resumed %s as %s", old.extraNonce1, c.extraNonce1)
	}
	if m := c.call("mining.submit", late.params()...); m.Error == nil || m.Error[0] != 24.0 {
		t.Errorf("a share without a login: %+v", m)
	}
	c.mustCall(nil, "mining.authorize", "alice.rig", "")
	next := c.work()
	if next.id == w.id || next.id == hard.id || !next.clean || next.difficulty != hard.difficulty {
		t.Errorf("job %+v", next)
	}
	c.wantSubmit(easy, 22)
	c.wantSubmit(inFlight, 0)
	c.wantSubmit(c.share(next, 4), 0)

	third := p.dial() // only once
	third.resume(old.extraNonce1)
	if third.extraNonce1 == old.extraNonce1 {
		t.Error("an extranonce1 given twice")
	}
	c.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 2 })
	fourth := p.dial()
	fourth.resume(old.extraNonce1)
	if fourth.extraNonce1 != old.extraNonce1 {
		t.Error("not resumed a second time")
	}
}

func TestNiceHash(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.NiceHash.MinDifficulty = 64
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	first := func(agent, password string, forced bool) float64 {
		c := p.dial()
		if forced {
			c.mustCall(nil, "mining.configure", []string{"minimum-difficulty"}, map[string]any{"minimum-difficulty.value": 4})
		}
		c.mustCall(nil, "mining.subscribe", agent)
		c.mustCall(nil, "mining.authorize", "alice.rig", password)
		return c.work().difficulty
	}
	for _, test := range []struct {
		agent, password string
		own             bool
		want            float64
	}{
		{"NiceHash/1.0.0", "", false, 64},
		{"nicehash/1.0.0", "d=128", false, 128},
		{"nicehash/1.0.0", "md=8,d=8", false, 8},
		{"nicehash/1.0.0", "", true, 4},
		{"cgminer/4", "", false, 1.0 / (1 << 20)},
	} {
		if got := first(test.agent, test.password, test.own); got != test.want {
			t.Errorf("%+v: difficulty %v", test, got)
		}
	}
}

// NiceHash is given job ids that do not come again.
func TestNiceHashJobs(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.NiceHash.MinDifficulty = 0
	p := startPool(t, cfg)
	j := p.newJob(1, 100)
	p.TakeJob(j)
	c := p.dial()
	var result []any
	c.mustCall(&result, "mining.subscribe", "NiceHash/1.0.0")
	c.extraNonce1 = result[1].(string)
	c.mustCall(nil, "mining.authorize", "alice.rig", "")
	w := c.work()
	if want := fmt.Sprint(uint64(j.Time) * 256); w.id != want {
		t.Errorf("job id %s, want %s", w.id, want)
	}
	f := c.share(w, 1)
	c.wantSubmit(f, 0)
	f.job = "1" // another number
	c.wantSubmit(f, 21)
}

func TestLongTimeouts(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.TCPReadTimeout = 1e9
	cfg.LongAgents = "patient"
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	a, _ := p.agent("")
	patient := p.dial()
	patient.mustCall(nil, "mining.subscribe", "a-PATIENT-one/1")
	patient.mustCall(nil, "mining.authorize", "alice.rig", "")
	other, _ := p.miner()
	other.wantEnd()
	a.mustCall(nil, "mining.ping")
	patient.mustCall(nil, "mining.ping")
}

// Miners are told where to go, and may go on until they do.
func TestDrain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.Drain.Grace = 1e9
	cfg.Drain.ReconnectTo = "other.example:3334"
	p := startPool(t, cfg)
	p.TakeJob(p.newJob(1, 100))
	var miners []*client
	var shares []find
	for range 5 {
		c, w := p.miner()
		miners, shares = append(miners, c), append(shares, c.share(w, 1))
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.stop()
	}()
	var told sync.WaitGroup
	for i, c := range miners { // in any order
		told.Go(func() {
			m := c.note()
			if m.Method != "client.reconnect" || len(m.Params) != 3 || string(m.Params[0]) != `"other.example"` || string(m.Params[1]) != "3334" {
				t.Errorf("note %+v", m)
			}
			c.wantSubmit(shares[i], 0)
		})
	}
	told.Wait()
	miners[0].conn.Close() // does as it is told
	for _, c := range miners[1:] {
		c.wantEnd()
	}
	<-stopped
}
