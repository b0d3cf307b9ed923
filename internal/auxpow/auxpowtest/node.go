package auxpowtest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/btcsuite/btcd/blockchain"
)

// Node plays the node of a chain like Namecoin over HTTP. It wants the login
// user:secret. Its methods may be called from any goroutine.
type Node struct {
	id   int32
	bits uint32
	old  bool
	http *httptest.Server

	mu       sync.Mutex
	height   int32
	payout   string
	down     bool
	accepted []string         // hashes in display order
	heights  map[string]int32 // of accepted; below 0: not on the chain any more
	calls    map[string]int
}

// StartNode starts the node of the chain with this id at height 1, whose blocks
// want the target of bits. An old one knows getauxblock only. Close ends it.
func StartNode(id int32, bits uint32, old bool) *Node {
	n := &Node{id: id, bits: bits, old: old, height: 1, heights: make(map[string]int32), calls: make(map[string]int)}
	n.http = httptest.NewServer(serve(n.call, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.down
	}))
	return n
}

// Close ends the node.
func (n *Node) Close() { n.http.Close() }

// URL returns the address of the node's RPC.
func (n *Node) URL() string { return n.http.URL }

// SetDown makes the node fail every call, or answer again.
func (n *Node) SetDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// Advance makes the chain grow by a block of somebody else.
func (n *Node) Advance() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.height++
}

// Orphan takes the blocks that the node has taken from its chain.
func (n *Node) Orphan() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for hash, height := range n.heights {
		n.heights[hash] = -max(height, -height)
	}
}

// Hash returns the block that the node wants proved, in display order.
func (n *Node) Hash() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hash()
}

// Accepted returns the hashes of the blocks that the node has taken.
func (n *Node) Accepted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.accepted)
}

// Calls returns how often method was called.
func (n *Node) Calls(method string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls[method]
}

// Payout returns the address of the last createauxblock.
func (n *Node) Payout() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.payout
}

func (n *Node) hash() string {
	hash := sha256d(fmt.Appendf(nil, "block %d of chain %d for %s", n.height, n.id, n.payout))
	return hex.EncodeToString(hash[:])
}

func (n *Node) call(method string, params []string) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[method]++
	switch {
	case method == "help" && n.old:
		return "== Mining ==\ngetauxblock (hash auxpow)\n", nil
	case method == "help":
		return "== Mining ==\ncreateauxblock <address>\ngetauxblock (hash auxpow)\nsubmitauxblock <hash> <auxpow>\n", nil
	case method == "createauxblock" && len(params) == 1 && !n.old:
		n.payout = params[0]
		return n.block(), nil
	case method == "getauxblock" && len(params) == 0:
		return n.block(), nil
	case (method == "submitauxblock" && !n.old || method == "getauxblock") && len(params) == 2:
		return n.submit(params[0], params[1])
	case (method == "getblockheader" && !n.old || method == "getblock") && len(params) == 1:
		height, known := n.heights[params[0]]
		switch {
		case !known:
			return nil, &rpcError{-5, "Block not found"}
		case height < 0:
			return map[string]any{"height": -height, "confirmations": -1}, nil
		}
		return map[string]any{"height": height, "confirmations": n.height - height}, nil
	}
	return nil, &rpcError{-32601, "Method not found"}
}

func (n *Node) block() any {
	return map[string]any{
		"hash": n.hash(), "chainid": n.id, "previousblockhash": fmt.Sprintf("%064x", n.height-1),
		"coinbasevalue": 625000000, "bits": fmt.Sprintf("%08x", n.bits), "height": n.height,
		"_target": fmt.Sprintf("%064x", blockchain.CompactToBig(n.bits)),
	}
}

func (n *Node) submit(hash, auxpow string) (any, error) {
	if hash != n.hash() {
		return nil, &rpcError{-8, "block hash unknown"}
	}
	proof, err := hex.DecodeString(auxpow)
	if err != nil {
		return nil, &rpcError{-22, "auxpow is not hex"}
	}
	want, err := hex.DecodeString(hash)
	if err != nil {
		return nil, err
	}
	slices.Reverse(want)
	if err := Validate(proof, [32]byte(want), n.id, blockchain.CompactToBig(n.bits)); err != nil {
		return false, nil //nolint:nilerr // how a node refuses a proof
	}
	n.accepted = append(n.accepted, hash)
	n.heights[hash] = n.height
	n.height++
	return true, nil
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *rpcError) Error() string { return e.Message }

// serve answers JSON-RPC, with the parameters as text.
func serve(call func(method string, params []string) (any, error), down func() bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if down() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		if user, password, ok := r.BasicAuth(); ok && user+":"+password != "user:secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var request struct {
			Method string
			Params []any
			ID     any
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		params := make([]string, len(request.Params))
		for i, p := range request.Params {
			params[i] = fmt.Sprint(p)
		}
		answer := map[string]any{"id": request.ID}
		if result, err := call(request.Method, params); err != nil {
			answer["error"] = err
		} else {
			answer["result"] = result
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// RSKNode plays the node of RSK over HTTP. Its methods may be called from any
// goroutine.
type RSKNode struct {
	http *httptest.Server

	mu       sync.Mutex
	target   *big.Int
	height   int
	notify   bool
	down     bool
	orphaned bool // what was accepted
	accepted []string
	heights  map[string]int // by RSK's own hash
}

// StartRSK starts RSK's node at height 1, whose blocks want the target of bits.
// Close ends it.
func StartRSK(bits uint32) *RSKNode {
	n := &RSKNode{target: blockchain.CompactToBig(bits), height: 1, notify: true, heights: make(map[string]int)}
	n.http = httptest.NewServer(serve(n.call, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.down
	}))
	return n
}

// Close ends the node.
func (n *RSKNode) Close() { n.http.Close() }

// URL returns the address of the node's RPC.
func (n *RSKNode) URL() string { return n.http.URL }

// SetDown makes the node fail every call, or answer again.
func (n *RSKNode) SetDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// Advance makes the chain grow by a block of somebody else. The next work has
// notify set.
func (n *RSKNode) Advance() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.height++
	n.notify = true
}

// Orphan takes the blocks that the node has taken from its chain.
func (n *RSKNode) Orphan() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.orphaned = true
}

// Hash returns the block to mine, as the node writes it.
func (n *RSKNode) Hash() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hash(n.height)
}

// Accepted returns the hashes of the blocks that the node has taken.
func (n *RSKNode) Accepted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.accepted)
}

func (n *RSKNode) hash(height int) string {
	hash := sha256d(fmt.Appendf(nil, "block %d of RSK", height))
	return "0x" + hex.EncodeToString(hash[:])
}

// ownHash is that of a block once it is proved.
func ownHash(height int) string {
	hash := sha256d(fmt.Appendf(nil, "proved block %d of RSK", height))
	return "0x" + hex.EncodeToString(hash[:])
}

func (n *RSKNode) header(hash string, height int) any {
	return map[string]any{"hash": hash, "number": fmt.Sprintf("0x%x", height)}
}

func (n *RSKNode) call(method string, params []string) (any, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case method == "mnr_getWork" && len(params) == 0:
		notify := n.notify
		n.notify = false
		return map[string]any{
			"blockHashForMergedMining": n.hash(n.height), "target": fmt.Sprintf("0x%064x", n.target),
			"feesPaidToMiner": "21000", "notify": notify, "parentBlockHash": n.hash(n.height - 1),
		}, nil
	case method == "mnr_submitBitcoinBlockPartialMerkle" && len(params) == 5:
		if err := ValidateRSK(params, n.hash(n.height), n.target); err != nil {
			return nil, &rpcError{-33000, err.Error()}
		}
		n.accepted = append(n.accepted, n.hash(n.height))
		own := ownHash(n.height)
		n.heights[own] = n.height
		n.height++
		n.notify = true
		return map[string]any{"blockResult": "IMPORTED_BEST", "blockHash": own, "blockIncludedHeight": fmt.Sprintf("0x%x", n.height-1)}, nil
	case method == "eth_getBlockByHash" && len(params) == 2:
		height, known := n.heights[params[0]]
		if !known {
			return nil, nil
		}
		return n.header(params[0], height), nil
	case method == "eth_getBlockByNumber" && params[0] == "latest":
		return n.header(ownHash(n.height-1), n.height-1), nil
	case method == "eth_getBlockByNumber":
		height, err := strconv.ParseInt(params[0], 0, 32)
		if err != nil || int(height) >= n.height {
			return nil, nil //nolint:nilerr // how the node says that there is none
		}
		if n.orphaned {
			return n.header("0x"+strings.Repeat("0", 64), int(height)), nil
		}
		return n.header(ownHash(int(height)), int(height)), nil
	}
	return nil, &rpcError{-32601, "Method not found"}
}
