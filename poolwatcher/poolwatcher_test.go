package poolwatcher_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/miner/pooltest"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/poolwatcher"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bits = 0x207fffff

// pool is another pool whose jobs the test makes.
type pool struct {
	*pooltest.Pool
	ready chan *pooltest.Conn
}

func startPool(t *testing.T) *pool {
	t.Helper()
	p := &pool{ready: make(chan *pooltest.Conn, 10)}
	p.Pool = (&pooltest.Pool{Handle: func(c *pooltest.Conn, req pooltest.Request) bool {
		if req.Method != "mining.authorize" {
			return false
		}
		c.Reply(req, "true", "null")
		p.ready <- c
		return true
	}}).Start(t)
	return p
}

// says sends a job for height on a block whose hash begins with on.
func says(t *testing.T, c *pooltest.Conn, on byte, height int32) {
	t.Helper()
	coinbase1, coinbase2, err := bitcoin.Coinbase{
		Height: height, Time: time.Now().Unix(), ExtranonceSize: 8, Outputs: []wire.TxOut{{Value: 1, PkScript: []byte{0x51}}},
	}.Build()
	if err != nil {
		t.Fatal(err)
	}
	c.SendJob(&job.StratumJob{
		PrevHash: blockHash(on), Coinbase1: coinbase1, Coinbase2: coinbase2, Version: 0x20000000, Bits: bits, Time: uint32(time.Now().Unix()),
	}, uint64(height))
}

func blockHash(on byte) chainhash.Hash { return chainhash.Hash{on, 1, 2, 3, 4, 5} }

// node knows where blocks are by their hashes.
type node struct {
	*httptest.Server
	mu    sync.Mutex
	known map[string]string // result of getblockheader
	down  bool
}

func startNode(t *testing.T) *node {
	t.Helper()
	n := &node{known: make(map[string]string)}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct{ Params []any }
		_ = json.NewDecoder(r.Body).Decode(&request)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.down || len(request.Params) == 0 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if result := n.known[fmt.Sprint(request.Params[0])]; result != "" {
			fmt.Fprintf(w, `{"result":%s,"error":null,"id":"1"}`, result)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"result":null,"error":{"code":-5,"message":"Block not found"},"id":"1"}`)
	}))
	t.Cleanup(n.Close)
	return n
}

func (n *node) knows(on byte, result string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[blockHash(on).String()] = result
}

func (n *node) setDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// watcher is a poolwatcher with the topics before and behind it.
type watcher struct {
	*poolwatcher.Service
	cfg       bus.Config
	bus       *bus.Client
	metrics   *prometheus.Registry
	templates chan job.RawGBT
}

func start(t *testing.T, n *node, agree int, pools ...*pool) *watcher {
	t.Helper()
	cfg := poolwatcher.DefaultConfig()
	cfg.Network, cfg.Agree, cfg.Kafka.Brokers = "regtest", agree, testkit.Broker(t).Brokers
	cfg.Node = noderpc.Config{URL: n.URL, User: "user", Password: "secret"}
	for i, p := range pools {
		cfg.Pools = append(cfg.Pools, poolwatcher.Pool{Name: fmt.Sprintf("pool%d", i), Addr: p.Addr(), User: "us.watcher", Password: "x"})
	}
	w := &watcher{cfg: cfg.Kafka, metrics: prometheus.NewRegistry(), templates: make(chan job.RawGBT, 100)}
	topics := cfg.Kafka.Topics
	w.bus = testkit.Bus(t, cfg.Kafka, topics.RawGBT, topics.Job)
	var err error
	if w.Service, err = poolwatcher.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)), Metrics: w.metrics}); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, w.Run)
	testkit.Run(t, func(ctx context.Context) error {
		return w.bus.Read(ctx, topics.RawGBT, bus.Earliest(), func(m bus.Message) error {
			raw, err := job.ParseRawGBT(m.Value)
			w.templates <- raw
			return err
		})
	})
	return w
}

// mines writes a job of our own, with transactions or without.
func (w *watcher) mines(t *testing.T, on byte, height int32, full bool) {
	t.Helper()
	now := time.Now()
	j := job.StratumJob{
		ID: job.NewIDs(1).Next(now), GBTHash: strings.Repeat("0", 64), PrevHash: blockHash(on), Height: height, Bits: bits, Version: 0x20000000,
		Coinbase1: []byte{1}, Coinbase2: []byte{2}, Time: uint32(now.Unix()), MinTime: uint32(now.Unix()) - 600,
	}
	if full {
		j.MerkleBranch = []chainhash.Hash{{1}}
	}
	if err := w.bus.Write(t.Context(), w.cfg.Topics.Job, bus.Message{Value: j.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
}

// count waits until a metric, named by the names and values of its labels, is want.
func (w *watcher) count(t *testing.T, name string, want float64, labels ...string) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%s%v = %v", name, labels, want), func() bool {
		return testkit.Metric(t, w.metrics, "btcpool_poolwatcher_"+name, labels...) == want
	})
}

func (w *watcher) template(t *testing.T) (job.RawGBT, *job.Template) {
	t.Helper()
	select {
	case raw := <-w.templates:
		template, err := job.ParseTemplate(raw.Response)
		if err != nil {
			t.Fatal(err)
		}
		return raw, template
	case <-time.After(testkit.Patience):
		t.Fatal("no template")
		return job.RawGBT{}, nil
	}
}

// ready waits until the service has an own job and all pools.
func (w *watcher) ready(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, "ready", func() bool { return w.Ready() == nil })
}

// TestNewBlock follows one pool over blocks that our own node does not have yet, or does.
func TestNewBlock(t *testing.T) {
	t.Parallel()
	n, p := startNode(t), startPool(t)
	w := start(t, n, 1, p)
	if w.Ready() == nil {
		t.Error("ready without anything")
	}
	conn := <-p.ready
	w.mines(t, 'a', 100, true)
	says(t, conn, 'a', 100)
	w.ready(t)

	says(t, conn, 'b', 101)
	raw, template := w.template(t)
	if raw.FromPool != "pool0" || template.Height != 101 || template.PrevHash != blockHash('b') || !template.Empty() {
		t.Errorf("from %q: %+v", raw.FromPool, template)
	}
	w.mines(t, 'b', 101, false) // jobmaker made it of that template
	w.mines(t, 'b', 101, true)  // and this one of our own node's
	w.count(t, "lead_seconds", 1)

	// Our node does not follow.
	says(t, conn, 'c', 102)
	w.template(t)
	w.mines(t, 'd', 102, true)
	w.count(t, "refuted_total", 1, "pool", "pool0")

	// Our node has the header only, or the block, or does not answer.
	n.knows('e', `{"height":102,"confirmations":-1}`)
	says(t, conn, 'e', 103)
	w.template(t)
	w.mines(t, 'e', 103, true)
	w.count(t, "lead_seconds", 2)
	n.knows('f', `{"height":90,"confirmations":13}`)
	says(t, conn, 'f', 104)
	w.count(t, "jobs_total", 1, "pool", "pool0", "verdict", "known")
	n.knows('g', `{"height":90,"confirmations":-1}`)
	says(t, conn, 'g', 104)
	w.count(t, "jobs_total", 2, "pool", "pool0", "verdict", "known")
	n.setDown(true)
	says(t, conn, 'h', 104)
	w.count(t, "jobs_total", 1, "pool", "pool0", "verdict", "unchecked")
	if len(w.templates) != 0 {
		t.Error("a template nevertheless")
	}
}

// TestAgree waits for the second of three pools, and writes one template.
func TestAgree(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	pools := []*pool{startPool(t), startPool(t), startPool(t)}
	w := start(t, n, 2, pools...)
	var conns []*pooltest.Conn
	for i, p := range pools {
		conn := <-p.ready
		conns = append(conns, conn)
		says(t, conn, 'a', 100)
		w.count(t, "jobs_total", 1, "pool", fmt.Sprintf("pool%d", i), "verdict", "same")
	}
	w.mines(t, 'a', 100, true)
	w.ready(t)
	says(t, conns[0], 'x', 101)
	w.count(t, "jobs_total", 1, "pool", "pool0", "verdict", "waiting")
	says(t, conns[1], 'b', 101)
	w.count(t, "jobs_total", 1, "pool", "pool1", "verdict", "waiting")
	says(t, conns[2], 'b', 101)
	raw, template := w.template(t)
	if raw.FromPool != "pool2" || template.PrevHash != blockHash('b') {
		t.Errorf("from %q: %s", raw.FromPool, template.PrevHash)
	}
	says(t, conns[0], 'b', 101)
	w.count(t, "jobs_total", 1, "pool", "pool0", "verdict", "repeated")
	if len(w.templates) != 0 {
		t.Error("more than one template")
	}
}

// TestHostilePools send what no pool may.
func TestHostilePools(t *testing.T) {
	t.Parallel()
	n, p := startNode(t), startPool(t)
	w := start(t, n, 1, p)
	conn := <-p.ready
	w.mines(t, 'a', 100, true)
	says(t, conn, 'a', 100)
	w.ready(t)
	for i, height := range []int32{99, 102, 1 << 30} {
		says(t, conn, byte('r'+i), height)
		w.count(t, "jobs_total", float64(i+1), "pool", "pool0", "verdict", "wrong_height")
	}
	// No height in the coinbase.
	conn.SendJob(&job.StratumJob{PrevHash: blockHash('b'), Coinbase1: make([]byte, 50), Bits: bits, Time: uint32(time.Now().Unix())}, 1)
	w.count(t, "jobs_total", 1, "pool", "pool0", "verdict", "invalid")
	// Garbage in our own topic.
	if err := w.bus.Write(t.Context(), w.cfg.Topics.Job, bus.Message{Value: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	w.count(t, "invalid_messages_total", 1)
	// A line without end, by which the session ends.
	go conn.Send(strings.Repeat("x", 1<<20))
	w.count(t, "connected", 0, "pool", "pool0")
	if len(w.templates) != 0 {
		t.Error("a template nevertheless")
	}
}

// TestClose has poolwatchers that never run: none leaves a goroutine.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := poolwatcher.DefaultConfig()
	cfg.Node = noderpc.Config{URL: "http://127.0.0.1:1", User: "user", Password: "secret"}
	cfg.Pools = []poolwatcher.Pool{{Name: "pool", Addr: "127.0.0.1:1", User: "us"}}
	w, err := poolwatcher.New(cfg, service.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
}
