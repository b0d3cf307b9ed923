package regnode

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/mining"
)

// template is the answer to getblocktemplate, in Bitcoin Core's order.
type template struct {
	Capabilities             []string          `json:"capabilities"`
	Version                  int32             `json:"version"`
	Rules                    []string          `json:"rules"`
	VBAvailable              struct{}          `json:"vbavailable"`
	VBRequired               int               `json:"vbrequired"`
	PreviousBlockHash        string            `json:"previousblockhash"`
	Transactions             []templateTx      `json:"transactions"`
	CoinbaseAux              map[string]string `json:"coinbaseaux"`
	CoinbaseValue            int64             `json:"coinbasevalue"`
	LongPollID               string            `json:"longpollid"`
	Target                   string            `json:"target"`
	MinTime                  int64             `json:"mintime"`
	Mutable                  []string          `json:"mutable"`
	NonceRange               string            `json:"noncerange"`
	SigOpLimit               int               `json:"sigoplimit"`
	SizeLimit                int               `json:"sizelimit"`
	WeightLimit              int               `json:"weightlimit"`
	CurTime                  int64             `json:"curtime"`
	Bits                     string            `json:"bits"`
	Height                   int32             `json:"height"`
	DefaultWitnessCommitment string            `json:"default_witness_commitment"`
}

type templateTx struct {
	Data    string `json:"data"`
	TxID    string `json:"txid"`
	Hash    string `json:"hash"` // of the transaction with its witness
	Depends []int  `json:"depends"`
	Fee     int64  `json:"fee"`
	SigOps  int64  `json:"sigops"`
	Weight  int64  `json:"weight"`
}

// currentTemplate returns a template for the block after the tip. Only its time changes as long as tip and memory pool
// stay as they are.
func (n *Node) currentTemplate() (template, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	best := n.chain.BestSnapshot()
	id := longPollID(best.Hash, n.txSeq)
	if n.template == nil || n.template.LongPollID != id {
		t, err := n.builder.NewBlockTemplate(nil)
		if err != nil {
			return template{}, err
		}
		built, err := newTemplate(t)
		if err != nil {
			return template{}, err
		}
		built.LongPollID = id
		built.MinTime = mining.MinimumMedianTime(best).Unix()
		n.template = &built
	}
	t := *n.template
	t.CurTime = max(time.Now().Unix(), t.MinTime)
	return t, nil
}

func newTemplate(t *mining.BlockTemplate) (template, error) {
	header := &t.Block.Header
	out := template{
		Capabilities:      []string{},
		Version:           header.Version,
		Rules:             []string{"csv", "!segwit", "taproot"},
		PreviousBlockHash: header.PrevBlock.String(),
		Transactions:      []templateTx{},
		CoinbaseAux:       map[string]string{},
		CoinbaseValue:     t.Block.Transactions[0].TxOut[0].Value,
		Target:            fmt.Sprintf("%064x", blockchain.CompactToBig(header.Bits)),
		Mutable:           []string{"time", "transactions", "prevblock"},
		NonceRange:        "00000000ffffffff",
		SigOpLimit:        blockchain.MaxBlockSigOpsCost,
		SizeLimit:         blockchain.MaxBlockWeight,
		WeightLimit:       blockchain.MaxBlockWeight,
		Bits:              fmt.Sprintf("%08x", header.Bits),
		Height:            t.Height,
	}
	index := make(map[chainhash.Hash]int) // where a transaction is in the list, from 1
	all := make([]*btcutil.Tx, len(t.Block.Transactions))
	for i, msg := range t.Block.Transactions {
		tx := btcutil.NewTx(msg)
		all[i] = tx
		if i == 0 {
			continue // the coinbase is the miner's own
		}
		var data bytes.Buffer
		if err := msg.Serialize(&data); err != nil {
			return template{}, err
		}
		depends := []int{}
		for _, in := range msg.TxIn {
			if at, ok := index[in.PreviousOutPoint.Hash]; ok {
				depends = append(depends, at)
			}
		}
		index[*tx.Hash()] = i
		out.Transactions = append(out.Transactions, templateTx{
			Data:    hex.EncodeToString(data.Bytes()),
			TxID:    tx.Hash().String(),
			Hash:    tx.WitnessHash().String(),
			Depends: depends,
			Fee:     t.Fees[i],
			SigOps:  t.SigOpCosts[i],
			Weight:  blockchain.GetTransactionWeight(tx),
		})
	}
	// The builder commits only when there is a witness; Bitcoin Core always.
	root := blockchain.CalcMerkleRoot(all, true)
	commitment := chainhash.DoubleHashB(append(root[:], make([]byte, blockchain.CoinbaseWitnessDataLen)...))
	out.DefaultWitnessCommitment = hex.EncodeToString(blockchain.WitnessMagicBytes) + hex.EncodeToString(commitment)
	return out, nil
}

// longPollID names a state of tip and memory pool as Bitcoin Core does.
func longPollID(tip chainhash.Hash, txSeq uint64) string {
	return tip.String() + strconv.FormatUint(txSeq, 10)
}

// waitForNews returns when the tip is not that of id, or the memory pool is not and some time has passed, or ctx ends.
func (n *Node) waitForNews(ctx context.Context, id string) error {
	late := time.NewTimer(n.txWait)
	defer late.Stop()
	for enough := false; ; {
		n.mu.Lock()
		tip, txSeq, changed := n.tip(), n.txSeq, n.changed
		n.mu.Unlock()
		if !strings.HasPrefix(id, tip.String()) || enough && id != longPollID(tip, txSeq) {
			return nil
		}
		select {
		case <-changed:
		case <-late.C:
			enough = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
