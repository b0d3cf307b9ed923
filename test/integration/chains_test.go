//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/go-zookeeper/zk"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
	"btcpool/sserver"
	"btcpool/test/integration/rig"
)

// chainNames are the chains of these tests. Their jobs are told apart by the height of the previous block's hash.
var chainNames = []string{"btc", "bch"}

// multiChain is a sserver that mines two chains for users 0 to n-1.
type multiChain struct {
	*sserver.Service
	t       testing.TB
	cfg     sserver.Config
	metrics *prometheus.Registry
	stop    func()
}

func multiChainConfig(t testing.TB, zookeeper string, kafka bus.Config, n int) sserver.Config {
	cfg := sserver.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = t.TempDir()
	cfg.LoginTimeout = config.Duration(2 * testkit.Patience)
	cfg.ZooKeeper.Servers = []string{zookeeper}
	cfg.ZooKeeper.SessionTimeout = config.Duration(4 * time.Second)
	cfg.UserChain.Path = userChain
	cfg.UserChain.Timeout = config.Duration(testkit.Patience) // the machine is busy
	cfg.MaxJobLifetime = config.Duration(time.Hour)
	cfg.MaxJobDelay = config.Duration(time.Hour)
	cfg.MiningNotifyInterval = config.Duration(time.Hour)
	cfg.Development.Simulator = true
	cfg.Kafka = kafka
	for i, name := range chainNames {
		ids := make(map[string]int32)
		for u := range n {
			ids[userName(u)] = int32(1 + u + i*100_000)
		}
		cfg.Chains = append(cfg.Chains, sserver.Chain{
			Name: name, JobTopic: name + "Job", ShareTopic: name + "Share", SolvedShareTopic: name + "SolvedShare", CommonEventsTopic: name + "Events",
			Users: &users.Source{Kind: users.Static, Static: ids},
		})
	}
	return cfg
}

func userName(n int) string { return fmt.Sprintf("user%04d", n) }

func startMultiChain(t testing.TB, cfg sserver.Config) *multiChain {
	t.Helper()
	m := &multiChain{t: t, cfg: cfg, metrics: prometheus.NewRegistry()}
	var err error
	m.Service, err = sserver.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel), Metrics: m.metrics})
	if err != nil {
		t.Fatal(err)
	}
	m.stop = testkit.Run(t, m.Run)
	client := testkit.Bus(t, cfg.Kafka)
	ids := job.NewIDs(1)
	for i, name := range chainNames {
		j := testkit.Job(ids, byte(1+i), 100)
		j.PrevHash = chainhash.Hash{0: byte(1 + i), 31: 1}
		j.SubPools = map[string]job.SubPool{"farm": {Coinbase1: bytes.Repeat([]byte{0x33 + byte(i)}, 60), Coinbase2: j.Coinbase2}}
		if err := client.EnsureTopics(t.Context(), name+"Job"); err != nil {
			t.Fatal(err)
		}
		if err := client.Write(t.Context(), name+"Job", bus.Message{Value: j.AppendTo(nil)}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "all chains have jobs", func() bool {
		return m.metric("btcpool_sserver_chain_ready") == float64(len(chainNames))
	})
	return m
}

func (m *multiChain) metric(name string, labels ...string) float64 {
	return testkit.Metric(m.t, m.metrics, name, labels...)
}

// chainMiner is a connection that only looks at the jobs it gets.
type chainMiner struct {
	conn  net.Conn
	user  string
	chain atomic.Int32 // of the last job
	own   atomic.Int32 // first byte of its coinbase
	jobs  atomic.Int64
	heard atomic.Int64 // when the last job came, Unix nanoseconds
	dirty atomic.Int64 // jobs of another chain that were not clean
	gone  atomic.Bool
	reply chan string // answers, but for those to the login
}

// chainMiner logs a user in.
func (m *multiChain) miner(user string, done *sync.WaitGroup) *chainMiner {
	conn, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		m.t.Fatal(err)
	}
	c := &chainMiner{conn: conn, user: user, reply: make(chan string, 10)}
	c.chain.Store(-1)
	fmt.Fprintf(conn, `{"id":1,"method":"mining.subscribe","params":["test/1"]}`+"\n"+`{"id":2,"method":"mining.authorize","params":["%s.rig","x"]}`+"\n", user)
	done.Go(func() {
		defer c.gone.Store(true)
		r := bufio.NewReaderSize(conn, 4<<10)
		for {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			if !bytes.Contains(line, []byte("mining.notify\",\"params")) && !bytes.Contains(line, []byte("\"mining.notify\"")) || bytes.Contains(line, []byte(`"result":[[`)) {
				if bytes.Contains(line, []byte(`"id":`)) && !bytes.Contains(line, []byte(`"id":null`)) && !bytes.Contains(line, []byte(`"id":1,`)) {
					select {
					case c.reply <- string(line):
					default:
					}
				}
				continue
			}
			var note struct{ Params []any }
			if err := json.Unmarshal(line, &note); err != nil {
				return
			}
			prev := note.Params[1].(string)
			chain := int32(-1)
			for i := range chainNames {
				if strings.Contains(prev[:8], fmt.Sprintf("%02x", 1+i)) {
					chain = int32(i)
				}
			}
			if before := c.chain.Swap(chain); before != chain && !note.Params[len(note.Params)-1].(bool) {
				c.dirty.Add(1)
			}
			if n, err := strconv.ParseInt(note.Params[2].(string)[:2], 16, 32); err == nil {
				c.own.Store(int32(n))
			}
			c.heard.Store(time.Now().UnixNano())
			c.jobs.Add(1)
		}
	})
	return c
}

// miners logs users in, one connection each.
func (m *multiChain) miners(n, conns int) []*chainMiner {
	m.t.Helper()
	var reading sync.WaitGroup
	var all []*chainMiner
	m.t.Cleanup(func() {
		for _, c := range all {
			c.conn.Close()
		}
		reading.Wait()
	})
	for i := range conns {
		all = append(all, m.miner(userName(i%n), &reading))
	}
	testkit.Eventually(m.t, "all miners have jobs", func() bool {
		return !slices.ContainsFunc(all, func(c *chainMiner) bool { return c.jobs.Load() == 0 })
	})
	return all
}

// TestUserChains has a user's node come, change, make no sense and go: the miner follows what it can, and there is never
// more than one watch.
func TestUserChains(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	m := startMultiChain(t, multiChainConfig(t, z.Addr, testkit.Broker(t), 2))
	conn := observer(t, z.Addr)
	c := m.miners(1, 1)[0]
	on := func(chain int, why string) {
		t.Helper()
		testkit.Eventually(t, why, func() bool { return c.chain.Load() == int32(chain) })
	}
	on(0, "without a node it begins by default")
	setNode(t, conn, userChain+"/"+userName(0), "bch")
	on(1, "a node that comes is noticed")
	setNode(t, conn, userChain+"/"+userName(0), `{"chain":"btc","subpool":"","puids":{"btc":77}}`)
	on(0, "JSON is read as well")
	setNode(t, conn, userChain+"/"+userName(0), "ltc")
	testkit.Eventually(t, "a chain of others' is counted", func() bool {
		return m.metric("btcpool_sserver_switches_total", "result", "unknown chain") == 1
	})
	setNode(t, conn, userChain+"/"+userName(0), "{")
	testkit.Eventually(t, "nonsense is counted", func() bool { return m.metric("btcpool_chainwatch_reads_total", "result", "invalid") > 0 })
	setNode(t, conn, userChain+"/"+userName(0), "bch")
	on(1, "it follows again")
	if err := conn.Delete(userChain+"/"+userName(0), -1); err != nil {
		t.Fatal(err)
	}
	on(0, "without its node it is where it began")
	for range 300 { // logins and logouts
		again := m.miner(userName(0), new(sync.WaitGroup))
		again.conn.Close()
	}
	testkit.Eventually(t, "one session is left", func() bool {
		return m.metric("btcpool_sserver_chain_sessions") == 1
	})
	testkit.Until(t, testkit.Patience, "one watch is left", func(ctx context.Context) error {
		n, err := z.Watches(ctx)
		if ours := m.metric("btcpool_chainwatch_watches"); err == nil && (n != 1 || ours != 1) {
			err = fmt.Errorf("ZooKeeper has %d watches, the server knows of %v", n, ours)
		}
		return err
	})
	if n := c.dirty.Load(); n > 0 {
		t.Errorf("%d jobs of another chain were not clean", n)
	}
}

// TestUserSubPools has a user's node name a sub-pool, another chain, one that there is not, and none: the user's miner works
// for that coinbase at once, and nobody else's does.
func TestUserSubPools(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	m := startMultiChain(t, multiChainConfig(t, z.Addr, testkit.Broker(t), 2))
	conn := observer(t, z.Addr)
	miners := m.miners(2, 2)
	const farm, farmOfBCH, pool = 0x33, 0x34, 0x11
	for i, step := range []struct {
		node string
		own  int32
	}{
		{`{"chain":"btc","subpool":"farm","puids":{}}`, farm},
		{`{"chain":"bch","subpool":"farm","puids":{}}`, farmOfBCH},
		{`{"chain":"bch","subpool":"nobody","puids":{}}`, pool},
		{`{"chain":"btc","subpool":"farm","puids":{}}`, farm},
		{`btc`, pool},
	} {
		setNode(t, conn, userChain+"/"+userName(0), step.node)
		testkit.Eventually(t, fmt.Sprintf("step %d is followed", i), func() bool { return miners[0].own.Load() == step.own })
	}
	if n := m.metric("btcpool_sserver_sub_pool_missing_total"); n != 1 {
		t.Errorf("%v jobs lacked the sub-pool, want 1", n)
	}
	if jobs, own := miners[1].jobs.Load(), miners[1].own.Load(); jobs != 1 || own != pool {
		t.Errorf("the other user had %d jobs, the last for coinbase %x", jobs, own)
	}
}

// TestUserRegistration has users asked for who are not known: whoever registers them removes the request when there is a
// node, or refuses by that; nobody does within the time that a miner waits for; there are too many. However many miners of
// a user come, there is one request.
func TestUserRegistration(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	cfg := multiChainConfig(t, z.Addr, testkit.Broker(t), 1)
	cfg.UserChain.AutoReg, cfg.UserChain.MaxRegistrations = autoReg, 2
	cfg.UserChain.RegistrationTimeout = config.Duration(20 * time.Second)
	m := startMultiChain(t, cfg)
	conn := observer(t, z.Addr)
	var reading sync.WaitGroup
	var all []*chainMiner
	t.Cleanup(func() {
		for _, c := range all {
			c.conn.Close()
		}
		reading.Wait()
	})
	come := func(user string) *chainMiner {
		c := m.miner(user, &reading)
		all = append(all, c)
		return c
	}
	requests := func(want ...string) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("there are requests for %v", want), func() bool {
			names, _, err := conn.Children(autoReg)
			slices.Sort(names)
			return err == nil && slices.Equal(names, want)
		})
	}
	dealtWith := func(user string) {
		t.Helper()
		if err := conn.Delete(autoReg+"/"+user, -1); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(c *chainMiner, code int) {
		t.Helper()
		select {
		case line := <-c.reply:
			if !strings.Contains(line, fmt.Sprintf("[%d,", code)) {
				t.Errorf("%s is told %s, want code %d", c.user, line, code)
			}
		case <-time.After(testkit.Patience):
			t.Errorf("%s is told nothing", c.user)
		}
	}

	setNode(t, conn, autoReg, "")
	fresh := []*chainMiner{come("fresh"), come("fresh")}
	requests("fresh")
	text, _, err := conn.Get(autoReg + "/fresh")
	if err != nil || !strings.Contains(string(text), `"Worker":"fresh.rig"`) || !strings.Contains(string(text), `"SessionID":`) {
		t.Errorf("the request says %s, %v", text, err)
	}
	setNode(t, conn, userChain+"/fresh", `{"chain":"bch","subpool":"","puids":{"bch":77}}`)
	dealtWith("fresh")
	testkit.Eventually(t, "a user who is registered mines", func() bool {
		return !slices.ContainsFunc(fresh, func(c *chainMiner) bool { return c.chain.Load() != 1 })
	})
	bad := come("refused")
	requests("refused")
	dealtWith("refused")
	testkit.Eventually(t, "that is noticed", func() bool { return m.metric("btcpool_chainwatch_registrations_total", "result", "done") == 2 })
	late := []*chainMiner{come("late"), come("later")}
	requests("late", "later")
	refused(come("many"), 30)
	for _, c := range late {
		refused(c, 30)
	}
	refused(bad, 29)
	for result, want := range map[string]float64{"asked": 4, "done": 2, "late": 2, "too many": 1} {
		if n := m.metric("btcpool_chainwatch_registrations_total", "result", result); n != want {
			t.Errorf("%v registrations %s, want %v", n, result, want)
		}
	}
}

// TestUserChainsWithoutZooKeeper has ZooKeeper silent and gone: sessions and logins go on by what is known, after a
// restart as well, and who is not known is not said to be nobody.
func TestUserChainsWithoutZooKeeper(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	cfg := multiChainConfig(t, z.Addr, testkit.Broker(t), 3)
	cfg.UserChain.AutoReg = autoReg
	cfg.UserChain.Timeout = config.Duration(500 * time.Millisecond)
	m := startMultiChain(t, cfg)
	conn := observer(t, z.Addr)
	setNode(t, conn, userChain+"/"+userName(0), "bch")
	var reading sync.WaitGroup
	defer reading.Wait()
	wants := func(m *multiChain, user string, chain int32) *chainMiner {
		t.Helper()
		c := m.miner(user, &reading)
		t.Cleanup(func() { c.conn.Close() })
		testkit.Eventually(t, user+" is where its node said", func() bool { return c.chain.Load() == chain })
		return c
	}
	unavailable := func(m *multiChain, user string) {
		t.Helper()
		c := m.miner(user, &reading)
		defer c.conn.Close()
		if answer := <-c.reply; !strings.Contains(answer, `"error":[30,`) {
			t.Errorf("%s: %s", user, answer)
		}
	}
	all := []*chainMiner{wants(m, userName(0), 1), wants(m, userName(1), 0)}
	z.Pause() // connections stay, nobody answers
	all = append(all, wants(m, userName(0), 1), wants(m, userName(1), 0))
	unavailable(m, userName(2))
	unavailable(m, "nobody")
	z.Resume()
	z.Kill()
	all = append(all, wants(m, userName(0), 1), wants(m, userName(1), 0))
	unavailable(m, "nobody")
	m.stop()
	m = startMultiChain(t, cfg)
	all = append(all, wants(m, userName(0), 1), wants(m, userName(1), 0))
	unavailable(m, userName(2))
	if n := m.metric("btcpool_sserver_logins_refused_total", "reason", "unknown"); n != 0 {
		t.Errorf("%v users are said to be unknown", n)
	}
	z.Start()
	z.WaitReady(t)
	conn = observer(t, z.Addr)
	if there, _, err := conn.Exists(autoReg); err != nil || there {
		t.Errorf("somebody was asked for: %v", err)
	}
	setNode(t, conn, userChain+"/"+userName(0), "btc")
	testkit.Eventually(t, "the node is followed again", func() bool { return all[len(all)-2].chain.Load() == 0 })
	testkit.Eventually(t, "ZooKeeper is heard again", func() bool { return m.metric("btcpool_chainwatch_connected") == 1 })
	for _, c := range all {
		c.conn.Close()
	}
}

// TestSwitchesAndAKill switches 1,000 users by switchapi, each several times, and kills ZooKeeper meanwhile: 10 s after
// all is written nobody is on a wrong chain, and there is a watch for each user.
func TestSwitchesAndAKill(t *testing.T) {
	t.Parallel()
	const n, switches = 1000, 3
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	m := startMultiChain(t, multiChainConfig(t, z.Addr, testkit.Broker(t), n))
	miners := m.miners(n, n)
	api := startSwitchAPI(t, dir, z.Addr, "", "")
	for round := range switches {
		var order struct {
			UserCoins []map[string]any `json:"usercoins"`
		}
		for chain, name := range chainNames {
			var some []string
			for u := range n {
				if want(u, round) == chain {
					some = append(some, userName(u))
				}
			}
			order.UserCoins = append(order.UserCoins, map[string]any{"coin": name, "punames": some})
		}
		text, err := json.Marshal(order)
		if err != nil {
			t.Fatal(err)
		}
		status, answer, err := api.ask(t.Context(), http.MethodPost, "/switch/multi-user", string(text))
		if err != nil || status != http.StatusOK && status != http.StatusAccepted {
			t.Fatalf("round %d: %d, %.300s, %v", round, status, answer, err)
		}
		if round == 1 {
			z.Kill()
			z.Start()
			z.WaitReady(t)
		}
	}
	conn := observer(t, z.Addr)
	testkit.Until(t, testkit.Patience, "all is written", func(context.Context) error {
		for u := range n {
			got, _, err := conn.Get(userChain + "/" + userName(u))
			if err == nil && string(got) != chainNames[want(u, switches-1)] {
				err = fmt.Errorf("%s says %s", userName(u), got)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	began := time.Now()
	wrong := func() (n int) {
		for u, c := range miners {
			if int(c.chain.Load()) != want(u, switches-1) {
				n++
			}
		}
		return n
	}
	testkit.Eventually(t, "nobody is on a wrong chain", func() bool { return wrong() == 0 })
	t.Logf("nobody was on a wrong chain %s after the last node was seen written", time.Since(began).Round(time.Millisecond))
	testkit.Until(t, testkit.Patience, "one watch a user", func(ctx context.Context) error {
		watches, err := z.Watches(ctx)
		if err == nil && watches != n {
			err = fmt.Errorf("%d watches", watches)
		}
		return err
	})
	for _, c := range miners {
		if c.gone.Load() || c.dirty.Load() > 0 {
			t.Fatalf("%s: gone %v, %d jobs of another chain that were not clean", c.user, c.gone.Load(), c.dirty.Load())
		}
	}
}

// want is the chain of a user after a round of switches.
func want(user, round int) int { return (user*7 + round*(1+user%2)) % 2 }

// From the write of a node to the new chain's job, with 9,700 miners of 500 users beside: one user after another.
func BenchmarkSwitch(b *testing.B) {
	const users, conns = 500, 9700
	z := rig.StartZooKeeper(b, b.TempDir())
	m := startMultiChain(b, multiChainConfig(b, z.Addr, testkit.Broker(b), users))
	miners := m.miners(users, conns)
	conn, _, err := zk.Connect([]string{z.Addr}, 10*time.Second, zk.WithLogInfo(false))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	for u := range users {
		setNode(b, conn, userChain+"/"+userName(u), chainNames[0])
	}
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		user, chain := n%users, 1-n/users%2
		began := time.Now()
		setNode(b, conn, userChain+"/"+userName(user), chainNames[chain])
		for i := user; i < conns; i += users {
			c := miners[i]
			testkit.Eventually(b, "moved", func() bool { return c.chain.Load() == int32(chain) })
			took = append(took, time.Unix(0, c.heard.Load()).Sub(began))
		}
	}
	slices.Sort(took)
	for _, part := range []struct {
		name string
		at   int
	}{{"p50-ms", len(took) / 2}, {"p99-ms", len(took) * 99 / 100}, {"max-ms", len(took) - 1}} {
		b.ReportMetric(float64(took[part.at].Microseconds())/1000, part.name)
	}
	b.ReportMetric(0, "ns/op")
}

// TestMineTwoChains mines two regtest chains by one sserver, the users switched by switchapi meanwhile: blocks are
// accepted on both, and each chain's log, blocks and statistics are of its own shares.
func TestMineTwoChains(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	node := rig.StartBtcd(t, dir, rig.PayoutAddress)
	other, err := regnode.Open(regnode.Config{Dir: filepath.Join(dir, "regnode"), User: "node", Password: "secret", Bits: 0x207ffffe}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, other.Run)
	db := rig.StartMariaDB(t, dir)
	heights := []func(context.Context) (int64, error){
		func(ctx context.Context) (height int64, err error) {
			err = node.Call(ctx, "getblockcount", &height)
			return height, err
		},
		func(context.Context) (int64, error) { return int64(other.Height()), nil },
	}
	nodes := []rig.Node{node.Node(), {URL: other.RPCURL(), User: "node", Password: "secret"}}
	stratum := testkit.FreeAddr(t)
	var pools []*rig.Pool
	var dbs []*rig.MariaDB
	sections := ""
	for i, name := range chainNames {
		kafka := testkit.Broker(t)
		own := *db
		own.DSN = strings.TrimSuffix(db.DSN, "/pool") + "/" + name
		if _, err := db.Open(t).Exec("CREATE DATABASE " + name + " CHARACTER SET utf8mb4"); err != nil {
			t.Fatal(err)
		}
		its := filepath.Join(dir, name)
		if err := os.MkdirAll(its, 0o755); err != nil {
			t.Fatal(err)
		}
		pool := rig.Setup{
			Kafka: &rig.Kafka{Addr: kafka.Brokers[0]}, DB: &own, Nodes: nodes[i : i+1],
			Only: []string{"gbtmaker", "jobmaker", "blkmaker", "sharelogger", "slparser", "statshttpd"},
		}.Start(t, its)
		pools, dbs = append(pools, pool), append(dbs, &own)
		sections += fmt.Sprintf("[[chains]]\nname = %q\nbrokers = [%q]\njob_topic = \"BtcJob\"\nshare_topic = \"BtcShare\"\nsolved_share_topic = \"BtcSolvedShare\"\n"+
			"common_events_topic = \"BtcCommonEvents\"\n[chains.users]\nsource = \"static\"\n[chains.users.static]\nalice = %d\nbob = %d\n",
			name, kafka.Brokers[0], 1+10*i, 2+10*i)
	}
	rig.StartService(t, dir, "sserver", "sserver", fmt.Sprintf("listen = %q\ndata_dir = %q\ndefault_difficulty = 0.000244140625\nmin_difficulty = 0.00000001\n"+
		"share_interval = \"1s\"\n[user_chain]\npath = %q\n[zookeeper]\nservers = [%q]\nsession_timeout = \"4s\"\n%s",
		stratum, filepath.Join(dir, "sserver"), userChain, z.Addr, sections))
	api := startSwitchAPI(t, dir, z.Addr, "", "")
	testkit.Until(t, testkit.Patience, "sserver listens", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", stratum)
		if err == nil {
			conn.Close()
		}
		return err
	})
	at := &rig.Pool{Stratum: stratum}
	alice := at.StartMiner(t, dir, "alice", "-user", "alice.rig1", "-threads", "1")
	bob := at.StartMiner(t, dir, "bob", "-user", "bob.rig2", "-threads", "1")
	grow := func(chain int, by int64) {
		t.Helper()
		var before int64
		testkit.Until(t, testkit.Patience, chainNames[chain]+" grows", func(ctx context.Context) error {
			height, err := heights[chain](ctx)
			if before == 0 {
				before = height + 1
			}
			if err == nil && height < before+by {
				err = fmt.Errorf("height %d", height)
			}
			return err
		})
	}
	grow(0, 3)
	for _, chain := range []int{1, 0, 1} {
		api.wants(http.StatusOK, `"state":"written"`, http.MethodGet, "/switch?puname=alice&coin="+chainNames[chain]+"&wait=10000", "")
		grow(chain, 3)
		grow(0, 1) // bob stays
	}
	accepted := int64(0)
	for _, m := range []*rig.Miner{alice, bob} {
		if code, err := m.Stop(); err != nil || code != 0 {
			t.Errorf("%s ended with code %d, %v", m.Name, code, err)
		}
		r := m.Report()
		if r.Reconnects != 0 || r.Unanswered != 0 {
			t.Errorf("%s: %+v", m.Name, r)
		}
		accepted += r.Accepted
	}
	testkit.Until(t, testkit.Patience, "the logs have all shares", func(context.Context) error {
		logged := int64(0)
		for i, p := range pools {
			for _, s := range p.ReadLog(t) {
				if s.UserID != int32(1+10*i) && s.UserID != int32(2+10*i) || i == 1 && s.UserID == 12 {
					t.Fatalf("share in the log of %s: %+v", chainNames[i], s)
				}
				if s.Status.IsAccepted() {
					logged++
				}
			}
		}
		if logged != accepted {
			return fmt.Errorf("%d shares, the miners have %d", logged, accepted)
		}
		return nil
	})
	for i, p := range pools {
		p.WaitStatistics(t, dbs[i])
		testkit.Until(t, testkit.Patience, "found_blocks has the blocks of "+chainNames[i], func(ctx context.Context) error {
			var found int64
			if err := dbs[i].Open(t).QueryRowContext(ctx, "SELECT COUNT(DISTINCT height) FROM found_blocks WHERE state IN ('accepted', 'confirmed')").Scan(&found); err != nil {
				return err
			}
			height, err := heights[i](ctx)
			if err == nil && found != height {
				err = fmt.Errorf("%d blocks, height %d", found, height)
			}
			return err
		})
	}
}
