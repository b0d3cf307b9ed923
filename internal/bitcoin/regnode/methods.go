package regnode

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/database"
	"github.com/btcsuite/btcd/mempool"
	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
)

type method struct {
	required, allowed int // number of parameters
	call              func(n *Node, ctx context.Context, p params) (any, error)
}

var methods = map[string]method{
	"getbestblockhash":    {0, 0, (*Node).getBestBlockHash},
	"getblock":            {1, 2, (*Node).getBlock},
	"getblockchaininfo":   {0, 0, (*Node).getBlockchainInfo},
	"getblockcount":       {0, 0, (*Node).getBlockCount},
	"getblockhash":        {1, 1, (*Node).getBlockHash},
	"getblockheader":      {1, 2, (*Node).getBlockHeader},
	"getblocktemplate":    {0, 1, (*Node).getBlockTemplate},
	"getnetworkinfo":      {0, 0, (*Node).getNetworkInfo},
	"getzmqnotifications": {0, 0, (*Node).getZMQNotifications},
	"sendrawtransaction":  {1, 2, (*Node).sendRawTransaction},
	"submitblock":         {1, 2, (*Node).submitBlock},
	"getrawmempool":       {0, 0, (*Node).getRawMempool},
}

func (n *Node) getBestBlockHash(context.Context, params) (any, error) {
	return n.tip().String(), nil
}

func (n *Node) getBlockCount(context.Context, params) (any, error) {
	return n.Height(), nil
}

func (n *Node) getBlockHash(_ context.Context, p params) (any, error) {
	var height int32
	if err := p.decode(0, &height); err != nil {
		return nil, err
	}
	hash, err := n.chain.BlockHashByHeight(height)
	if err != nil {
		return nil, refuse(codeBadParameter, "Block height out of range")
	}
	return hash.String(), nil
}

func (n *Node) getBlockchainInfo(context.Context, params) (any, error) {
	best := n.chain.BestSnapshot()
	return struct {
		Chain                string   `json:"chain"`
		Blocks               int32    `json:"blocks"`
		Headers              int32    `json:"headers"`
		BestBlockHash        string   `json:"bestblockhash"`
		Bits                 string   `json:"bits"`
		Difficulty           float64  `json:"difficulty"`
		MedianTime           int64    `json:"mediantime"`
		VerificationProgress float64  `json:"verificationprogress"`
		InitialBlockDownload bool     `json:"initialblockdownload"` // true while the tip is old
		Pruned               bool     `json:"pruned"`
		Warnings             []string `json:"warnings"`
	}{
		Chain:                "regtest",
		Blocks:               best.Height,
		Headers:              best.Height,
		BestBlockHash:        best.Hash.String(),
		Bits:                 fmt.Sprintf("%08x", best.Bits),
		Difficulty:           difficulty(best.Bits),
		MedianTime:           best.MedianTime.Unix(),
		VerificationProgress: 1,
		InitialBlockDownload: !n.chain.IsCurrent(),
		Warnings:             []string{},
	}, nil
}

func (n *Node) getNetworkInfo(context.Context, params) (any, error) {
	return struct {
		Version         int      `json:"version"`
		SubVersion      string   `json:"subversion"`
		ProtocolVersion uint32   `json:"protocolversion"`
		NetworkActive   bool     `json:"networkactive"`
		Connections     int      `json:"connections"`
		Warnings        []string `json:"warnings"`
	}{250000, "/regnode:1/", wire.ProtocolVersion, false, 0, []string{}}, nil
}

func (n *Node) getZMQNotifications(context.Context, params) (any, error) {
	type notification struct {
		Type    string `json:"type"`
		Address string `json:"address"`
		HWM     int    `json:"hwm"`
	}
	return []notification{
		{"pubhashblock", n.ZMQAddr(), publishQueue},
		{"pubrawblock", n.ZMQAddr(), publishQueue},
	}, nil
}

func (n *Node) getRawMempool(context.Context, params) (any, error) {
	txids := []string{}
	for _, hash := range n.pool.TxHashes() {
		txids = append(txids, hash.String())
	}
	return txids, nil
}

func (n *Node) getBlockTemplate(ctx context.Context, p params) (any, error) {
	var request struct {
		Mode       string   `json:"mode"`
		Rules      []string `json:"rules"`
		LongPollID string   `json:"longpollid"`
	}
	if err := p.decode(0, &request); err != nil {
		return nil, err
	}
	if request.Mode != "" && request.Mode != "template" {
		return nil, refuse(codeBadParameter, "Invalid mode")
	}
	if !slices.Contains(request.Rules, "segwit") {
		return nil, refuse(codeBadParameter, `getblocktemplate must be called with the segwit rule set (call with {"rules": ["segwit"]})`)
	}
	if request.LongPollID != "" {
		if err := n.waitForNews(ctx, request.LongPollID); err != nil {
			return nil, refuse(codeShuttingDown, "Shutting down")
		}
	}
	return n.currentTemplate()
}

func (n *Node) submitBlock(_ context.Context, p params) (any, error) {
	var block wire.MsgBlock
	if err := p.deserialize(0, "Block", block.Deserialize); err != nil {
		return nil, err
	}
	reason, err := n.submit(&block)
	if err != nil || reason == "" {
		return nil, err
	}
	return reason, nil
}

func (n *Node) sendRawTransaction(_ context.Context, p params) (any, error) {
	var msg wire.MsgTx
	if err := p.deserialize(0, "TX", msg.Deserialize); err != nil {
		return nil, err
	}
	tx := btcutil.NewTx(&msg)

	n.mu.Lock()
	defer n.mu.Unlock()
	missing, _, err := n.pool.MaybeAcceptTransaction(tx, true, false)
	switch violation := (mempool.RuleError{}); {
	case errors.As(err, &violation):
		return nil, refuse(codeRejected, "%s", violation.Error())
	case err != nil:
		return nil, err
	case len(missing) > 0:
		return nil, refuse(codeMissingInputs, "bad-txns-inputs-missingorspent")
	}
	n.txSeq++
	n.wake()
	return tx.Hash().String(), nil
}

// blockHeader is the answer to getblockheader and the start of getblock's.
type blockHeader struct {
	Hash              string  `json:"hash"`
	Confirmations     int64   `json:"confirmations"` // -1: not on the active chain
	Height            int32   `json:"height"`
	Version           int32   `json:"version"`
	VersionHex        string  `json:"versionHex"`
	MerkleRoot        string  `json:"merkleroot"`
	Time              int64   `json:"time"`
	Nonce             uint32  `json:"nonce"`
	Bits              string  `json:"bits"`
	Difficulty        float64 `json:"difficulty"`
	PreviousBlockHash string  `json:"previousblockhash,omitempty"`
	NextBlockHash     string  `json:"nextblockhash,omitempty"`
}

func (n *Node) getBlockHeader(_ context.Context, p params) (any, error) {
	hash, err := p.hash(0)
	if err != nil {
		return nil, err
	}
	verbose := true
	if err := p.decode(1, &verbose); err != nil {
		return nil, err
	}
	header, err := n.chain.HeaderByHash(hash)
	if err != nil {
		return nil, refuse(codeNotFound, "Block not found")
	}
	if !verbose {
		var raw bytes.Buffer
		err := header.Serialize(&raw)
		return hex.EncodeToString(raw.Bytes()), err
	}
	return n.describe(hash, &header)
}

func (n *Node) getBlock(_ context.Context, p params) (any, error) {
	hash, err := p.hash(0)
	if err != nil {
		return nil, err
	}
	verbosity := 1
	if err := p.decode(1, &verbosity); err != nil {
		return nil, err
	}
	if verbosity < 0 || verbosity > 1 {
		return nil, refuse(codeBadParameter, "verbosity %d is not supported", verbosity)
	}
	// The database has the blocks of side chains too.
	var raw []byte
	err = n.db.View(func(tx database.Tx) error {
		stored, err := tx.FetchBlock(hash)
		raw = bytes.Clone(stored)
		return err
	})
	if err != nil {
		return nil, refuse(codeNotFound, "Block not found")
	}
	if verbosity == 0 {
		return hex.EncodeToString(raw), nil
	}
	block, err := btcutil.NewBlockFromBytes(raw)
	if err != nil {
		return nil, err
	}
	header, err := n.describe(hash, &block.MsgBlock().Header)
	if err != nil {
		return nil, err
	}
	txids := []string{}
	for _, tx := range block.Transactions() {
		txids = append(txids, tx.Hash().String())
	}
	return struct {
		blockHeader
		NTx          int      `json:"nTx"`
		StrippedSize int      `json:"strippedsize"`
		Size         int      `json:"size"`
		Weight       int64    `json:"weight"`
		Tx           []string `json:"tx"`
	}{header, len(txids), block.MsgBlock().SerializeSizeStripped(), len(raw), blockchain.GetBlockWeight(block), txids}, nil
}

// describe says where in the tree of blocks a header is.
func (n *Node) describe(hash *chainhash.Hash, header *wire.BlockHeader) (blockHeader, error) {
	out := blockHeader{
		Hash:          hash.String(),
		Confirmations: -1,
		Version:       header.Version,
		VersionHex:    fmt.Sprintf("%08x", uint32(header.Version)),
		MerkleRoot:    header.MerkleRoot.String(),
		Time:          header.Timestamp.Unix(),
		Nonce:         header.Nonce,
		Bits:          fmt.Sprintf("%08x", header.Bits),
		Difficulty:    difficulty(header.Bits),
	}
	height, above, err := n.height(hash)
	if err != nil {
		return blockHeader{}, err
	}
	out.Height = height
	if above == 0 {
		out.Confirmations = int64(max(n.Height()-height, 0)) + 1
		if next, err := n.chain.BlockHashByHeight(height + 1); err == nil {
			out.NextBlockHash = next.String()
		}
	}
	if height > 0 {
		out.PreviousBlockHash = header.PrevBlock.String()
	}
	return out, nil
}

// height returns the height of a known block and how many blocks it is above the active chain.
func (n *Node) height(hash *chainhash.Hash) (height, above int32, err error) {
	for at := *hash; ; above++ {
		if height, err := n.chain.BlockHeightByHash(&at); err == nil {
			return height + above, above, nil
		}
		header, err := n.chain.HeaderByHash(&at)
		if err != nil {
			return 0, 0, refuse(codeNotFound, "Block not found")
		}
		at = header.PrevBlock
	}
}

// hash reads parameter i, a hash in display order.
func (p params) hash(i int) (*chainhash.Hash, error) {
	var text string
	if err := p.decode(i, &text); err != nil {
		return nil, err
	}
	if len(text) != chainhash.MaxHashStringSize {
		return nil, refuse(codeBadParameter, "blockhash must be of length %d (not %d)", chainhash.MaxHashStringSize, len(text))
	}
	hash, err := chainhash.NewHashFromStr(text)
	if err != nil {
		return nil, refuse(codeBadParameter, "blockhash must be hexadecimal string")
	}
	return hash, nil
}

// deserialize gives the bytes of parameter i, in hex, to read, which must take all.
func (p params) deserialize(i int, what string, read func(io.Reader) error) error {
	var text string
	if err := p.decode(i, &text); err != nil {
		return err
	}
	raw, err := hex.DecodeString(text)
	r := bytes.NewReader(raw)
	if err != nil || read(r) != nil || r.Len() != 0 {
		return refuse(codeUndecodable, "%s decode failed", what)
	}
	return nil
}

// difficulty returns how much harder bits are than those of the first block of Bitcoin.
func difficulty(bits uint32) float64 {
	target, err := bitcoin.TargetFromBits(bits)
	if err != nil {
		return 0
	}
	return target.Difficulty()
}
