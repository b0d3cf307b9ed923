// Package busynode stands in for Bitcoin Core on a busy network: its templates are as large as blocks are, and it has a
// block whenever a test wants one.
package busynode

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zeromq/zmq4"
)

// Transactions are in each template, 1.5 MB together.
const Transactions = 3000

// Node is on regtest and hands out one template a height, whose text but for height, time and previous block was made
// beforehand: what it takes a real node to choose transactions is no part of what is measured here.
type Node struct {
	URL string // of the RPC server, which lets everybody in
	ZMQ string // hashblock is published here

	height atomic.Int64
	middle string // of a template, between what depends on the height
	socket zmq4.Socket

	mu    sync.Mutex
	calls map[int64]Call // the first at each height
}

// Call is a call of getblocktemplate: when the node got it, and when it had handed the whole answer to the kernel.
type Call struct{ Begin, End time.Time }

// Start runs a node until the test ends.
func Start(tb testing.TB) *Node {
	tb.Helper()
	n := &Node{
		middle: middle(),
		calls:  make(map[int64]Call),
		socket: zmq4.NewPub(context.Background(), zmq4.WithLogger(log.New(io.Discard, "", 0))),
	}
	n.height.Store(10)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	n.ZMQ = "tcp://" + ln.Addr().String()
	ln.Close()
	if err := n.socket.Listen(n.ZMQ); err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewServer(n)
	n.URL = server.URL
	tb.Cleanup(func() {
		server.Close()
		n.socket.Close()
	})
	return n
}

// ServeHTTP answers RPC.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct{ Method string }
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	height := n.height.Load()
	switch request.Method {
	case "getblockchaininfo":
		fmt.Fprintf(w, `{"result":{"chain":"regtest","blocks":%d,"headers":%[1]d,"bestblockhash":%q},"error":null}`, height, Hash(height))
	case "getblocktemplate":
		call := Call{Begin: time.Now()}
		text := template(n.middle, height)
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = w.Write(text)
		call.End = time.Now()
		n.mu.Lock()
		if n.calls[height].End.IsZero() {
			n.calls[height] = call
		}
		n.mu.Unlock()
	default:
		fmt.Fprint(w, `{"result":null,"error":{"code":-32601,"message":"Method not found"}}`)
	}
}

// Template is the response to getblocktemplate of a node with height blocks.
func Template(height int64) []byte { return template(middle(), height) }

func template(middle string, height int64) []byte {
	text := make([]byte, 0, len(middle)+256)
	text = fmt.Appendf(text, `{"result":{"previousblockhash":"%s",`, Hash(height))
	text = append(text, middle...)
	return fmt.Appendf(text, `,"curtime":%d,"height":%d},"error":null,"id":"1"}`, time.Now().Unix(), height+1)
}

func middle() string {
	random := rand.NewChaCha8([32]byte{})
	data := make([]byte, 500)
	var txs []string
	for i := range Transactions {
		_, _ = random.Read(data)
		id := sha256.Sum256(data)
		txs = append(txs, fmt.Sprintf(`{"data":"%x","txid":"%x","hash":"%[2]x","depends":[],"fee":%d,"sigops":4,"weight":1300}`, data, id, i))
	}
	return `"transactions":[` + strings.Join(txs, ",") + `],"version":536870912,"rules":["csv","!segwit"],"coinbasevalue":312500000,` +
		`"mintime":1,"bits":"207fffff","default_witness_commitment":"6a24aa21a9ed` + strings.Repeat("00", 32) + `"`
}

// FirstCall returns the first call of getblocktemplate after the block at height.
func (n *Node) FirstCall(height int64) Call {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[height]
}

// Hash names the block at a height, as RPC does.
func Hash(height int64) string { return fmt.Sprintf("%064x", height) }

// Block makes a block, announces it and returns its height.
func (n *Node) Block(tb testing.TB) int64 {
	tb.Helper()
	height := n.height.Add(1)
	hash, err := hex.DecodeString(Hash(height))
	if err != nil {
		tb.Fatal(err)
	}
	sequence := binary.LittleEndian.AppendUint32(nil, uint32(height))
	if err := n.socket.Send(zmq4.NewMsgFrom([]byte("hashblock"), hash, sequence)); err != nil {
		tb.Fatal(err)
	}
	return height
}

// BareTemplate takes a template off the wire and does nothing with it.
func (n *Node) BareTemplate(tb testing.TB) {
	tb.Helper()
	resp, err := http.Post(n.URL, "application/json", strings.NewReader(`{"method":"getblocktemplate"}`))
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		tb.Fatal(err)
	}
}
