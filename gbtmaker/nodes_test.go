package gbtmaker_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/config"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
)

func login(url string) noderpc.Config {
	return noderpc.Config{URL: url, User: "user", Password: "secret"}
}

// nodes puts all nodes but the first, which start has put in, into a Config.
func nodes(others ...*regnode.Node) func(*gbtmaker.Config) {
	return func(cfg *gbtmaker.Config) {
		for _, n := range others {
			other := login(n.RPCURL())
			other.ZMQ = n.ZMQAddr()
			cfg.Nodes = append(cfg.Nodes, other)
		}
	}
}

// relay gives node to the blocks that it lacks of node from.
func relay(t *testing.T, from, to *regnode.Node) {
	t.Helper()
	client := func(n *regnode.Node) *noderpc.Client {
		c, err := noderpc.New(login(n.RPCURL()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	source, sink := client(from), client(to)
	for height := to.Height() + 1; height <= from.Height(); height++ {
		var hash, block string
		if err := source.Call(t.Context(), "getblockhash", &hash, height); err != nil {
			t.Fatal(err)
		}
		if err := source.Call(t.Context(), "getblock", &block, hash, 0); err != nil {
			t.Fatal(err)
		}
		if v, err := sink.SubmitBlock(t.Context(), block); err != nil || v.Outcome != noderpc.Accepted {
			t.Fatal(v, err)
		}
	}
}

// TestKilledNode has the preferred of two nodes go away and come back.
func TestKilledNode(t *testing.T) {
	t.Parallel()
	cfg := nodeConfig(t)
	first, kill := runNode(t, cfg)
	second := startNode(t)
	p := start(t, first.RPCURL(), nodes(second))
	p.untilIs(t, 1, "node_up", "node", "0")
	p.untilIs(t, 1, "node_up", "node", "1")
	mine(t, first)
	relay(t, first, second)
	p.nextOf(t, 2)
	p.untilIs(t, 1, "node_used", "node", "0")

	begin := time.Now()
	kill()
	p.untilIs(t, 0, "node_up", "node", "0")
	t.Logf("left after %s", time.Since(begin))
	mine(t, second)
	p.nextOf(t, 3)
	p.untilIs(t, 1, "node_used", "node", "1")

	first, _ = runNode(t, cfg)
	begin = time.Now()
	relay(t, second, first)
	p.untilIs(t, 1, "node_up", "node", "0")
	t.Logf("taken back after %s", time.Since(begin))
	mine(t, first)
	p.nextOf(t, 4)
	p.untilIs(t, 1, "node_used", "node", "0")
}

// TestLaggingNode has the preferred node miss a block for a while.
func TestLaggingNode(t *testing.T) {
	t.Parallel()
	first, second := startNode(t), startNode(t)
	p := start(t, first.RPCURL(), nodes(second))
	p.untilIs(t, 1, "node_up", "node", "0")
	p.untilIs(t, 1, "node_up", "node", "1")
	mine(t, second)
	p.nextOf(t, 2)
	p.untilIs(t, 1, "node_used", "node", "1")
	begin := time.Now()
	p.untilIs(t, 0, "node_up", "node", "0")
	t.Logf("left after %s", time.Since(begin))
	if got := p.count(t, "failures_total", "reason", "lag"); got == 0 {
		t.Error("lag is not counted")
	}
	begin = time.Now()
	relay(t, second, first)
	p.untilIs(t, 1, "node_up", "node", "0")
	t.Logf("taken back after %s", time.Since(begin))
	mine(t, first)
	p.nextOf(t, 3)
	p.untilIs(t, 1, "node_used", "node", "0")
	p.untilIs(t, 2, "node_height_blocks", "node", "0")
}

// TestBadNodes has a node beside one that is of no use.
func TestBadNodes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		reason  string
	}{
		"hangs": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the caller left
			<-r.Context().Done()
		}, "rpc"},
		"garbage":       {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "rpc"},
		"other network": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"result":%s}`, syncedChain) }, "chain"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := httptest.NewServer(tt.handler)
			t.Cleanup(bad.Close)
			good := startNode(t)
			p := start(t, bad.URL, nodes(good))
			p.nextOf(t, 1)
			p.untilAtLeast(t, 1, "failures_total", "reason", tt.reason)
			mine(t, good)
			p.nextOf(t, 2)
			if p.count(t, "node_up", "node", "0") != 0 || p.count(t, "node_up", "node", "1") != 1 {
				t.Error("the bad node is up, or the good one is not")
			}
			if err := p.Ready(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSlowNode has a node that takes its time and is the only one.
func TestSlowNode(t *testing.T) {
	t.Parallel()
	fake := newFake(syncedChain, goodTemplate)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(300 * time.Millisecond)
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p := start(t, server.URL, func(cfg *gbtmaker.Config) { cfg.Network = "mainnet" })
	p.nextOf(t, 10)
	if got := p.count(t, "node_latency_seconds", "node", "0"); got < 0.3 {
		t.Errorf("latency %v s", got)
	}
}

// The block that a fake node's templates of a height build on, and the node's chain then.
func templateOf(height int, fork string, value int) string {
	return fmt.Sprintf(`{"version":536870912,"previousblockhash":"%s","transactions":[],"coinbasevalue":%d,"mintime":1,"curtime":2,"bits":"1d00ffff","height":%d}`,
		blockOf(height-1, fork), value, height)
}

func blockOf(height int, fork string) string { return fmt.Sprintf("%s%062d", fork, height) }

func (f *fakeNode) setHeight(height int, fork string, value int) {
	f.template.Store(templateOf(height+1, fork, value))
	f.chain.Store(fmt.Sprintf(`{"chain":"main","blocks":%d,"headers":%[1]d,"bestblockhash":%q}`, height, blockOf(height, fork)))
}

// TestLowerHeight has a node fall back without, and then with a reorganisation away from the block that miners work on.
func TestLowerHeight(t *testing.T) {
	t.Parallel()
	fake, url := startFake(t, "", "")
	fake.setHeight(20, "aa", 1)
	p := start(t, url, func(cfg *gbtmaker.Config) { cfg.Network = "mainnet" })
	p.nextOf(t, 21)
	fake.setHeight(19, "aa", 1)
	p.untilAtLeast(t, 1, "failures_total", "reason", "lag")
	if len(p.raw) != 0 {
		t.Error("a lower template was written")
	}
	fake.header.Store(`{"height":20,"confirmations":-1}`)
	fake.setHeight(19, "bb", 1)
	if raw := <-p.raw; raw.Left.String() != blockOf(20, "aa") {
		t.Errorf("left block %s", raw.Left)
	}
	for light := range p.light {
		if light.Template.Height == 20 {
			if light.Left.String() != blockOf(20, "aa") {
				t.Errorf("left block of the light template %s", light.Left)
			}
			break
		}
	}
	p.untilIs(t, 1, "node_up", "node", "0")
	fake.setHeight(20, "bb", 2)
	if raw := <-p.raw; raw.Left != (chainhash.Hash{}) {
		t.Error("block still left at a height that no longer is lower")
	}
	if got := p.count(t, "failures_total", "reason", "time"); got != 0 {
		t.Errorf("%v failures by time", got)
	}
}

// branch is a chain that is fork's from a block on.
type branch struct {
	fork          string
	since, height int
	bits          string
	work          int64
}

func (b *branch) block(height int) string {
	if height < b.since {
		return blockOf(height, "00")
	}
	return blockOf(height, b.fork)
}

func (b *branch) header(hash string) string {
	height, err := strconv.Atoi(strings.TrimLeft(hash[2:], "0"))
	if err != nil || height > b.height || b.block(height) != hash {
		return ""
	}
	return fmt.Sprintf(`{"height":%d,"confirmations":%d}`, height, b.height-height+1)
}

// setBranch puts the node on a branch.
func (f *fakeNode) setBranch(b branch) {
	f.branch.Store(&b)
	f.template.Store(strings.Replace(templateOf(b.height+1, b.fork, 1), "1d00ffff", b.bits, 1))
	f.chain.Store(fmt.Sprintf(`{"chain":"main","blocks":%d,"headers":%[1]d,"bestblockhash":%q,"chainwork":"%064x"}`, b.height, b.block(b.height), b.work))
}

// TestBranchWithLessWork has a node with other rules: the same name of the chain, more blocks, easier bits and less
// work. It may be the first that answers.
func TestBranchWithLessWork(t *testing.T) {
	t.Parallel()
	good := branch{"aa", 4000, 4010, "17021fff", 1 << 50}
	wrong := branch{"bb", 4000, 6060, "1a01ffff", 1 << 49}
	for _, wrongFirst := range []bool{false, true} {
		t.Run(fmt.Sprint("wrong first: ", wrongFirst), func(t *testing.T) {
			t.Parallel()
			first, url := startFake(t, syncedChain, goodTemplate)
			second, secondURL := startFake(t, syncedChain, goodTemplate)
			if wrongFirst {
				first.setBranch(wrong)
				second.chain.Store(`{"chain":"regtest"}`) // not to be used yet
			} else {
				first.setBranch(good)
				second.setBranch(wrong)
			}
			p := start(t, url, func(cfg *gbtmaker.Config) {
				cfg.Network = "mainnet"
				cfg.Nodes = []noderpc.Config{login(secondURL)}
				cfg.PollInterval = config.Duration(100 * time.Millisecond)
				cfg.RepeatInterval = config.Duration(100 * time.Millisecond)
			})
			bad, alone := second, "1"
			if wrongFirst {
				if raw := <-p.raw; raw.Left != (chainhash.Hash{}) {
					t.Error("the first template sends miners back")
				}
				second.setBranch(good)
				testkit.Eventually(t, "the better branch", func() bool {
					select {
					case raw := <-p.raw:
						template, err := job.ParseTemplate(raw.Response)
						if err != nil || template.Height != 4011 {
							return false
						}
						if raw.Left.String() != wrong.block(6060) {
							t.Errorf("left block %s", raw.Left)
						}
						return true
					default:
						return false
					}
				})
				bad, alone = first, "0"
			}
			p.untilIs(t, 0, "node_up", "node", alone)
			p.untilIs(t, 4000, "node_disagrees_since_block", "node", alone)
			wrong := wrong
			wrong.height++
			bad.setBranch(wrong)
			for range 5 {
				if got := p.next(t).Height; got != 4011 {
					t.Fatalf("template of height %d", got)
				}
			}
		})
	}
}

// TestLeftAlone has the good node go away: the branch with less work is no way out.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	first, url := startFake(t, "", "")
	second, secondURL := startFake(t, "", "")
	first.setBranch(branch{"aa", 4000, 4010, "17021fff", 1 << 50})
	second.setBranch(branch{"bb", 4000, 4020, "17021fff", 1 << 49})
	p := start(t, url, func(cfg *gbtmaker.Config) {
		cfg.Network = "mainnet"
		cfg.Nodes = []noderpc.Config{login(secondURL)}
	})
	if raw := <-p.raw; raw.Work.Lo != 1<<50 {
		t.Errorf("work %s", raw.Work)
	}
	if light := <-p.light; light.Work.Lo != 1<<50 {
		t.Errorf("work of the light template %s", light.Work)
	}
	if got := p.count(t, "only_less_work"); got != 0 {
		t.Error("only less work, while there is the good node")
	}
	first.chain.Store("null")
	first.template.Store("null")
	p.untilIs(t, 0, "node_up", "node", "0")
	p.untilAtLeast(t, 1, "failures_total", "reason", "branch")
	p.untilIs(t, 1, "only_less_work")
	if len(p.raw) != 0 {
		t.Error("a template with less work was written")
	}
	testkit.Eventually(t, "it says what to do", func() bool { // which is told with the next look at the node
		err := p.Ready()
		return err != nil && strings.Contains(err.Error(), "restart gbtmaker without the nodes that had it")
	})
}

// TestUnreachableBits has a node change the difficulty more than the rules allow between periods.
func TestUnreachableBits(t *testing.T) {
	t.Parallel()
	fake, url := startFake(t, "", "")
	fake.setHeight(2014, "aa", 1)
	p := start(t, url, func(cfg *gbtmaker.Config) { cfg.Network = "mainnet" })
	p.nextOf(t, 2015)
	fake.setHeight(2015, "aa", 1)
	fake.template.Store(strings.Replace(templateOf(2016, "aa", 1), "1d00ffff", "1c003fff", 1)) // 1024 times as hard
	p.untilAtLeast(t, 1, "failures_total", "reason", "bits")
	if len(p.raw) != 0 {
		t.Error("template with wrong bits was written")
	}
	fake.template.Store(strings.Replace(templateOf(2016, "aa", 1), "1d00ffff", "1c3fffc0", 1)) // 4 times
	p.nextOf(t, 2016)
}

// TestEasierBits has a testnet's node that gives easier bits 20 minutes after the last block, and nothing that would
// tell.
func TestEasierBits(t *testing.T) {
	t.Parallel()
	const wait = 10 // seconds
	began := time.Now()
	template := func(bits string) string {
		text := strings.Replace(templateOf(200_001, "aa", 1), "1d00ffff", bits, 1)
		return strings.Replace(text, `"curtime":2`, fmt.Sprintf(`"curtime":%d`, time.Now().Unix()), 1)
	}
	fake := newFake(strings.Replace(syncedChain, "main", "testnet4", 1), "")
	fake.header.Store(fmt.Sprintf(`{"height":200000,"confirmations":1,"time":%d}`, began.Unix()+wait-20*60))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bits := "1b00ffff"
		if time.Now().Unix() > began.Unix()+wait {
			bits = "1d00ffff"
		}
		fake.template.Store(template(bits))
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p := start(t, server.URL, func(cfg *gbtmaker.Config) {
		cfg.Network = "testnet4"
		cfg.PollInterval, cfg.RepeatInterval = config.Duration(30*time.Second), config.Duration(30*time.Second)
	})
	if got := p.next(t).Bits; got != 0x1b00ffff {
		t.Fatalf("bits %08x", got)
	}
	if got := p.next(t).Bits; got != 0x1d00ffff {
		t.Errorf("bits %08x", got)
	}
	if late := time.Since(time.Unix(began.Unix()+wait+1, 0)); late > 10*time.Second { // the next look comes later
		t.Errorf("easier bits %s late", late)
	}
}

// TestLostBlock has the node that templates come from forget its last block, as one does that was killed before the
// block was on its disk.
func TestLostBlock(t *testing.T) {
	t.Parallel()
	fake, url := startFake(t, "", "")
	fake.setHeight(20, "aa", 1)
	p := start(t, url, func(cfg *gbtmaker.Config) { cfg.Network = "mainnet" })
	p.nextOf(t, 21)
	fake.header.Store("") // unknown
	fake.setHeight(19, "aa", 1)
	if raw := <-p.raw; raw.Left.String() != blockOf(20, "aa") {
		t.Errorf("left block %s", raw.Left)
	}
}

// TestWrongBits has a node change the difficulty where it does not change.
func TestWrongBits(t *testing.T) {
	t.Parallel()
	fake, url := startFake(t, "", "")
	fake.setHeight(2013, "aa", 1)
	p := start(t, url, func(cfg *gbtmaker.Config) { cfg.Network = "mainnet" })
	p.nextOf(t, 2014)
	fake.setHeight(2014, "aa", 1)
	fake.template.Store(strings.Replace(templateOf(2015, "aa", 1), "1d00ffff", "1c00ffff", 1))
	p.untilAtLeast(t, 1, "failures_total", "reason", "bits")
	if len(p.raw) != 0 {
		t.Error("template with wrong bits was written")
	}
	fake.setHeight(2015, "aa", 1) // the first block of the next period
	fake.template.Store(strings.Replace(templateOf(2016, "aa", 1), "1d00ffff", "1c7fff80", 1))
	p.nextOf(t, 2016)
}

// TestPolicy has the first of two nodes fall behind and catch up.
func TestPolicy(t *testing.T) {
	t.Parallel()
	for policy, want := range map[gbtmaker.Policy]string{gbtmaker.PolicyOrder: "0", gbtmaker.PolicyEqual: "1"} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			first, firstURL := startFake(t, "", "")
			second, secondURL := startFake(t, "", "")
			first.setHeight(20, "aa", 1)
			second.setHeight(20, "aa", 2)
			p := start(t, firstURL, func(cfg *gbtmaker.Config) {
				cfg.Network, cfg.NodePolicy = "mainnet", policy
				cfg.PollInterval = config.Duration(100 * time.Millisecond)
				cfg.RepeatInterval = config.Duration(100 * time.Millisecond)
				cfg.Nodes = []noderpc.Config{login(secondURL)}
			})
			p.nextOf(t, 21)
			second.setHeight(21, "aa", 2)
			p.nextOf(t, 22)
			p.untilIs(t, 1, "node_used", "node", "1")
			first.setHeight(21, "aa", 1)
			p.untilIs(t, 21, "node_height_blocks", "node", "0")
			for range 5 {
				p.nextOf(t, 22)
			}
			if got := p.count(t, "node_used", "node", want); got != 1 {
				t.Errorf("node %s is not used", want)
			}
		})
	}
}

// TestNotify has a node of which only notify tells soon.
func TestNotify(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	p := start(t, proxy(t, node, nil, withoutLongPoll), func(cfg *gbtmaker.Config) {
		cfg.NotifyListen = "127.0.0.1:0"
		cfg.Nodes = []noderpc.Config{login("http://127.0.0.1:1")} // does not hinder
	})
	p.nextOf(t, 1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	call := func(method, path string) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.NotifyAddr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	height := int32(1)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		// The look at the tip, every two seconds, may come first.
		for was := p.count(t, "templates_total", "trigger", "notify"); p.count(t, "templates_total", "trigger", "notify") == was; {
			mine(t, node)
			height++
			if got := call(method, "/notify?block=00ab"); got != http.StatusNoContent {
				t.Fatalf("%s: HTTP %d", method, got)
			}
			begin := time.Now()
			p.nextOf(t, height)
			t.Logf("template of height %d after %s", height, time.Since(begin))
			p.untilIs(t, float64(height), "template_height_blocks")
		}
	}
	if got := call(http.MethodPut, "/notify"); got != http.StatusMethodNotAllowed {
		t.Errorf("PUT: HTTP %d", got)
	}
	if got := call(http.MethodGet, "/"); got != http.StatusNotFound {
		t.Errorf("other path: HTTP %d", got)
	}
}
