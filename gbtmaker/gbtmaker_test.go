package gbtmaker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"btcpool/gbtmaker"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/durable"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/go-zeromq/zmq4.(*pubMWriter).run"), // a PUB socket's, even when closed
	)
}

func startNode(t *testing.T) *regnode.Node {
	t.Helper()
	node, _ := runNode(t, nodeConfig(t))
	return node
}

func nodeConfig(t *testing.T) regnode.Config {
	t.Helper()
	return regnode.Config{
		Dir: t.TempDir(), RPCAddr: testkit.FreeAddr(t), ZMQAddr: testkit.FreeAddr(t), User: "user", Password: "secret", Bits: 0x207fffff,
	}
}

// runNode runs a node until stop is called or the test ends.
func runNode(t *testing.T, cfg regnode.Config) (node *regnode.Node, stop func()) {
	t.Helper()
	node, err := regnode.Open(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return node, testkit.Run(t, func(ctx context.Context) error { return errors.Join(node.Run(ctx), node.Close()) })
}

// pool is a gbtmaker under test and what comes out of it.
type pool struct {
	*gbtmaker.Service
	metrics *prometheus.Registry
	raw     chan job.RawGBT
	light   chan job.LightGBT
	stop    func()
}

// start runs a gbtmaker that polls so rarely that only news make templates, unless change says otherwise.
func start(t *testing.T, nodeURL string, change func(*gbtmaker.Config)) pool {
	t.Helper()
	cfg := gbtmaker.DefaultConfig()
	cfg.Network = "regtest"
	cfg.DataDir = t.TempDir()
	cfg.PollInterval = config.Duration(30 * time.Second)
	cfg.Node = noderpc.Config{URL: nodeURL, User: "user", Password: "secret"}
	cfg.Kafka = testkit.Broker(t)
	if change != nil {
		change(&cfg)
	}
	p := pool{metrics: prometheus.NewRegistry(), raw: make(chan job.RawGBT, 1000), light: make(chan job.LightGBT, 1000)}
	var err error
	p.Service, err = gbtmaker.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: p.metrics})
	if err != nil {
		t.Fatal(err)
	}
	reader := testkit.Bus(t, cfg.Kafka)
	testkit.Run(t, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			return reader.Read(ctx, cfg.Kafka.Topics.RawGBT, bus.Earliest(), func(m bus.Message) error {
				raw, err := job.ParseRawGBT(m.Value)
				if err == nil {
					p.raw <- raw
				}
				return err
			})
		})
		g.Go(func() error {
			return reader.Read(ctx, job.LightTopic(cfg.Kafka.Topics.RawGBT), bus.Earliest(), func(m bus.Message) error {
				light, err := job.ParseLightGBT(m.Value)
				if err == nil {
					p.light <- light
				}
				return err
			})
		})
		return g.Wait()
	})
	p.stop = testkit.Run(t, p.Run)
	return p
}

// next returns the next template of the topic.
func (p pool) next(t *testing.T) *job.Template {
	t.Helper()
	select {
	case raw := <-p.raw:
		if age := time.Since(time.Unix(int64(raw.CreatedAt), 0)); age < 0 || age > testkit.Patience {
			t.Errorf("created %s ago", age)
		}
		template, err := job.ParseTemplate(raw.Response)
		if err != nil {
			t.Fatal(err)
		}
		return template
	case <-time.After(testkit.Patience):
		t.Fatalf("no template; ready: %v", p.Ready())
		return nil
	}
}

// followsBy has blocks mined until five were heard of by a trigger: a look at the tip, every two seconds, may come first.
func (p pool) followsBy(t *testing.T, node *regnode.Node, trigger string) {
	t.Helper()
	heard := func() float64 { return p.count(t, "templates_total", "trigger", trigger) }
	enough := heard() + 5
	testkit.Eventually(t, "blocks are heard of by "+trigger, func() bool {
		begin := time.Now()
		mine(t, node)
		height := node.Height() + 1
		p.nextOf(t, height)
		t.Logf("template of height %d after %s", height, time.Since(begin))
		return heard() >= enough
	})
}

// nextOf skips templates until one of height comes.
func (p pool) nextOf(t *testing.T, height int32) {
	t.Helper()
	for p.next(t).Height != height {
	}
}

// count returns a metric by the names and values of its labels.
func (p pool) count(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	return testkit.Metric(t, p.metrics, "btcpool_gbtmaker_"+name, labels...)
}

func (p pool) untilAtLeast(t *testing.T, least float64, name string, labels ...string) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%s%v of %v", name, labels, least), func() bool { return p.count(t, name, labels...) >= least })
}

func (p pool) untilIs(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%s%v = %v", name, labels, want), func() bool { return p.count(t, name, labels...) == want })
}

// proxy stands before a node. It changes answers with edit, and while down is true it answers as an overloaded node
// does.
func proxy(t *testing.T, node *regnode.Node, down *atomic.Bool, edit func([]byte) []byte) string {
	t.Helper()
	target, err := url.Parse(node.RPCURL())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	p := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
		ModifyResponse: func(r *http.Response) error {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body = edit(body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			r.ContentLength = int64(len(body))
			r.Header.Del("Content-Length")
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down != nil && down.Load() {
			http.Error(w, "Work queue depth exceeded", http.StatusServiceUnavailable)
			return
		}
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.URL
}

var longPollID = regexp.MustCompile(`"longpollid":"[^"]*",`)

func withoutLongPoll(body []byte) []byte { return longPollID.ReplaceAll(body, nil) }

func mine(t *testing.T, node *regnode.Node) {
	t.Helper()
	if _, err := node.Generate(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
}

func TestLongPollAlone(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	p := start(t, node.RPCURL(), nil)
	p.nextOf(t, 1)
	p.followsBy(t, node, "longpoll")
	if err := p.Ready(); err != nil {
		t.Error(err)
	}
}

func TestZMQAlone(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	p := start(t, proxy(t, node, nil, withoutLongPoll), func(cfg *gbtmaker.Config) { cfg.Node.ZMQ = node.ZMQAddr() })
	p.nextOf(t, 1)
	// A subscription takes a moment to arrive: mine until a block is heard of.
	for heard := false; !heard; {
		mine(t, node)
		select {
		case <-p.raw:
			heard = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.followsBy(t, node, "zmq")
	if got := p.count(t, "templates_total", "trigger", "longpoll"); got != 0 {
		t.Errorf("%v templates by long poll, want none", got)
	}
}

// TestBoth has one message a block although two ways tell of it.
func TestBoth(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	p := start(t, node.RPCURL(), func(cfg *gbtmaker.Config) { cfg.Node.ZMQ = node.ZMQAddr() })
	p.nextOf(t, 1)
	for height := int32(2); height < 12; height++ {
		mine(t, node)
		if got := p.next(t).Height; got != height {
			t.Fatalf("template of height %d, want %d", got, height)
		}
	}
}

// TestLightTemplates has one for each template, with all that jobs need.
func TestLightTemplates(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	p := start(t, node.RPCURL(), nil)
	for height := int32(1); height < 4; height++ {
		raw := <-p.raw
		want, err := job.ParseTemplate(raw.Response)
		if err != nil || want.Height != height {
			t.Fatalf("template of height %d, %v", want.Height, err)
		}
		want.LongPollID = ""
		if diff := cmp.Diff(job.LightGBT{CreatedAt: raw.CreatedAt, Hash: raw.Hash, Template: want}, <-p.light); diff != "" {
			t.Error(diff)
		}
		mine(t, node)
	}
}

// TestWholeFollows has the whole of a template wait behind its light form, but neither for a new block nor for the end of
// the process: what is waited for here is shorter than that.
func TestWholeFollows(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("0", 64)
	full := strings.Replace(goodTemplate, `"transactions":[]`, `"transactions":[{"data":"00","txid":"`+id+`","hash":"`+id+`"}]`, 1)
	next := strings.NewReplacer("ab", "ac", `"height":10`, `"height":11`).Replace(full)
	fake, url := startFake(t, syncedChain, full)
	p := start(t, url, func(cfg *gbtmaker.Config) {
		cfg.Network = "mainnet"
		cfg.WholeAfter = config.Duration(30 * time.Second)
	})
	if got := (<-p.light).Template.Height; got != 10 {
		t.Fatalf("light template of height %d", got)
	}
	p.untilAtLeast(t, 3, "templates_unchanged_total", "trigger", "longpoll") // in no less than 200 ms
	if len(p.raw) != 0 {
		t.Error("the whole template was written with its light form")
	}
	fake.template.Store(next)
	if got := p.next(t).Height; got != 10 {
		t.Fatalf("whole template of height %d", got)
	}
	if got := (<-p.light).Template.Height; got != 11 {
		t.Fatalf("light template of height %d", got)
	}
	p.stop()
	if got := p.next(t).Height; got != 11 {
		t.Fatalf("whole template of height %d", got)
	}
}

// TestKilledBetween has a template whose light form went out when gbtmaker was killed.
func TestKilledBetween(t *testing.T) {
	t.Parallel()
	half := job.NewRawGBT([]byte("the node's answer"), time.Unix(1_700_000_000, 0))
	p := start(t, startNode(t).RPCURL(), func(cfg *gbtmaker.Config) {
		if err := gbtmaker.Keep(cfg.DataDir, half); err != nil {
			t.Fatal(err)
		}
	})
	if diff := cmp.Diff(half, <-p.raw); diff != "" {
		t.Error(diff)
	}
	if raw := <-p.raw; raw.Hash == half.Hash {
		t.Error("sent twice")
	}
}

// TestEmptyTemplate has a node that takes its time for the template of a block, when asked because of the block, and when
// it was asked already as the block came.
func TestEmptyTemplate(t *testing.T) {
	t.Parallel()
	t.Run("asked after", func(t *testing.T) { t.Parallel(); testEmptyTemplate(t, false) })
	t.Run("asked before", func(t *testing.T) { t.Parallel(); testEmptyTemplate(t, true) })
}

func testEmptyTemplate(t *testing.T, askedBefore bool) {
	node := startNode(t)
	var slow atomic.Bool
	asked := make(chan struct{}, 1)
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release() // the proxy waits for its requests
	edit := func(body []byte) []byte {
		if slow.Load() && bytes.Contains(body, []byte(`"transactions"`)) {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-released
		}
		// The median time of a chain this young is not far from the first block's.
		return bytes.Replace(withoutLongPoll(body), []byte(`"confirmations":1,`), []byte(`"confirmations":1,"mediantime":1700000000,`), 1)
	}
	p := start(t, proxy(t, node, nil, edit), func(cfg *gbtmaker.Config) {
		cfg.Node.ZMQ = node.ZMQAddr()
		cfg.RepeatInterval = config.Duration(100 * time.Millisecond) // the full template is no better, as there are no transactions
	})
	p.nextOf(t, 1)
	for heard := false; !heard; { // the subscription takes a moment to arrive
		mine(t, node)
		p.nextOf(t, node.Height()+1)
		heard = p.count(t, "templates_total", "trigger", "zmq") > 0
	}
	slow.Store(true)
	if askedBefore {
		<-asked
	}
	mine(t, node)
	empty := p.next(t)
	for empty.Height <= node.Height() { // the last one again
		empty = p.next(t)
	}
	if empty.MinTime != 1700000001 {
		t.Errorf("earliest time %d", empty.MinTime)
	}
	slow.Store(false)
	release()
	full := p.next(t)
	for full.MinTime == empty.MinTime { // the empty one again
		full = p.next(t)
	}
	want := *full
	want.CurTime, want.MinTime = empty.CurTime, empty.MinTime
	want.WitnessCommitment, want.LongPollID, want.CoinbaseAux = nil, "", nil
	if diff := cmp.Diff(&want, empty); diff != "" {
		t.Errorf("the full template is another than the empty one:\n%s", diff)
	}
}

func TestPeriod(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	p := start(t, proxy(t, node, nil, withoutLongPoll), func(cfg *gbtmaker.Config) {
		cfg.RepeatInterval = config.Duration(500 * time.Millisecond)
	})
	for range 3 { // though nothing changes
		begin := time.Now()
		if got := p.next(t).Height; got != 1 {
			t.Errorf("template of height %d, want 1", got)
		}
		t.Logf("again after %s", time.Since(begin))
	}
	mine(t, node)
	p.nextOf(t, 2)
}

// TestEqual has a node whose templates differ by their time only.
func TestEqual(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	p := start(t, proxy(t, node, nil, withoutLongPoll), func(cfg *gbtmaker.Config) {
		cfg.PollInterval = config.Duration(100 * time.Millisecond)
		cfg.RepeatInterval = config.Duration(30 * time.Second)
	})
	p.nextOf(t, 1)
	p.untilAtLeast(t, 15, "templates_unchanged_total", "trigger", "period") // of two times at least
	if len(p.raw) != 0 {
		t.Error("a template was written twice")
	}
	mine(t, node)
	p.nextOf(t, 2)
}

// TestNodeComesBack has the node away at first and once more later.
func TestNodeComesBack(t *testing.T) {
	t.Parallel()
	node := startNode(t)
	var down atomic.Bool
	down.Store(true)
	p := start(t, proxy(t, node, &down, withoutLongPoll), func(cfg *gbtmaker.Config) {
		cfg.PollInterval = config.Duration(100 * time.Millisecond)
	})
	p.untilAtLeast(t, 3, "failures_total", "reason", "rpc")
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "no template yet: node 0: getblockchaininfo: the node at") {
		t.Errorf("ready: %v", err)
	}
	down.Store(false)
	p.nextOf(t, 1)
	p.untilAtLeast(t, 1, "templates_total", "trigger", "period")
	if err := p.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	down.Store(true)
	p.untilAtLeast(t, p.count(t, "failures_total", "reason", "rpc")+3, "failures_total", "reason", "rpc")
	down.Store(false)
	mine(t, node)
	p.nextOf(t, 2)
}

// fakeNode answers getblockchaininfo, getblockheader and getblocktemplate, long polls at once.
type fakeNode struct {
	chain, template, header atomic.Value // results
	templates               atomic.Int32
	branch                  atomic.Pointer[branch] // answers for getblockheader and getblockhash, if there is one
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Method string
		Params []any
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	result := f.chain.Load()
	on := f.branch.Load()
	switch request.Method {
	case "getblockhash":
		result = strconv.Quote(on.block(int(request.Params[0].(float64))))
	case "getblocktemplate":
		result = f.template.Load()
		f.templates.Add(1)
	case "getblockheader":
		if result = f.header.Load(); on != nil {
			result = on.header(request.Params[0].(string))
		}
		if result == "" {
			fmt.Fprint(w, `{"result":null,"error":{"code":-5,"message":"Block not found"},"id":"1"}`)
			return
		}
	}
	fmt.Fprintf(w, `{"result":%s,"error":null,"id":"1"}`, result)
}

func newFake(chain, template string) *fakeNode {
	fake := new(fakeNode)
	fake.chain.Store(chain)
	fake.template.Store(template)
	fake.header.Store(`{"height":9,"confirmations":1}`)
	return fake
}

func startFake(t *testing.T, chain, template string) (*fakeNode, string) {
	t.Helper()
	fake := newFake(chain, template)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return fake, server.URL
}

const (
	syncedChain  = `{"chain":"main","blocks":9,"headers":9,"initialblockdownload":false}`
	goodTemplate = `{"version":536870912,"previousblockhash":"00000000000000000000000000000000000000000000000000000000000000ab","transactions":[],"coinbasevalue":312500000,"longpollid":"x","mintime":1,"curtime":2,"bits":"1d00ffff","height":10}`
)

// TestRefuses has a node that must not be used, and then may.
func TestRefuses(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("0", 64)
	withoutData := `"transactions":[{"data":"","txid":"` + id + `","hash":"` + id + `"}]`
	tests := map[string]struct{ chain, template, reason, text string }{
		"other network": {`{"chain":"regtest","blocks":9,"headers":9}`, goodTemplate, "chain", `is on the chain "regtest", network = "mainnet" needs "main"`},
		"without peers": {`{"chain":"main","blocks":9,"headers":9,"initialblockdownload":true}`, goodTemplate, "chain", "has it peers"},
		"downloading":   {`{"chain":"main","blocks":9,"headers":99,"initialblockdownload":true}`, goodTemplate, "chain", "still downloading"},
		"catching up":   {`{"chain":"main","blocks":9,"headers":99}`, goodTemplate, "chain", "has 9 of 99 blocks"},
		"unknown rule":  {syncedChain, strings.Replace(goodTemplate, `"version"`, `"rules":["!new"],"version"`, 1), "template", `"!new" must be understood`},
		"far future":    {syncedChain, strings.Replace(goodTemplate, `"curtime":2`, `"curtime":4000000000`, 1), "time", "ahead of our clock"},
		"easy bits":     {syncedChain, strings.Replace(goodTemplate, `1d00ffff`, `207fffff`, 1), "bits", "easier than mainnet allows"},
		"no data":       {syncedChain, strings.Replace(goodTemplate, `"transactions":[]`, withoutData, 1), "template", "transactions[0]: data: empty"},
		"garbage":       {syncedChain, `"garbage"`, "template", "not an object"},
		"no bits":       {syncedChain, strings.Replace(goodTemplate, `"bits":"1d00ffff",`, ``, 1), "template", "bits"},
		"no curtime":    {syncedChain, strings.Replace(goodTemplate, `"curtime":2,`, ``, 1), "template", "curtime"},
		"text height":   {syncedChain, strings.Replace(goodTemplate, `"height":10`, `"height":"10"`, 1), "template", "height"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, url := startFake(t, tt.chain, tt.template)
			p := start(t, url, func(cfg *gbtmaker.Config) { cfg.Network = "mainnet" })
			p.untilAtLeast(t, 2, "failures_total", "reason", tt.reason)
			if err := p.Ready(); err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("ready: %v, want %q", err, tt.text)
			}
			if len(p.raw) != 0 {
				t.Error("a template was written")
			}
			fake.chain.Store(syncedChain)
			fake.template.Store(goodTemplate)
			p.nextOf(t, 10)
		})
	}
}

// TestHastyLongPoll has a node that answers every long poll at once with the same template.
func TestHastyLongPoll(t *testing.T) {
	t.Parallel()
	fake, url := startFake(t, syncedChain, goodTemplate)
	begin := time.Now()
	p := start(t, url, func(cfg *gbtmaker.Config) { cfg.Network = "mainnet" })
	p.nextOf(t, 10)
	p.untilAtLeast(t, 3, "templates_unchanged_total", "trigger", "longpoll")
	if got, most := fake.templates.Load(), 3+time.Since(begin)/(100*time.Millisecond); int(got) > int(most) {
		t.Errorf("%d calls in %s, want at most %d", got, time.Since(begin), most)
	}
	if len(p.raw) != 0 {
		t.Error("a template was written twice")
	}
}

func TestWithoutKafka(t *testing.T) {
	t.Parallel()
	cfg := gbtmaker.DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.Node = noderpc.Config{URL: "http://127.0.0.1:1", User: "user", Password: "secret"}
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	s, err := gbtmaker.New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, s.Run)
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "waiting for Kafka") {
		t.Errorf("ready: %v", err)
	}
}

// TestClose has gbtmakers that never run, and some that cannot begin: none keeps folder, port or goroutines.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := gbtmaker.DefaultConfig()
	cfg.DataDir, cfg.NotifyListen = t.TempDir(), "127.0.0.1:0"
	cfg.Node = login("http://127.0.0.1:1")
	var deps service.Deps
	first, err := gbtmaker.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gbtmaker.New(cfg, deps); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("two on one folder: %v", err)
	}
	elsewhere := cfg
	elsewhere.DataDir, elsewhere.NotifyListen = t.TempDir(), first.NotifyAddr().String()
	if _, err := gbtmaker.New(elsewhere, deps); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("two on one port: %v", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	for _, again := range []gbtmaker.Config{cfg, elsewhere} {
		s, err := gbtmaker.New(again, deps)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConfigFile(t *testing.T) {
	t.Parallel()
	cfg := gbtmaker.DefaultConfig()
	if err := service.Load("../configs/gbtmaker.toml", &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	testkit.SampleNames(t, "../configs/gbtmaker.toml", cfg,
		"node.", // has the keys of nodes
		"kafka.share_partitions", "kafka.topics.job", "kafka.topics.share", "kafka.topics.solved_share", "kafka.topics.common_events",
		"kafka.topics.aux_work", "kafka.topics.aux_solved", "kafka.topics.rsk_work", "kafka.topics.rsk_solved")
}

// TestConfigOneNode has the section and the variables of a single node beside the list, and a variable by its old name.
func TestConfigOneNode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gbtmaker.toml")
	if err := os.WriteFile(file, []byte("[node]\nrpc_url = \"http://one\"\nrpc_user = \"u\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BTCPOOL_NODE_RPC_PASSWORD", "p")
	t.Setenv("BTCPOOL_NODES_0_RPC_URL", "http://two")
	t.Setenv("BTCPOOL_NODES_0_RPC_COOKIE_FILE", "c")
	t.Setenv("BTCPOOL_GBTMAKER_DATA_DIR", "old")
	cfg := gbtmaker.DefaultConfig()
	if err := service.Load(file, &cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	if cfg.DataDir != "old" || cfg.Node.URL != "http://one" || cfg.Node.Password != "p" || len(cfg.Nodes) != 1 || cfg.Nodes[0].URL != "http://two" {
		t.Errorf("node %+v, nodes %+v", cfg.Node, cfg.Nodes)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	cfg := gbtmaker.DefaultConfig()
	cfg.Network = "lightnet"
	cfg.DataDir = ""
	cfg.PollInterval = config.Duration(time.Minute)
	cfg.RepeatInterval = 0
	cfg.EmptyAfter = -1
	cfg.WholeAfter = config.Duration(time.Minute)
	cfg.ZMQTimeout = -1
	cfg.NotifyListen = "0.0.0.0:9201"
	cfg.NodePolicy = "random"
	cfg.Node.ZMQ = "28332"
	cfg.Nodes = []noderpc.Config{{URL: "x"}}
	cfg.Kafka.Brokers = nil
	err := cfg.Validate()
	for _, key := range []string{"network", "data_dir", "poll_interval", "repeat_interval", "empty_after", "whole_after", "zmq_timeout", "notify_listen", "node_policy", "nodes[0].rpc_url", "node.rpc_url", "node.rpc_user", "node.zmq_hashblock", "kafka.brokers"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v: does not name %s", err, key)
		}
	}
	if text := gbtmaker.DefaultConfig().Validate().Error(); text != "nodes: at least one [[nodes]] section is needed" {
		t.Errorf("no node: %s", text)
	}
	if _, newErr := gbtmaker.New(cfg, service.Deps{}); newErr == nil || newErr.Error() != err.Error() {
		t.Errorf("New: %v", newErr)
	}
}
