package noderpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// Codes of Bitcoin Core's errors (src/rpc/protocol.h) and btcd's.
const (
	codeBlockNotFound = -5     // invalid address or key; also: no such block
	codeInternal      = -32603 // btcd, for a block outside the active chain
)

const (
	// longPollTimeout is as long as the longest quiet of a network should be: Bitcoin Core keeps one of its few RPC
	// threads busy for a long poll that was given up until the next block comes.
	longPollTimeout = 6 * time.Hour
	// submitTimeout allows for the checking of a full block on a slow disk.
	submitTimeout = time.Minute
)

// ErrUnknownBlock is returned for a block that the node has never seen.
var ErrUnknownBlock = errors.New("block is unknown to the node")

// BlockTemplate returns the whole text of the answer to getblocktemplate, which may turn out not to be valid JSON and,
// if it is long, to hold no template. With the longpollid of an earlier template it waits until the node has a better
// one. While the answer comes arrived is given, unless it is nil, all that there is of it: bytes that do not change any
// more.
func (c *Client) BlockTemplate(ctx context.Context, longpollID string, arrived func(soFar []byte)) ([]byte, error) {
	timeout := c.cfg.timeout()
	if longpollID != "" {
		timeout = longPollTimeout
	}
	// A rule that does not apply to the network is ignored (BIP 9), and a node on signet refuses who does not know its
	// rule (BIP 325).
	const method = "getblocktemplate"
	request, err := newRequest(method, struct {
		Rules      []string `json:"rules"`
		LongPollID string   `json:"longpollid,omitempty"`
	}{[]string{"segwit", "signet"}, longpollID})
	if err != nil {
		return nil, err
	}
	return c.send(ctx, timeout, method, request, c.glance, arrived)
}

// Outcome is a node's judgement of a submitted block.
type Outcome int

// A block that is Accepted or Duplicate is on the node's chain, or was (but see
// SubmitBlock). An Inconclusive one is stored, but the node had no reason to
// judge it: another block of that height was first.
const (
	Rejected Outcome = iota
	Inconclusive
	Duplicate
	Accepted
)

func (o Outcome) String() string {
	return [...]string{"rejected", "inconclusive", "duplicate", "accepted"}[o]
}

// Verdict is the node's answer to submitblock (BIP 22).
type Verdict struct {
	Outcome Outcome
	Reason  string // the node's words; empty when Accepted
}

// SubmitBlock gives a block, in hex, to the node. A block that the node cannot decode is an *Error.
//
// btcd also accepts a block whose parent it lacks, and forgets it when the parent does not come soon: only Block tells
// whether it is on the chain. It returns ErrUnknownBlock for a block without a parent.
func (c *Client) SubmitBlock(ctx context.Context, blockHex string) (Verdict, error) {
	// Megabytes of hex need nothing of what json.Marshal does to a string.
	const method = "submitblock"
	const head, tail = `{"jsonrpc":"1.0","id":"1","method":"` + method + `","params":["`, `"]}`
	request := make([]byte, 0, len(head)+len(blockHex)+len(tail))
	request = append(append(append(request, head...), blockHex...), tail...)
	answer, err := c.send(ctx, max(submitTimeout, c.cfg.timeout()), method, request, c.check, nil)
	if err != nil {
		return Verdict{}, err
	}
	var reason *string
	if err := json.Unmarshal([]byte(gjson.GetBytes(answer, "result").Raw), &reason); err != nil {
		return Verdict{}, fmt.Errorf("submitblock: unexpected result from the node at %s: %w", c.url, err)
	}
	if reason == nil {
		return Verdict{Outcome: Accepted}, nil
	}
	return parseVerdict(*reason), nil
}

// parseVerdict understands Bitcoin Core's words (BIP22ValidationResult and submitblock in src/rpc/mining.cpp) and
// btcd's, which are "rejected: " and the text of its blockchain.RuleError.
func parseVerdict(reason string) Verdict {
	text, btcd := strings.CutPrefix(reason, "rejected: ")
	switch {
	case reason == "duplicate":
		return Verdict{Duplicate, reason}
	case reason == "inconclusive", reason == "duplicate-inconclusive":
		return Verdict{Inconclusive, reason}
	case btcd && strings.HasPrefix(text, "already have block (orphan)"):
		return Verdict{Inconclusive, text}
	case btcd && strings.HasPrefix(text, "already have block"):
		return Verdict{Duplicate, text}
	}
	return Verdict{Rejected, text}
}

// ChainInfo is the state of the node's chain.
type ChainInfo struct {
	Chain                string `json:"chain"` // see bitcoin.Network
	Blocks               int32  `json:"blocks"`
	Headers              int32  `json:"headers"`
	BestBlockHash        string `json:"bestblockhash"`
	ChainWork            string `json:"chainwork"`            // 64 hex digits: expected hashes in the chain; btcd does not tell: ""
	InitialBlockDownload bool   `json:"initialblockdownload"` // btcd does not tell: false
}

// ChainInfo returns the state of the node's chain.
func (c *Client) ChainInfo(ctx context.Context) (ChainInfo, error) {
	var info ChainInfo
	err := c.Call(ctx, "getblockchaininfo", &info)
	switch info.Chain { // btcd's own names
	case "mainnet":
		info.Chain = "main"
	case "testnet3":
		info.Chain = "test"
	}
	return info, err
}

// BlockInfo says where the node has a block.
type BlockInfo struct {
	Height        int32 `json:"height"`        // 0 when btcd has it outside the active chain
	Confirmations int64 `json:"confirmations"` // 1 for the newest block, -1 for one outside the active chain

	// btcd gives these two for blocks of the active chain only, or not at all.
	PrevHash   string `json:"previousblockhash"` // display order
	Time       int64  `json:"time"`              // unix seconds
	MedianTime int64  `json:"mediantime"`        // of the block and the ten before it, unix seconds
}

// Block returns where the node has the block with this hash, in display order, or ErrUnknownBlock.
func (c *Client) Block(ctx context.Context, hash string) (BlockInfo, error) {
	var info BlockInfo
	err := c.Call(ctx, "getblockheader", &info, hash)
	if refusal := (*Error)(nil); errors.As(err, &refusal) {
		switch {
		case refusal.Code == codeBlockNotFound:
			return BlockInfo{}, fmt.Errorf("%s: %w", hash, ErrUnknownBlock)
		case refusal.Code == codeInternal && strings.Contains(refusal.Message, "is not in the main chain"):
			return BlockInfo{Confirmations: -1}, nil
		}
	}
	return info, err
}
