package sserver_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/agentwire"
	"btcpool/internal/config"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/internal/userchain"
	"btcpool/internal/users"
	"btcpool/sserver"
)

const btc, bch = 0, 1

// chainsConfig is that of a pool of two chains that ZooKeeper tells nothing: what users' nodes say is in the snapshot,
// "" for no node, "btc/farm" for a sub-pool, too.
func chainsConfig(t *testing.T, nodes map[string]string) sserver.Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.ZooKeeper.Servers = []string{"127.0.0.1:1"}
	cfg.UserChain.Path = "/userchain"
	cfg.UserChain.Timeout = config.Duration(100 * time.Millisecond)
	cfg.Chains = []sserver.Chain{chainSection("btc", map[string]int32{"alice": 7, "bob": 9}), chainSection("bch", map[string]int32{"alice": 8, "carol": 10})}
	type user struct {
		Node *userchain.Value `json:"node"`
		Read int64            `json:"read"`
	}
	remembered := make(map[string]user)
	for name, chain := range nodes {
		u := user{Read: time.Now().Unix()}
		if chain != "" {
			u.Node = new(userchain.Value)
			u.Node.Chain, u.Node.Subpool, _ = strings.Cut(chain, "/")
		}
		remembered[name] = u
	}
	text, err := json.Marshal(map[string]any{"saved": time.Now(), "users": remembered})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "userchain.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	var topics []string
	for _, one := range cfg.PerChain() {
		topics = append(topics, one.Kafka.Topics.Job, one.Kafka.Topics.Share, one.Kafka.Topics.SolvedShare, one.Kafka.Topics.CommonEvents)
	}
	testkit.Bus(t, cfg.Kafka, topics...)
	return cfg
}

func chainSection(name string, ids map[string]int32) sserver.Chain {
	return sserver.Chain{
		Name: name, JobTopic: name + "Job", ShareTopic: name + "Share", SolvedShareTopic: name + "SolvedShare", CommonEventsTopic: name + "Events",
		Users: &users.Source{Kind: users.Static, Static: ids},
	}
}

// startChains starts one that has a job of each chain, and returns those.
func startChains(t *testing.T, cfg sserver.Config) (p *pool, jobs [2]*job.StratumJob) {
	t.Helper()
	p = startPool(t, cfg)
	for i := range jobs {
		jobs[i] = p.newJob(byte(1+i), int32(100+100*i))
		p.TakeJobOf(i, jobs[i])
	}
	return p, jobs
}

func (p *pool) switchAuto(t *testing.T, id, chain string) (users, connections int) {
	t.Helper()
	done, err := p.SwitchAuto(id, userchain.Shares{chain: 1})
	if err != nil {
		t.Fatal(err)
	}
	return done.Users, done.Connections
}

// sharesOf returns the first n shares of a chain's topic.
func sharesOf(t *testing.T, cfg sserver.Config, chain, n int) (all []share.Share) {
	t.Helper()
	for _, value := range readTopic(t, cfg, cfg.PerChain()[chain].Kafka.Topics.Share, n) {
		var s share.Share
		if err := s.Parse(value); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// A miner is moved by its user's chain: it gets a clean job of the other at once, and its shares count where their jobs
// are from, with the user's id there.
func TestSwitchChain(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "auto"})
	p, jobs := startChains(t, cfg)
	c, old := p.miner()
	if !strings.Contains(old.prev, "01") {
		t.Errorf("first job %+v", old)
	}
	c.wantSubmit(c.share(old, 1), 0)
	if users, connections := p.switchAuto(t, "1", "bch"); users != 1 || connections != 1 {
		t.Errorf("%d users, %d connections switched", users, connections)
	}
	fresh := c.work()
	if !fresh.clean || fresh.prev == old.prev || fresh.difficulty != old.difficulty {
		t.Errorf("job after the switch: %+v", fresh)
	}
	c.wantSubmit(c.share(fresh, 2), 0)
	p.TakeJobOf(bch, p.newJob(9, 201)) // a new block there, more than once
	next := c.work()
	p.TakeJobOf(bch, p.newJob(10, 202))
	c.work()
	c.wantSubmit(c.share(old, 3), 0) // its own chain has no other block
	c.wantSubmit(c.share(old, 3), 22)
	c.wantSubmit(c.share(fresh, 4), 21)
	c.wantSubmit(c.share(next, 5), 21)
	if users, connections := p.switchAuto(t, "2", "btc"); users != 1 || connections != 1 {
		t.Errorf("%d users, %d connections switched back", users, connections)
	}
	again := c.work()
	if again.prev != old.prev || !again.clean || again.time == old.time {
		t.Errorf("job after switching back: %+v, before %+v", again, old)
	}
	c.wantSubmit(c.share(old, 6), 0)
	c.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 0 })
	p.stop()

	type credit struct {
		Job    uint64
		User   int32
		Status share.Status
	}
	for chain, want := range [][]credit{
		{{uint64(jobs[btc].ID), 7, share.StatusAccept}, {uint64(jobs[btc].ID), 7, share.StatusAccept}, {uint64(jobs[btc].ID), 7, share.StatusAccept}},
		{{uint64(jobs[bch].ID), 8, share.StatusAccept}, {uint64(jobs[bch].ID), 8, share.StatusStale}},
	} {
		var got []credit
		for _, s := range sharesOf(t, cfg, chain, len(want)) {
			got = append(got, credit{s.JobID, s.UserID, s.Status})
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("shares of chain %d (-want +got):\n%s", chain, diff)
		}
	}
	for chain, want := range []string{
		"miner_connect 7 new_conn, miner_dead 7 switch_chain, miner_connect 7 switch_chain, miner_dead 7 del_conn",
		"miner_connect 8 switch_chain, miner_dead 8 switch_chain",
	} {
		one := cfg
		one.Kafka.Topics = cfg.PerChain()[chain].Kafka.Topics
		var got []string
		for _, e := range minerEvents(t, one, 1+strings.Count(want, ",")) {
			got = append(got, fmt.Sprint(e.Action, " ", e.UserID, " ", e.Desc))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("events of chain %d: %s", chain, got)
		}
	}
}

// An agent is moved with all its miners, without losing its connection.
func TestSwitchChainOfAgent(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "auto"})
	cfg.Development.Simulator = true
	p, _ := startChains(t, cfg)
	a, old := p.agent("")
	a.frame(agentwire.Register{Session: 1, Agent: "m/1", Worker: "one"}, agentwire.Register{Session: 2, Agent: "m/1", Worker: "two"})
	p.switchAuto(t, "1", "bch")
	fresh := a.work()
	if !fresh.clean || fresh.prev == old.prev {
		t.Errorf("job after the switch: %+v", fresh)
	}
	a.frame(a.framed(old, 1, 1), a.framed(fresh, 2, 2))
	testkit.Eventually(t, "shares", func() bool { return p.metric("shares_total", "code", "0") == 2 })
	if n := p.metric("shares_total", "code", "0", "chain", "bch"); n != 1 {
		t.Errorf("%v shares on the new chain", n)
	}
	a.conn.Close()
	testkit.Eventually(t, "disconnect", func() bool { return p.Sessions() == 0 })
	p.stop()
	for chain, user := range []int32{7, 8} {
		if s := sharesOf(t, cfg, chain, 1)[0]; s.UserID != user || s.WorkerID != share.WorkerID([]string{"one", "two"}[chain]) {
			t.Errorf("share of chain %d: %+v", chain, s)
		}
	}
	one := cfg
	one.Kafka.Topics = cfg.PerChain()[bch].Kafka.Topics
	count := make(map[string]int)
	for _, e := range minerEvents(t, one, 6) {
		count[fmt.Sprint(e.Action, " ", e.Desc)]++
	}
	if diff := cmp.Diff(map[string]int{"miner_connect switch_chain": 3, "miner_dead del_conn": 1, "miner_dead from_btcagent": 2}, count); diff != "" {
		t.Errorf("events of the new chain (-want +got):\n%s", diff)
	}
}

// Where a user begins, whatever its node says.
func TestFirstChain(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "bch", "bob": "bch", "carol": "", "dave": "btc"})
	p, jobs := startChains(t, cfg)
	for _, test := range []struct {
		user  string
		chain int // negative: it is refused
		code  int
	}{
		{"alice", bch, 0},
		{"bob", btc, 0},    // has no id where it is to be
		{"carol", bch, 0},  // has none by default
		{"dave", -1, 29},   // has none
		{"a/lice", -1, 29}, // would be another's node
		{"..", -1, 29},
		{"erin", -1, 30}, // ZooKeeper does not say
	} {
		c := p.dial()
		c.mustCall(nil, "mining.subscribe", "test/1")
		m := c.call("mining.authorize", test.user+".rig", "x")
		if test.chain < 0 {
			if m.Error == nil || m.Error[0] != float64(test.code) {
				t.Errorf("%s: %v", test.user, m.Error)
			}
			continue
		}
		if w := c.work(); m.Error != nil || w.coinbase1 == "" || w.prev[:8] != wirePrev(jobs[test.chain]) {
			t.Errorf("%s: %v, job %+v", test.user, m.Error, w)
		}
	}
	if n := p.metric("users_waiting"); n != 2 {
		t.Errorf("%v users wait for an id", n)
	}
}

// wirePrev is how a previous block begins in a job.
func wirePrev(j *job.StratumJob) string {
	h := j.PrevHash
	return fmt.Sprintf("%02x%02x%02x%02x", h[3], h[2], h[1], h[0])
}

// What was commanded last is known after a restart; a command that comes again does nothing.
func TestAutoChainSurvives(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "auto"})
	p, _ := startChains(t, cfg)
	p.switchAuto(t, "1", "bch")
	for _, test := range []struct {
		id     string
		shares userchain.Shares
		want   string
	}{
		{"1", userchain.Shares{"btc": 1}, "done already"},
		{"2", userchain.Shares{"bch": 1}, "no change"},
		{"3", userchain.Shares{"ltc": 0.5, "btc": 0.5}, "unknown chain ltc"},
	} {
		if _, err := p.SwitchAuto(test.id, test.shares); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", test.id, err, test.want)
		}
	}
	p.stop()
	p, jobs := startChains(t, cfg)
	if _, w := p.miner(); w.prev[:8] != wirePrev(jobs[bch]) {
		t.Errorf("job %+v", w)
	}
}

// A chain without jobs is not one to move to, and does not make the others unready.
func TestChainWithoutJobs(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "auto"})
	p := startPool(t, cfg)
	testkit.Eventually(t, "it says that no chain has a job", func() bool {
		err := p.Ready()
		return err != nil && strings.Contains(err.Error(), "btc: no job") && strings.Contains(err.Error(), "bch: no job")
	})
	p.TakeJobOf(btc, p.newJob(1, 100))
	if err := p.Ready(); err != nil {
		t.Error(err)
	}
	if up, down := p.metric("chain_ready", "chain", "btc"), p.metric("chain_ready", "chain", "bch"); up != 1 || down != 0 {
		t.Errorf("chain_ready: %v, %v", up, down)
	}
	c, old := p.miner()
	if users, _ := p.switchAuto(t, "1", "bch"); users != 0 {
		t.Errorf("%d users moved to nothing", users)
	}
	c.wantSubmit(c.share(old, 1), 0)
	p.TakeJobOf(bch, p.newJob(2, 200))
	if w := c.work(); w.prev == old.prev {
		t.Errorf("job %+v", w)
	}
	if n := p.metric("chain_sessions", "chain", "bch"); n != 1 {
		t.Errorf("%v sessions on the chain", n)
	}
}

// A session that others share is moved when all of them have an id on the other chain.
func TestSwitchOfSharedSession(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, map[string]string{"alice": "auto"})
	p, _ := startChains(t, cfg)
	c, old := p.miner()
	c.mustCall(nil, "mining.authorize", "bob.rig", "x") // is on one chain only
	p.switchAuto(t, "1", "bch")
	testkit.Eventually(t, "it stays", func() bool { return p.metric("switches_total", "result", "another user") == 1 })
	c.wantSubmit(c.share(old, 1), 0)
	if n := p.metric("chain_sessions", "chain", "btc"); n != 1 {
		t.Errorf("%v sessions on the chain", n)
	}
}

// Shares that nobody would send are told of before miners are served.
func TestForgottenSpools(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"shares", "ltc/blocks"} {
		cfg := chainsConfig(t, nil)
		folder := filepath.Join(cfg.DataDir, dir)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "00000001.seg"), []byte("a record"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sserver.New(cfg, service.Deps{Log: zerolog.Nop()}); err == nil || !strings.Contains(err.Error(), filepath.Dir(folder)+" has shares that wait") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestChainsValidate(t *testing.T) {
	t.Parallel()
	cfg := chainsConfig(t, nil)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*sserver.Config)
		want   []string
	}{
		"auto":        {func(c *sserver.Config) { c.Chains[1].Name = "auto" }, []string{`chains[1].name = "auto": is what users say`}},
		"same name":   {func(c *sserver.Config) { c.Chains[1].Name = "btc" }, []string{`chains[1].name = "btc": is chains[0].name already`, `chains[1].data_dir = `}},
		"same topic":  {func(c *sserver.Config) { c.Chains[1].ShareTopic = "btcJob" }, []string{`chains[1].share_topic = "btcJob": is chains[0].job_topic already`}},
		"same folder": {func(c *sserver.Config) { c.Chains[1].DataDir = filepath.Join(c.DataDir, "btc") + "/" }, []string{`chains[1].data_dir = `}},
		"topics":      {func(c *sserver.Config) { c.Kafka.Topics.Job = "x" }, []string{"kafka.topics, handover.urls: with [[chains]] each chain has its own"}},
		"default":     {func(c *sserver.Config) { c.DefaultChain = "ltc" }, []string{`default_chain = "ltc": must be one of [[chains]]`}},
		"no nodes":    {func(c *sserver.Config) { c.UserChain.Path = "" }, []string{`user_chain.path = "": must be where users' nodes are`}},
		"no servers":  {func(c *sserver.Config) { c.ZooKeeper.Servers = nil }, []string{`user_chain.path = "/userchain": needs zookeeper.servers`}},
		"no chains":   {func(c *sserver.Config) { c.Chains = nil }, []string{`user_chain.path = "/userchain": needs [[chains]]`}},
		"names":       {func(c *sserver.Config) { c.Chains[1].Users.Kind = users.Open }, []string{"chains.users.source: open or address must be that of all chains"}},
		"listeners": {func(c *sserver.Config) {
			c.Listeners = []sserver.Listener{{Listen: "127.0.0.1:0", Users: c.Chains[0].Users}}
		}, []string{"listeners.users: with [[chains]] each chain has its own"}},
		"brokers":  {func(c *sserver.Config) { c.Chains[0].Brokers = []string{"x"} }, []string{`chains[0].brokers has "x"`}},
		"nicehash": {func(c *sserver.Config) { c.Chains[0].NiceHash = &sserver.NiceHash{MinDifficulty: -1} }, []string{"chains[0].nicehash.min_difficulty = -1"}},
		"handover": {func(c *sserver.Config) { c.Chains[0].Handover = handover.Config{URLs: []string{"x"}} }, []string{"chains[0].handover.token_file", "chains[0].handover.urls[0]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := cfg
			changed.Chains = slices.Clone(cfg.Chains)
			for i := range changed.Chains {
				source := *changed.Chains[i].Users
				changed.Chains[i].Users = &source
			}
			test.change(&changed)
			err := changed.Validate()
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
			}
			if err != nil && len(strings.Split(err.Error(), "\n")) != len(test.want) {
				t.Errorf("%v", err)
			}
		})
	}
}
