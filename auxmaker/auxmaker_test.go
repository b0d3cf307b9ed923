package auxmaker_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/go-zeromq/zmq4"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/auxmaker"
	"btcpool/internal/auxpow"
	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/auxwork"
	"btcpool/internal/auxwork/rskrpc"
	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/go-zeromq/zmq4.(*pubMWriter).run"), // a PUB socket's, even when closed
	)
}

const (
	easyBits = 0x207fffff // every second hash meets it
	hardBits = 0x1702f9c5
)

func startNode(t *testing.T, id int32, bits uint32, old bool) *auxpowtest.Node {
	t.Helper()
	node := auxpowtest.StartNode(id, bits, old)
	t.Cleanup(node.Close)
	return node
}

// maker is an auxmaker under test and what comes out of it.
type maker struct {
	*auxmaker.Service
	metrics *prometheus.Registry
	aux     chan auxwork.Aux
	rsk     chan auxwork.RSK
}

// testConfig returns one that asks nodes so rarely that only news make work.
func testConfig(nodes ...*auxpowtest.Node) auxmaker.Config {
	cfg := auxmaker.DefaultConfig()
	cfg.PollInterval = config.Duration(30 * time.Second)
	for i, node := range nodes {
		cfg.Chains = append(cfg.Chains, auxmaker.Chain{
			Name:          fmt.Sprintf("chain%d", i),
			PayoutAddress: fmt.Sprintf("address%d", i),
			Config:        noderpc.Config{URL: node.URL(), User: "user", Password: "secret"},
		})
	}
	return cfg
}

func often(cfg auxmaker.Config) auxmaker.Config {
	cfg.PollInterval = config.Duration(100 * time.Millisecond)
	cfg.WorkLifetime = config.Duration(300 * time.Millisecond)
	return cfg
}

// start runs an auxmaker with a broker of its own.
func start(t *testing.T, cfg auxmaker.Config) maker {
	t.Helper()
	cfg.Kafka.Brokers = testkit.Broker(t).Brokers
	m := maker{metrics: prometheus.NewRegistry(), aux: make(chan auxwork.Aux, 1000), rsk: make(chan auxwork.RSK, 1000)}
	var err error
	m.Service, err = auxmaker.New(cfg, service.Deps{Log: zerolog.New(zerolog.NewTestWriter(t)), Metrics: m.metrics})
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Chains) > 0 {
		read(t, cfg.Kafka, cfg.Kafka.Topics.AuxWork, auxwork.ParseAux, m.aux)
	}
	if cfg.RSK.URL != "" {
		read(t, cfg.Kafka, cfg.Kafka.Topics.RSKWork, auxwork.ParseRSK, m.rsk)
	}
	testkit.Run(t, m.Run)
	return m
}

// read parses the messages of a topic into a channel.
func read[T any](t *testing.T, cfg bus.Config, topic string, parse func([]byte) (T, error), to chan<- T) {
	t.Helper()
	client := testkit.Bus(t, cfg)
	testkit.Run(t, func(ctx context.Context) error {
		return client.Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
			value, err := parse(m.Value)
			if err == nil {
				to <- value
			}
			return err
		})
	})
}

// await returns the first message that is as wanted.
func await[T any](t *testing.T, from <-chan T, what string, want func(T) bool) T {
	t.Helper()
	deadline := time.After(testkit.Patience)
	for {
		select {
		case got := <-from:
			if want(got) {
				return got
			}
		case <-deadline:
			t.Fatalf("no message: %s", what)
		}
	}
}

// of says whether work is that of these chains, as their nodes have it now.
func of(nodes map[string]*auxpowtest.Node) func(auxwork.Aux) bool {
	return func(a auxwork.Aux) bool {
		for _, c := range a.Chains {
			if node := nodes[c.Name]; node == nil || node.Hash() != c.Hash.String() {
				return false
			}
		}
		return len(a.Chains) == len(nodes)
	}
}

// count returns a metric by the names and values of its labels.
func (m maker) count(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	return testkit.Metric(t, m.metrics, "btcpool_auxmaker_"+name, labels...)
}

// solve returns a parent block for the work, which meets easyBits and has four to seven transactions.
func solve(t *testing.T, aux []byte, outputs ...wire.TxOut) *auxpow.Parent {
	t.Helper()
	coinbase1, coinbase2, err := bitcoin.Coinbase{
		Height: 840000, Time: 1713571767, Aux: aux, Text: "/pool/", ExtranonceSize: 12,
		Outputs: append([]wire.TxOut{{Value: 312500000, PkScript: []byte{0x51}}}, outputs...),
	}.Build()
	if err != nil {
		t.Fatal(err)
	}
	p := &auxpow.Parent{
		Coinbase: slices.Concat(coinbase1, make([]byte, 12), coinbase2),
		Branch:   []chainhash.Hash{{1}, {2}, {3}},
	}
	root := bitcoin.MerkleRoot(bitcoin.DoubleSHA256(p.Coinbase), p.Branch)
	binary.LittleEndian.PutUint32(p.Header[:], 0x20000000)
	copy(p.Header[36:], root[:])
	for nonce := uint32(0); ; nonce++ {
		binary.LittleEndian.PutUint32(p.Header[76:], nonce)
		if hash := p.Hash(); (&auxpow.Chain{Bits: easyBits}).Met(&hash) {
			return p
		}
	}
}

// submit gives the parent's proof for a chain to its node.
func submit(t *testing.T, node *auxpowtest.Node, method string, parent *auxpow.Parent, c *auxpow.Chain) bool {
	t.Helper()
	client, err := noderpc.New(noderpc.Config{URL: node.URL(), User: "user", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var accepted bool
	if err := client.Call(t.Context(), method, &accepted, c.Hash.String(), hex.EncodeToString(parent.Proof(c))); err != nil {
		t.Fatal(err)
	}
	return accepted
}

// TestChainsTogether mines one parent block for three chains of a tree, of which one is too hard.
func TestChainsTogether(t *testing.T) {
	t.Parallel()
	nodes := map[string]*auxpowtest.Node{
		"chain0": startNode(t, 1, easyBits, false),
		"chain1": startNode(t, 16, hardBits, false),
		"chain2": startNode(t, 1224, easyBits, true),
	}
	m := start(t, often(testConfig(nodes["chain0"], nodes["chain1"], nodes["chain2"])))
	work := await(t, m.aux, "all chains", of(nodes))
	if age := time.Since(time.Unix(int64(work.CreatedAt), 0)); age < 0 || age > testkit.Patience {
		t.Errorf("created %s ago", age)
	}
	if work.MerkleSize != 16 || work.Height != 3 || work.Bits != easyBits || work.ChainID != 1 || work.RPCAddr != "" || work.RPCUserPass != "" {
		t.Errorf("work %+v", work)
	}
	if got := nodes["chain0"].Payout(); got != "address0" {
		t.Errorf("payout to %q", got)
	}
	if got := nodes["chain2"].Calls("createauxblock"); got != 0 {
		t.Error("createauxblock called at a node that has none")
	}
	testkit.Eventually(t, "ready", func() bool { return m.Ready() == nil }) // the work may be read before its writer knows

	parent := solve(t, work.Tree().Commitment())
	solved := parent.Solved(work.Chains)
	if len(solved) != 2 {
		t.Fatalf("solved %+v", solved)
	}
	for i, method := range []string{"submitauxblock", "getauxblock"} {
		node := nodes[solved[i].Name]
		if !submit(t, node, method, parent, &solved[i]) || len(node.Accepted()) != 1 {
			t.Errorf("%s refuses the proof", solved[i].Name)
		}
	}
	next := await(t, m.aux, "the next blocks", of(nodes))
	if next.Height != 5 {
		t.Errorf("sum of heights %d, want 5", next.Height)
	}
}

// TestOneChain has what an old jobmaker, sserver and blkmaker need: the block's own hash in a tree of one, whose proof
// has an empty branch.
func TestOneChain(t *testing.T) {
	t.Parallel()
	node := startNode(t, 1, easyBits, false)
	cfg := testConfig(node)
	cfg.PublishRPC = true
	work := await(t, start(t, cfg).aux, "work", func(auxwork.Aux) bool { return true })
	work.Chains = nil
	want := auxwork.Aux{
		CreatedAt: work.CreatedAt, Hash: work.Hash, Height: 1, MerkleSize: 1, ChainID: 1, Bits: easyBits,
		RPCAddr: node.URL(), RPCUserPass: "user:secret",
	}
	if diff := cmp.Diff(want, work); diff != "" || work.Hash.String() != node.Hash() {
		t.Error(diff)
	}
	if !submit(t, node, "submitauxblock", solve(t, work.Tree().Commitment()), &auxpow.Chain{Hash: work.Hash}) {
		t.Error("the node refuses the proof")
	}
}

// TestNotify learns of new blocks by /notify alone.
func TestNotify(t *testing.T) {
	t.Parallel()
	node := startNode(t, 1, easyBits, false)
	rsk := auxpowtest.StartRSK(easyBits)
	t.Cleanup(rsk.Close)
	cfg := testConfig(node)
	cfg.RSK.URL = rsk.URL()
	cfg.NotifyListen = "127.0.0.1:0"
	m := start(t, cfg)
	first := await(t, m.aux, "work", func(auxwork.Aux) bool { return true })
	if first.RPCAddr != "chain0" || first.RPCUserPass != "" {
		t.Errorf("the node is %q, %q in the message", first.RPCAddr, first.RPCUserPass)
	}
	await(t, m.rsk, "RSK's work", func(auxwork.RSK) bool { return true })
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead} {
		node.Advance()
		rsk.Advance()
		begin := time.Now()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+m.NotifyAddr().String()+"/notify", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", method, resp.Status)
		}
		await(t, m.aux, "the new block", of(map[string]*auxpowtest.Node{"chain0": node}))
		t.Logf("new block %s after the notification", time.Since(begin))
		if got := await(t, m.rsk, "RSK's new block", func(r auxwork.RSK) bool { return r.BlockHash.String() == rsk.Hash() }); !got.Notify {
			t.Error("RSK's new block without notify")
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestZMQ learns of new blocks by the node's ZeroMQ alone, and of those that it missed.
func TestZMQ(t *testing.T) {
	t.Parallel()
	socket := zmq4.NewPub(context.Background(), zmq4.WithLogger(log.New(io.Discard, "", 0)))
	if err := socket.Listen("tcp://127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	sequence := uint32(0)
	announce := func() {
		t.Helper()
		message := zmq4.NewMsgFrom([]byte("hashblock"), make([]byte, 32), binary.LittleEndian.AppendUint32(nil, sequence))
		if err := socket.Send(message); err != nil {
			t.Fatal(err)
		}
		sequence++
	}
	node := startNode(t, 1, easyBits, false)
	cfg := testConfig(node)
	cfg.Chains[0].ZMQ = "tcp://" + socket.Addr().String()
	m := start(t, cfg)
	await(t, m.aux, "work", func(auxwork.Aux) bool { return true })

	node.Advance()
	ofNode := of(map[string]*auxpowtest.Node{"chain0": node})
	// A subscription takes a moment to arrive, and the first work may come twice.
	testkit.Eventually(t, "the announcement is heard", func() bool {
		announce()
		select {
		case work := <-m.aux:
			return ofNode(work)
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
	node.Advance()
	sequence += 3
	begin := time.Now()
	announce()
	await(t, m.aux, "the next block", ofNode)
	t.Logf("new block %s after the announcement", time.Since(begin))
	if got := m.count(t, "zmq_missed_total", "chain", "chain0"); got != 3 {
		t.Errorf("%v announcements missed, want 3", got)
	}
}

// TestNodeAway has one of two nodes away at first, and then the other.
func TestNodeAway(t *testing.T) {
	t.Parallel()
	a, b := startNode(t, 1, easyBits, false), startNode(t, 2, easyBits, false)
	b.SetDown(true)
	m := start(t, often(testConfig(a, b)))
	await(t, m.aux, "a alone", of(map[string]*auxpowtest.Node{"chain0": a}))
	b.SetDown(false)
	both := of(map[string]*auxpowtest.Node{"chain0": a, "chain1": b})
	await(t, m.aux, "both", both)
	a.SetDown(true)
	alone := await(t, m.aux, "b alone", of(map[string]*auxpowtest.Node{"chain1": b}))
	if alone.MerkleSize != 1 || alone.RPCAddr != "chain1" || alone.ChainID != 2 {
		t.Errorf("work %+v", alone)
	}
	if up := m.count(t, "chain_up", "chain", "chain0"); up != 0 {
		t.Error("chain0 is up")
	}
	if got := m.count(t, "failures_total", "chain", "chain0", "reason", "rpc"); got == 0 {
		t.Error("the failures of chain0 are not counted")
	}
	a.SetDown(false)
	await(t, m.aux, "both again", both)
}

// TestSameID has two nodes of one chain: the second stands in for the first.
func TestSameID(t *testing.T) {
	t.Parallel()
	a, b := startNode(t, 7, easyBits, false), startNode(t, 7, easyBits, true)
	m := start(t, often(testConfig(a, b)))
	await(t, m.aux, "the first", of(map[string]*auxpowtest.Node{"chain0": a}))
	for m.count(t, "failures_total", "chain", "chain1", "reason", "slot") == 0 {
		await(t, m.aux, "work of one chain", func(work auxwork.Aux) bool { return len(work.Chains) == 1 })
	}
	a.SetDown(true)
	await(t, m.aux, "the second", of(map[string]*auxpowtest.Node{"chain1": b}))
}

// TestRSK mines a parent block for RSK.
func TestRSK(t *testing.T) {
	t.Parallel()
	node := auxpowtest.StartRSK(easyBits)
	t.Cleanup(node.Close)
	node.SetDown(true)
	cfg := often(testConfig())
	cfg.RSK.URL = node.URL()
	m := start(t, cfg)
	testkit.Eventually(t, "failures are counted", func() bool {
		return m.count(t, "failures_total", "chain", "rsk", "reason", "rpc") >= 2
	})
	if err := m.Ready(); err == nil || !strings.Contains(err.Error(), "no node has answered") {
		t.Errorf("ready: %v", err)
	}
	node.SetDown(false)
	work := await(t, m.rsk, "work", func(r auxwork.RSK) bool { return r.Notify })
	if work.BlockHash.String() != node.Hash() || work.RPCAddr != "rsk" || work.FeesForMiner != "21000" {
		t.Errorf("work %+v", work)
	}
	await(t, m.rsk, "work again", func(r auxwork.RSK) bool { return !r.Notify && r.BlockHash == work.BlockHash })

	output := append([]byte("\x6a\x29RSKBLOCK:"), work.BlockHash[:]...)
	client, err := rskrpc.New(rskrpc.Config{URL: node.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	parent := solve(t, nil, wire.TxOut{PkScript: output})
	answer, err := client.Submit(t.Context(), parent, 7)
	if err != nil || !strings.Contains(answer, "IMPORTED_BEST") || !slices.Equal(node.Accepted(), []string{work.BlockHash.String()}) {
		t.Errorf("%s, %v", answer, err)
	}
	if _, err := client.Submit(t.Context(), parent, 7); err == nil {
		t.Error("the next block is in the old coinbase")
	}
	await(t, m.rsk, "the next block", func(r auxwork.RSK) bool { return r.Notify && r.BlockHash.String() == node.Hash() })
}

// answers serves an old node whose getauxblock has this answer.
func answers(t *testing.T, answer string) string {
	t.Helper()
	server := newServer(func(method string) string {
		if method == "help" {
			return `"getauxblock"`
		}
		return answer
	})
	t.Cleanup(server.Close)
	return server.URL
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	const good = `{"hash":"` + "00000000000000000000000000000000000000000000000000000000000000ab" + `","chainid":1,"height":10,"bits":"1d00ffff"}`
	for name, change := range map[string][2]string{
		"no chain id":   {`"chainid":1,`, ``},
		"no height":     {`"height":10,`, ``},
		"short hash":    {`"00`, `"`},
		"bits no hex":   {`1d00ffff`, `difficult`},
		"negative bits": {`1d00ffff`, `1d80ffff`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := often(testConfig())
			cfg.Chains = []auxmaker.Chain{{Name: "bad", Config: noderpc.Config{
				URL: answers(t, strings.Replace(good, change[0], change[1], 1)), User: "user", Password: "secret",
			}}}
			m := start(t, cfg)
			testkit.Eventually(t, "the answer is refused", func() bool {
				return m.count(t, "failures_total", "chain", "bad", "reason", "answer") >= 2
			})
			if len(m.aux) != 0 {
				t.Error("work was written")
			}
		})
	}
}

func TestWithoutKafka(t *testing.T) {
	t.Parallel()
	cfg := testConfig(startNode(t, 1, easyBits, false))
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	s, err := auxmaker.New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, s.Run)
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "waiting for Kafka") {
		t.Errorf("ready: %v", err)
	}
}

// TestClose has auxmakers that never run, and one that cannot begin: none keeps port or goroutines.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := testConfig(startNode(t, 1, easyBits, false))
	cfg.RSK.URL = "http://127.0.0.1:1"
	cfg.NotifyListen = "127.0.0.1:0"
	first, err := auxmaker.New(cfg, service.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.NotifyListen = first.NotifyAddr().String()
	if _, err := auxmaker.New(cfg, service.Deps{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("two on one port: %v", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	second, err := auxmaker.New(cfg, service.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}
