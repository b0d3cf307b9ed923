package regnode_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/testkit"
)

const easyBits = 0x207fffff // every other hash is a block

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/go-zeromq/zmq4.(*pubMWriter).run"), // a PUB socket's, even when closed
	)
}

// start opens a node with an easy chain and answers calls until the test ends.
func start(t *testing.T, cfg regnode.Config) (*regnode.Node, *noderpc.Client) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Bits == 0 {
		cfg.Bits = easyBits
	}
	node, err := regnode.Open(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, func(ctx context.Context) error { return errors.Join(node.Run(ctx), node.Close()) })
	client, err := noderpc.New(noderpc.Config{URL: node.RPCURL(), User: node.User(), Password: node.Password()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return node, client
}

type template struct {
	Version       int32    `json:"version"`
	Rules         []string `json:"rules"`
	Prev          string   `json:"previousblockhash"`
	CoinbaseValue int64    `json:"coinbasevalue"`
	LongPollID    string   `json:"longpollid"`
	MinTime       int64    `json:"mintime"`
	CurTime       int64    `json:"curtime"`
	Bits          string   `json:"bits"`
	Height        int64    `json:"height"`
	Commitment    string   `json:"default_witness_commitment"`
	Transactions  []struct {
		Data    string `json:"data"`
		TxID    string `json:"txid"`
		Depends []int  `json:"depends"`
		Fee     int64  `json:"fee"`
	} `json:"transactions"`
}

func getTemplate(t *testing.T, client *noderpc.Client, longpollID string) template {
	t.Helper()
	text, err := client.BlockTemplate(t.Context(), longpollID, nil)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Result template }
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Result
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newBlock builds the block that a miner makes of a template, without proof of work; salt makes it one of its own.
func newBlock(t *testing.T, tmpl template, salt int64) *wire.MsgBlock {
	t.Helper()
	script, err := txscript.NewScriptBuilder().AddInt64(tmpl.Height).AddInt64(salt).AddData([]byte("test")).Script()
	if err != nil {
		t.Fatal(err)
	}
	coinbase := wire.NewMsgTx(2)
	coinbase.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&chainhash.Hash{}, wire.MaxPrevOutIndex), script, nil))
	coinbase.AddTxOut(wire.NewTxOut(tmpl.CoinbaseValue, []byte{txscript.OP_TRUE}))
	coinbase.AddTxOut(wire.NewTxOut(0, unhex(t, tmpl.Commitment)))
	prev, err := chainhash.NewHashFromStr(tmpl.Prev)
	if err != nil {
		t.Fatal(err)
	}
	var bits uint32
	if _, err := fmt.Sscanf(tmpl.Bits, "%x", &bits); err != nil {
		t.Fatal(err)
	}
	block := wire.NewMsgBlock(wire.NewBlockHeader(tmpl.Version, prev, &chainhash.Hash{}, bits, 0))
	block.Header.Timestamp = time.Unix(tmpl.CurTime, 0)
	block.Transactions = []*wire.MsgTx{coinbase}
	for _, tx := range tmpl.Transactions {
		msg := new(wire.MsgTx)
		if err := msg.Deserialize(bytes.NewReader(unhex(t, tx.Data))); err != nil {
			t.Fatal(err)
		}
		block.Transactions = append(block.Transactions, msg)
	}
	setRoot(block)
	return block
}

func setRoot(block *wire.MsgBlock) {
	block.Header.MerkleRoot = blockchain.CalcMerkleRoot(btcutil.NewBlock(block).Transactions(), false)
}

// solve looks for a nonce whose hash is, or is not, a proof of work.
func solve(block *wire.MsgBlock, want bool) {
	target := blockchain.CompactToBig(easyBits)
	for {
		hash := block.BlockHash()
		if (blockchain.HashToBig(&hash).Cmp(target) <= 0) == want {
			return
		}
		block.Header.Nonce++
	}
}

func blockHex(t *testing.T, block *wire.MsgBlock) string {
	t.Helper()
	var raw bytes.Buffer
	if err := block.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(raw.Bytes())
}

func submit(t *testing.T, client *noderpc.Client, block *wire.MsgBlock) string {
	t.Helper()
	verdict, err := client.SubmitBlock(t.Context(), blockHex(t, block))
	if err != nil {
		t.Fatal(err)
	}
	if verdict.Outcome == noderpc.Accepted {
		return "accepted"
	}
	return verdict.Reason
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	_, client := start(t, regnode.Config{})
	got := getTemplate(t, client, "")
	want := template{
		Version:       0x20000000, // BIP 9
		Rules:         []string{"csv", "!segwit", "taproot"},
		Prev:          got.Prev,
		CoinbaseValue: 50e8,
		LongPollID:    got.Prev + "0",
		MinTime:       got.MinTime,
		CurTime:       got.CurTime,
		Bits:          "207fffff",
		Height:        1,
		// double SHA-256 of 64 zero bytes: no transaction but the coinbase
		Commitment: "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9",
	}
	want.Transactions = got.Transactions
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.Transactions == nil || len(got.Transactions) != 0 {
		t.Errorf("transactions %v, want an empty list", got.Transactions)
	}
	if d := time.Now().Unix() - got.CurTime; d < 0 || d > 60 {
		t.Errorf("curtime is %d s ago", d)
	}
	if err := client.Call(t.Context(), "getblocktemplate", nil, map[string]any{"rules": []string{}}); !hasCode(err, -8) {
		t.Errorf("without the segwit rule: %v, want code -8", err)
	}
}

func hasCode(err error, code int) bool {
	refusal := (*noderpc.Error)(nil)
	return errors.As(err, &refusal) && refusal.Code == code
}

func TestSubmitBlock(t *testing.T) {
	t.Parallel()
	node, client := start(t, regnode.Config{})
	if _, err := node.Generate(t.Context(), 12); err != nil {
		t.Fatal(err)
	}
	tmpl := getTemplate(t, client, "")
	tests := []struct {
		want   string
		change func(*wire.MsgBlock)
	}{
		{"high-hash", func(b *wire.MsgBlock) {}},
		{"bad-txnmrklroot", func(b *wire.MsgBlock) { b.Header.MerkleRoot[0]++ }},
		{"bad-cb-amount", func(b *wire.MsgBlock) { b.Transactions[0].TxOut[0].Value++; setRoot(b) }},
		{"bad-cb-height", func(b *wire.MsgBlock) { b.Transactions[0].TxIn[0].SignatureScript[0]++; setRoot(b) }},
		{"bad-cb-length", func(b *wire.MsgBlock) { b.Transactions[0].TxIn[0].SignatureScript = make([]byte, 101); setRoot(b) }},
		{"bad-witness-merkle-match", func(b *wire.MsgBlock) { b.Transactions[0].TxOut[1].PkScript[37]++; setRoot(b) }},
		{"bad-blk-length", func(b *wire.MsgBlock) { b.Transactions = nil }},
		{"bad-diffbits", func(b *wire.MsgBlock) { b.Header.Bits = 0x207ffffe }},
		{"time-too-old", func(b *wire.MsgBlock) { b.Header.Timestamp = time.Unix(tmpl.MinTime-1, 0) }},
		{"time-too-new", func(b *wire.MsgBlock) { b.Header.Timestamp = time.Now().Add(3 * time.Hour).Truncate(time.Second) }},
		{"prev-blk-not-found", func(b *wire.MsgBlock) { b.Header.PrevBlock[0]++ }},
		{"accepted", func(b *wire.MsgBlock) { b.Header.Timestamp = time.Unix(tmpl.MinTime, 0) }},
	}
	for i, tt := range tests {
		block := newBlock(t, tmpl, int64(i))
		tt.change(block)
		solve(block, tt.want != "high-hash")
		if got := submit(t, client, block); got != tt.want {
			t.Errorf("%s: got %q", tt.want, got)
		}
		if tt.want == "bad-cb-amount" {
			if got := submit(t, client, block); got != "duplicate-invalid" {
				t.Errorf("again, %s: got %q, want duplicate-invalid", tt.want, got)
			}
		}
		if tt.want == "accepted" {
			if got := submit(t, client, block); got != "duplicate" {
				t.Errorf("again: got %q, want duplicate", got)
			}
		}
	}
	if got := node.Height(); got != 13 {
		t.Errorf("height %d, want 13", got)
	}
	if _, err := client.SubmitBlock(t.Context(), "00"); !hasCode(err, -22) {
		t.Errorf("half a block: %v, want code -22", err)
	}
}

// TestReorganisation has a block of the same height on the side, and then one on top of it.
func TestReorganisation(t *testing.T) {
	t.Parallel()
	node, client := start(t, regnode.Config{})
	tmpl := getTemplate(t, client, "")
	first, second := newBlock(t, tmpl, 1), newBlock(t, tmpl, 2)
	solve(first, true)
	solve(second, true)
	if got := submit(t, client, first); got != "accepted" {
		t.Fatalf("first block: %s", got)
	}
	if got := submit(t, client, second); got != "inconclusive" {
		t.Fatalf("second block of the same height: %s", got)
	}
	check := func(block *wire.MsgBlock, want noderpc.BlockInfo) {
		t.Helper()
		want.PrevHash = block.Header.PrevBlock.String()
		want.Time = block.Header.Timestamp.Unix()
		got, err := client.Block(t.Context(), block.BlockHash().String())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	check(first, noderpc.BlockInfo{Height: 1, Confirmations: 1})
	check(second, noderpc.BlockInfo{Height: 1, Confirmations: -1})

	next := getTemplate(t, client, "")
	next.Prev = second.BlockHash().String()
	third := newBlock(t, next, 3)
	solve(third, true)
	if got := submit(t, client, third); got != "accepted" {
		t.Fatalf("block on the side chain: %s", got)
	}
	check(first, noderpc.BlockInfo{Height: 1, Confirmations: -1})
	check(second, noderpc.BlockInfo{Height: 1, Confirmations: 2})
	check(third, noderpc.BlockInfo{Height: 2, Confirmations: 1})
	if got := node.Height(); got != 2 {
		t.Errorf("height %d, want 2", got)
	}
	if _, err := client.Block(t.Context(), strings.Repeat("ab", 32)); !errors.Is(err, noderpc.ErrUnknownBlock) {
		t.Errorf("unknown block: %v", err)
	}
}

// spend returns a transaction from a coinbase anyone can spend, by way of a witness program anyone can spend when two
// is true.
func spend(from *wire.MsgTx, pkScript []byte, witness wire.TxWitness, fee int64) *wire.MsgTx {
	tx := wire.NewMsgTx(2)
	id := from.TxHash()
	tx.AddTxIn(wire.NewTxIn(wire.NewOutPoint(&id, 0), nil, witness))
	tx.AddTxOut(wire.NewTxOut(from.TxOut[0].Value-fee, pkScript))
	return tx
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	node, client := start(t, regnode.Config{TxWait: time.Millisecond})
	hashes, err := node.Generate(t.Context(), 101)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	if err := client.Call(t.Context(), "getblock", &text, hashes[0].String(), 0); err != nil {
		t.Fatal(err)
	}
	var first wire.MsgBlock
	if err := first.Deserialize(bytes.NewReader(unhex(t, text))); err != nil {
		t.Fatal(err)
	}

	program, err := txscript.NewScriptBuilder().AddOp(txscript.OP_0).AddData(chainhash.HashB([]byte{txscript.OP_TRUE})).Script()
	if err != nil {
		t.Fatal(err)
	}
	parent := spend(first.Transactions[0], program, nil, 10_000)
	child := spend(parent, program, wire.TxWitness{{txscript.OP_TRUE}}, 20_000)
	orphan := spend(child, program, wire.TxWitness{{txscript.OP_TRUE}}, 1)

	empty := getTemplate(t, client, "")
	send := func(tx *wire.MsgTx) error {
		var raw bytes.Buffer
		if err := tx.Serialize(&raw); err != nil {
			t.Fatal(err)
		}
		return client.Call(t.Context(), "sendrawtransaction", nil, hex.EncodeToString(raw.Bytes()))
	}
	if err := send(child); !hasCode(err, -25) {
		t.Errorf("transaction without its parent: %v, want code -25", err)
	}
	for _, tx := range []*wire.MsgTx{parent, child} {
		if err := send(tx); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(orphan); !hasCode(err, -26) {
		t.Errorf("transaction without a fee: %v, want code -26", err)
	}

	tmpl := getTemplate(t, client, empty.LongPollID) // new transactions end a long poll
	if len(tmpl.Transactions) != 2 || tmpl.Transactions[1].TxID != child.TxHash().String() {
		t.Fatalf("template has %v, want parent and child", tmpl.Transactions)
	}
	if diff := cmp.Diff([]int{1}, tmpl.Transactions[1].Depends); diff != "" {
		t.Error(diff)
	}
	if want := empty.CoinbaseValue + 30_000; tmpl.CoinbaseValue != want {
		t.Errorf("coinbase value %d, want %d", tmpl.CoinbaseValue, want)
	}
	block := newBlock(t, tmpl, 0) // without the coinbase's witness
	solve(block, true)
	if got := submit(t, client, block); got != "accepted" {
		t.Fatalf("block with a witness: %s", got)
	}
	if tmpl := getTemplate(t, client, ""); len(tmpl.Transactions) != 0 {
		t.Errorf("mined transactions are in the next template: %v", tmpl.Transactions)
	}
}

// TestLongPoll has other calls answered while one waits.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	node, client := start(t, regnode.Config{})
	id := getTemplate(t, client, "").LongPollID
	answered := make(chan []byte)
	go func() {
		text, err := client.BlockTemplate(t.Context(), id, nil)
		if err != nil {
			t.Error(err)
		}
		answered <- text
	}()
	for range 20 {
		if _, err := client.ChainInfo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case text := <-answered:
		t.Fatalf("long poll answered without news: %s", text)
	default:
	}
	if _, err := node.Generate(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if text := <-answered; !bytes.Contains(text, []byte(`"height":2`)) {
		t.Errorf("long poll answered %s, want a template of height 2", text)
	}
}

// TestTimes makes blocks faster than seconds pass.
func TestTimes(t *testing.T) {
	t.Parallel()
	node, client := start(t, regnode.Config{})
	if _, err := node.Generate(t.Context(), 150); err != nil {
		t.Fatal(err)
	}
	var info struct {
		MedianTime int64 `json:"mediantime"`
	}
	if err := client.Call(t.Context(), "getblockchaininfo", &info); err != nil {
		t.Fatal(err)
	}
	tmpl := getTemplate(t, client, "")
	if tmpl.MinTime != info.MedianTime+1 {
		t.Errorf("mintime %d, want one more than the median time %d", tmpl.MinTime, info.MedianTime)
	}
	if tmpl.CurTime < tmpl.MinTime {
		t.Errorf("curtime %d is before mintime %d", tmpl.CurTime, tmpl.MinTime)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	node, client := start(t, regnode.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan chainhash.Hash, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- noderpc.SubscribeBlocks(ctx, noderpc.Subscription{
			Addr: node.ZMQAddr(), Log: zerolog.Nop(),
			OnBlock:  func(hash chainhash.Hash) { heard <- hash },
			OnMissed: func(n uint32) { t.Errorf("%d messages missed", n) },
		})
	}()
	// A subscription takes a moment to arrive: the first blocks may go unheard.
	var mined []chainhash.Hash
	for len(heard) == 0 {
		hashes, err := node.Generate(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		mined = append(mined, hashes...)
	}
	more, err := node.Generate(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	mined = append(mined, more...)
	var got []chainhash.Hash
	for len(got) == 0 || got[len(got)-1] != more[2] {
		got = append(got, <-heard)
	}
	if diff := cmp.Diff(mined[len(mined)-len(got):], got); diff != "" {
		t.Error(diff)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	var kinds []struct{ Type, Address string }
	if err := client.Call(t.Context(), "getzmqnotifications", &kinds); err != nil {
		t.Fatal(err)
	}
	if len(kinds) != 2 || kinds[0].Type != "pubhashblock" || kinds[0].Address != node.ZMQAddr() {
		t.Errorf("getzmqnotifications: %v", kinds)
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	node, client := start(t, regnode.Config{})
	hashes, err := node.Generate(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	call := func(result any, method string, params ...any) {
		t.Helper()
		if err := client.Call(t.Context(), method, result, params...); err != nil {
			t.Fatal(err)
		}
	}
	var (
		count           int
		best, at1, help string
		header, block   map[string]any
		network         map[string]any
		rawHeader       string
		genesis         string
	)
	call(&count, "getblockcount")
	call(&best, "getbestblockhash")
	call(&at1, "getblockhash", 1)
	call(&genesis, "getblockhash", 0)
	call(&header, "getblockheader", at1)
	call(&rawHeader, "getblockheader", at1, false)
	call(&block, "getblock", at1, 1)
	call(&network, "getnetworkinfo")
	call(&help, "help")
	if count != 2 || best != hashes[1].String() || at1 != hashes[0].String() {
		t.Errorf("count %d, best %s, first %s; want 2, %s", count, best, at1, hashes)
	}
	if len(rawHeader) != 160 {
		t.Errorf("header %q, want 80 bytes", rawHeader)
	}
	for key, want := range map[string]any{
		"hash": at1, "height": 1.0, "confirmations": 2.0, "bits": "207fffff",
		"previousblockhash": genesis, "nextblockhash": best,
	} {
		if header[key] != want || block[key] != want {
			t.Errorf("%s: header has %v, block has %v, want %v", key, header[key], block[key], want)
		}
	}
	if block["nTx"] != 1.0 || len(block["tx"].([]any)) != 1 {
		t.Errorf("block %v, want one transaction", block)
	}
	if !strings.Contains(help, "submitblock") || network["version"] == nil {
		t.Errorf("help %q, network %v", help, network)
	}
	got, err := client.ChainInfo(t.Context())
	want := noderpc.ChainInfo{Chain: "regtest", Blocks: 2, Headers: 2, BestBlockHash: best}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}

	for _, tt := range []struct {
		code   int
		method string
		params []any
	}{
		{-8, "getblockhash", []any{3}},
		{-8, "getblockhash", []any{-1}},
		{-8, "getblockhash", []any{"1"}},
		{-1, "getblockhash", nil},
		{-5, "getblock", []any{strings.Repeat("00", 32)}},
		{-8, "getblock", []any{"00"}},
		{-8, "getblock", []any{strings.Repeat("zz", 32)}},
		{-8, "getblock", []any{at1, 3}},
		{-22, "sendrawtransaction", []any{"xy"}},
		{-32601, "getwork", nil},
	} {
		if err := client.Call(t.Context(), tt.method, nil, tt.params...); !hasCode(err, tt.code) {
			t.Errorf("%s %v: %v, want code %d", tt.method, tt.params, err, tt.code)
		}
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	node, _ := start(t, regnode.Config{User: "user", Password: "secret"})
	tests := []struct {
		name, method, password, body string
		status                       int
		answer                       string
	}{
		{"ok", "POST", "secret", `{"method":"getblockcount","id":7}`, 200, `{"result":0,"error":null,"id":7}`},
		{"wrong password", "POST", "Secret", `{"method":"getblockcount"}`, 401, ``},
		{"get", "GET", "secret", ``, 405, `JSONRPC server handles only POST requests`},
		{"unknown method", "POST", "secret", `{"method":"x","id":1}`, 404, `{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}`},
		{"no method", "POST", "secret", `{}`, 400, `{"result":null,"error":{"code":-32600,"message":"Missing method"},"id":null}`},
		{"named params", "POST", "secret", `{"method":"getblockhash","params":{"height":0}}`, 400, `{"result":null,"error":{"code":-32600,"message":"Params must be an array"},"id":null}`},
		{"no json", "POST", "secret", `{`, 500, `{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}`},
		{"too large", "POST", "secret", `{"method":"` + strings.Repeat("x", 32<<20), 413, `http: request body too large`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, node.RPCURL(), strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("user", tt.password)
			req.Close = true
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(string(body)); resp.StatusCode != tt.status || got != tt.answer {
				t.Errorf("HTTP %d %s\nwant HTTP %d %s", resp.StatusCode, got, tt.status, tt.answer)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []chainhash.Hash
	for round := range 3 {
		node, err := regnode.Open(regnode.Config{Dir: dir, Bits: easyBits}, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		if got := node.Height(); int(got) != len(want) {
			t.Errorf("round %d starts at height %d, want %d", round, got, len(want))
		}
		hashes, err := node.Generate(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, hashes...)
		cookie, err := os.ReadFile(filepath.Join(dir, ".cookie"))
		if err != nil || string(cookie) != node.User()+":"+node.Password() {
			t.Errorf("cookie %q, %v", cookie, err)
		}
		if err := node.Close(); err != nil {
			t.Fatal(err)
		}
	}

	// Another proof of work is another chain.
	node, err := regnode.Open(regnode.Config{Dir: dir, Bits: 0x207ffffe}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if got := node.Height(); got != 0 {
		t.Errorf("chain of other bits starts at height %d", got)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]regnode.Config{
		"no directory":    {},
		"not a target":    {Dir: t.TempDir(), Bits: 1},
		"negative":        {Dir: t.TempDir(), Bits: 0x1d800001},
		"too large":       {Dir: t.TempDir(), Bits: 0x227fffff},
		"not a directory": {Dir: file},
		"bad rpc address": {Dir: t.TempDir(), RPCAddr: "nowhere:x"},
		"bad zmq address": {Dir: t.TempDir(), ZMQAddr: "nowhere:x"},
	} {
		if node, err := regnode.Open(cfg, zerolog.Nop()); err == nil {
			t.Errorf("%s: opened", name)
			_ = node.Close()
		}
	}
}
