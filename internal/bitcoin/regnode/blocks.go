package regnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// submit adds block to the chain and returns Bitcoin Core's word for what became of it: "" when it is the new tip.
func (n *Node) submit(msg *wire.MsgBlock) (reason string, err error) {
	addCoinbaseWitness(msg)
	block := btcutil.NewBlock(msg)
	raw, err := block.Bytes()
	if err != nil {
		return "", err
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	if known, err := n.chain.HaveBlock(&msg.Header.PrevBlock); err != nil || !known {
		return "prev-blk-not-found", err
	}
	before := n.tip()
	onMainChain, _, err := n.chain.ProcessBlock(block, blockchain.BFNone)
	if violation := (blockchain.RuleError{}); errors.As(err, &violation) {
		reason := cmp.Or(rejectReasons[violation.ErrorCode], "rejected")
		if violation.ErrorCode == blockchain.ErrDuplicateBlock && n.isInvalid(block) {
			reason = "duplicate-invalid"
		}
		n.log.Warn().Stringer("hash", block.Hash()).Str("reason", reason).Str("rule", violation.Description).Msg("block refused")
		return reason, nil
	}
	if err != nil {
		return "", err
	}
	if err := n.journal.append(raw); err != nil {
		return "", fmt.Errorf("journal: %w", err)
	}
	if n.tip() != before {
		n.pub.publish(block.Hash(), raw)
		n.wake()
	}
	n.log.Info().Int32("height", block.Height()).Stringer("hash", block.Hash()).Int("transactions", len(msg.Transactions)).Bool("main_chain", onMainChain).Msg("block accepted")
	if !onMainChain {
		return "inconclusive", nil
	}
	return "", nil
}

// isInvalid reports whether the chain keeps block as one that broke a rule when it was to be connected.
func (n *Node) isInvalid(block *btcutil.Block) bool {
	return slices.ContainsFunc(n.chain.ChainTips(), func(tip blockchain.ChainTip) bool {
		return tip.BlockHash == *block.Hash() && tip.Status == blockchain.StatusInvalid
	})
}

// addCoinbaseWitness adds the witness reserved value that a block with a commitment needs (BIP 141) when it was left
// out, as Bitcoin Core's submitblock does.
func addCoinbaseWitness(msg *wire.MsgBlock) {
	if len(msg.Transactions) == 0 {
		return
	}
	coinbase := msg.Transactions[0]
	if len(coinbase.TxIn) != 1 || len(coinbase.TxIn[0].Witness) != 0 {
		return
	}
	if _, committed := blockchain.ExtractWitnessCommitment(btcutil.NewTx(coinbase)); committed {
		coinbase.TxIn[0].Witness = wire.TxWitness{make([]byte, blockchain.CoinbaseWitnessDataLen)}
	}
}

// followChain keeps the memory pool in step with the chain. It runs inside ProcessBlock, so mu is held.
func (n *Node) followChain(event *blockchain.Notification) {
	block, ok := event.Data.(*btcutil.Block)
	if !ok {
		return
	}
	switch event.Type {
	case blockchain.NTBlockConnected:
		for _, tx := range block.Transactions()[1:] {
			n.pool.RemoveTransaction(tx, false)
			n.pool.RemoveDoubleSpends(tx)
		}
	case blockchain.NTBlockDisconnected:
		for _, tx := range block.Transactions()[1:] {
			if _, _, err := n.pool.MaybeAcceptTransaction(tx, false, false); err != nil {
				n.pool.RemoveTransaction(tx, true)
			}
		}
	}
	n.txSeq++
}

// wake tells the long polls that chain or pool changed; mu is held.
func (n *Node) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Generate mines count blocks at once and returns their hashes. Anyone can spend their coinbases. It is for tests with
// easy Bits.
func (n *Node) Generate(ctx context.Context, count int) ([]chainhash.Hash, error) {
	hashes := make([]chainhash.Hash, 0, count)
	for range count {
		n.mu.Lock()
		t, err := n.builder.NewBlockTemplate(nil)
		n.mu.Unlock()
		if err != nil {
			return hashes, err
		}
		if err := solve(ctx, &t.Block.Header); err != nil {
			return hashes, err
		}
		reason, err := n.submit(t.Block)
		if err != nil {
			return hashes, err
		}
		if reason != "" {
			return hashes, fmt.Errorf("generated block refused: %s", reason)
		}
		hashes = append(hashes, t.Block.BlockHash())
	}
	return hashes, nil
}

// solve looks for a nonce that gives header its proof of work.
func solve(ctx context.Context, header *wire.BlockHeader) error {
	target := blockchain.CompactToBig(header.Bits)
	for ctx.Err() == nil {
		hash := header.BlockHash()
		if blockchain.HashToBig(&hash).Cmp(target) <= 0 {
			return nil
		}
		if header.Nonce == math.MaxUint32 {
			return errors.New("no nonce solves the block")
		}
		header.Nonce++
	}
	return ctx.Err()
}

// rejectReasons are Bitcoin Core's words for broken rules (src/validation.cpp, src/consensus); any other is "rejected".
var rejectReasons = map[blockchain.ErrorCode]string{
	blockchain.ErrDuplicateBlock:            "duplicate",
	blockchain.ErrKnownInvalidBlock:         "duplicate-invalid",
	blockchain.ErrHighHash:                  "high-hash",
	blockchain.ErrUnexpectedDifficulty:      "bad-diffbits",
	blockchain.ErrDifficultyTooLow:          "bad-diffbits",
	blockchain.ErrBlockVersionTooOld:        "bad-version",
	blockchain.ErrTimeTooOld:                "time-too-old",
	blockchain.ErrTimeTooNew:                "time-too-new",
	blockchain.ErrPreviousBlockUnknown:      "prev-blk-not-found",
	blockchain.ErrInvalidAncestorBlock:      "bad-prevblk",
	blockchain.ErrBadMerkleRoot:             "bad-txnmrklroot",
	blockchain.ErrBlockTooBig:               "bad-blk-length",
	blockchain.ErrNoTransactions:            "bad-blk-length",
	blockchain.ErrBlockWeightTooHigh:        "bad-blk-weight",
	blockchain.ErrTooManySigOps:             "bad-blk-sigops",
	blockchain.ErrFirstTxNotCoinbase:        "bad-cb-missing",
	blockchain.ErrMultipleCoinbases:         "bad-cb-multiple",
	blockchain.ErrBadCoinbaseScriptLen:      "bad-cb-length",
	blockchain.ErrBadCoinbaseValue:          "bad-cb-amount",
	blockchain.ErrMissingCoinbaseHeight:     "bad-cb-height",
	blockchain.ErrBadCoinbaseHeight:         "bad-cb-height",
	blockchain.ErrUnexpectedWitness:         "unexpected-witness",
	blockchain.ErrInvalidWitnessCommitment:  "bad-witness-nonce-size",
	blockchain.ErrWitnessCommitmentMismatch: "bad-witness-merkle-match",
	blockchain.ErrMissingTxOut:              "bad-txns-inputs-missingorspent",
	blockchain.ErrImmatureSpend:             "bad-txns-premature-spend-of-coinbase",
	blockchain.ErrSpendTooHigh:              "bad-txns-in-belowout",
	blockchain.ErrUnfinalizedTx:             "bad-txns-nonfinal",
	blockchain.ErrDuplicateTx:               "bad-txns-BIP30",
	blockchain.ErrOverwriteTx:               "bad-txns-BIP30",
	blockchain.ErrScriptValidation:          "mandatory-script-verify-flag-failed",
}
