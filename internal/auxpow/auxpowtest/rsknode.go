package auxpowtest

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/btcsuite/btcd/blockchain"
)

// RSKNode plays the node of RSK. Its methods may be called from any goroutine.
type RSKNode struct {
	server

	target   *big.Int
	height   int
	notify   bool
	orphaned bool           // whether what was accepted is off the chain
	heights  map[string]int // of the accepted blocks, by RSK's own hash
}

// StartRSK starts RSK's node at height 1, whose blocks want the target of bits. Close ends it.
func StartRSK(bits uint32) *RSKNode {
	n := &RSKNode{target: blockchain.CompactToBig(bits), height: 1, notify: true, heights: make(map[string]int)}
	n.start(n.call)
	return n
}

// Advance makes the chain grow by a block of somebody else. The next work has notify set.
func (n *RSKNode) Advance() {
	n.do(func() {
		n.height++
		n.notify = true
	})
}

// Orphan takes the blocks that the node has taken from its chain.
func (n *RSKNode) Orphan() { n.do(func() { n.orphaned = true }) }

// Hash returns the block to mine, as the node writes it.
func (n *RSKNode) Hash() (hash string) {
	n.do(func() { hash = n.hash(n.height) })
	return hash
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
