package auxpowtest

import (
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/btcsuite/btcd/blockchain"
)

// Node plays the node of a chain like Namecoin. Its methods may be called from any goroutine.
type Node struct {
	server
	id   int32
	bits uint32
	old  bool

	height  int32
	payout  string
	heights map[string]int32 // of the accepted blocks; below 0: not on the chain any more
	calls   map[string]int
}

// StartNode starts the node of the chain with this id at height 1, whose blocks want the target of bits. An old one
// knows getauxblock only. Close ends it.
func StartNode(id int32, bits uint32, old bool) *Node {
	n := &Node{id: id, bits: bits, old: old, height: 1, heights: make(map[string]int32), calls: make(map[string]int)}
	n.start(n.call)
	return n
}

// Advance makes the chain grow by a block of somebody else.
func (n *Node) Advance() { n.do(func() { n.height++ }) }

// Orphan takes the blocks that the node has taken from its chain.
func (n *Node) Orphan() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for hash, height := range n.heights {
		n.heights[hash] = -max(height, -height)
	}
}

// Hash returns the block that the node wants proved, in display order.
func (n *Node) Hash() (hash string) {
	n.do(func() { hash = n.hash() })
	return hash
}

// Calls returns how often method was called.
func (n *Node) Calls(method string) (count int) {
	n.do(func() { count = n.calls[method] })
	return count
}

// Payout returns the address of the last createauxblock.
func (n *Node) Payout() (address string) {
	n.do(func() { address = n.payout })
	return address
}

func (n *Node) hash() string {
	hash := sha256d(fmt.Appendf(nil, "block %d of chain %d for %s", n.height, n.id, n.payout))
	return hex.EncodeToString(hash[:])
}

func (n *Node) call(method string, params []string) (any, error) {
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
