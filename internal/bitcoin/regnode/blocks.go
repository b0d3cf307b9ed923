package regnode

import (
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

// submit adds block to the chain and returns Bitcoin Core's word for what
// became of it: "" when it is the new tip.
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
		reason := rejectReason(violation.ErrorCode)
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
		return "", err
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

// isInvalid reports whether the chain keeps block as one that broke a rule when
// it was to be connected.
func (n *Node) isInvalid(block *btcutil.Block) bool {
	return slices.ContainsFunc(n.chain.ChainTips(), func(tip blockchain.ChainTip) bool {
		return tip.BlockHash == *block.Hash() && tip.Status == blockchain.StatusInvalid
	})
}

// addCoinbaseWitness adds the witness reserved value that a block with a
// commitment needs (BIP 141) when it was left out, as Bitcoin Core's
// submitblock does.
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

// followChain keeps the memory pool in step with the chain. It runs inside
// ProcessBlock, so mu is held.
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

// Generate mines count blocks at once and returns their hashes. Anyone can
// spend their coinbases. It is for tests with easy Bits.
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

// rejectReason returns Bitcoin Core's word for a broken rule
// (src/validation.cpp, src/consensus).
func rejectReason(code blockchain.ErrorCode) string {
	switch code {
	case blockchain.ErrDuplicateBlock:
		return "duplicate"
	case blockchain.ErrKnownInvalidBlock:
		return "duplicate-invalid"
	case blockchain.ErrHighHash:
		return "high-hash"
	case blockchain.ErrUnexpectedDifficulty, blockchain.ErrDifficultyTooLow:
		return "bad-diffbits"
	case blockchain.ErrBlockVersionTooOld:
		return "bad-version"
	case blockchain.ErrTimeTooOld:
		return "time-too-old"
	case blockchain.ErrTimeTooNew:
		return "time-too-new"
	case blockchain.ErrPreviousBlockUnknown:
		return "prev-blk-not-found"
	case blockchain.ErrInvalidAncestorBlock:
		return "bad-prevblk"
	case blockchain.ErrBadMerkleRoot:
		return "bad-txnmrklroot"
	case blockchain.ErrBlockTooBig, blockchain.ErrNoTransactions:
		return "bad-blk-length"
	case blockchain.ErrBlockWeightTooHigh:
		return "bad-blk-weight"
	case blockchain.ErrTooManySigOps:
		return "bad-blk-sigops"
	case blockchain.ErrFirstTxNotCoinbase:
		return "bad-cb-missing"
	case blockchain.ErrMultipleCoinbases:
		return "bad-cb-multiple"
	case blockchain.ErrBadCoinbaseScriptLen:
		return "bad-cb-length"
	case blockchain.ErrBadCoinbaseValue:
		return "bad-cb-amount"
	case blockchain.ErrMissingCoinbaseHeight, blockchain.ErrBadCoinbaseHeight:
		return "bad-cb-height"
	case blockchain.ErrUnexpectedWitness:
		return "unexpected-witness"
	case blockchain.ErrInvalidWitnessCommitment:
		return "bad-witness-nonce-size"
	case blockchain.ErrWitnessCommitmentMismatch:
		return "bad-witness-merkle-match"
	case blockchain.ErrMissingTxOut:
		return "bad-txns-inputs-missingorspent"
	case blockchain.ErrImmatureSpend:
		return "bad-txns-premature-spend-of-coinbase"
	case blockchain.ErrSpendTooHigh:
		return "bad-txns-in-belowout"
	case blockchain.ErrUnfinalizedTx:
		return "bad-txns-nonfinal"
	case blockchain.ErrDuplicateTx, blockchain.ErrOverwriteTx:
		return "bad-txns-BIP30"
	case blockchain.ErrScriptValidation:
		return "mandatory-script-verify-flag-failed"
	}
	return "rejected"
}
