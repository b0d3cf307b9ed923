package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"time"
)

// MergedBlock is a row of found_nmc_blocks: a block of another chain that was mined with ours.
type MergedBlock struct {
	ParentHash string // that of the Bitcoin header that proves it, in display order
	Hash       string // 64 hex digits, in display order; unique. RSK's is the one for merged mining
	Chain      string // kept to 20 characters
	// Proof is the AuxPoW in hex, left out when it is longer than the column holds, and empty for RSK, whose node does
	// not take one.
	Proof         string
	Response      string // what the chain's node answered; kept to 255 characters
	CreatedAt     time.Time
	State         BlockState // on its own chain
	Confirmations int64      // counted as in Block
}

// maxProof is what MySQL's text holds.
const maxProof = 1<<16 - 1

const (
	insertMergedBlock = `INSERT INTO found_nmc_blocks (bitcoin_block_hash, aux_block_hash, aux_pow, is_orphaned, chain_name, submit_response, created_at, state) ` +
		`VALUES (?, ?, ?, 0, ?, ?, ?, ?)`
	updateMergedBlock = `UPDATE found_nmc_blocks SET bitcoin_block_hash = ?, aux_pow = ?, submit_response = ?, state = ? ` +
		`WHERE aux_block_hash = ? AND state IN ('submitted', 'rejected')`
)

// AddMergedBlock keeps a block of another chain; an empty State means Submitted. One that is there already gets the new
// proof, answer and state, unless a node had it.
func (s *Store) AddMergedBlock(ctx context.Context, b MergedBlock) error {
	if len(b.Proof) > maxProof {
		b.Proof = ""
	}
	b.State = cmp.Or(b.State, Submitted)
	response := truncate(b.Response, 255)
	_, err := s.db.ExecContext(ctx, insertMergedBlock+s.onConflict([]string{"aux_block_hash"}),
		b.ParentHash, b.Hash, b.Proof, truncate(b.Chain, 20), response, timestamp(b.CreatedAt), string(b.State))
	if err == nil {
		_, err = s.db.ExecContext(ctx, updateMergedBlock, b.ParentHash, b.Proof, response, string(b.State), b.Hash)
	}
	if err != nil {
		return fmt.Errorf("add block %s of %s: %w", b.Hash, b.Chain, err)
	}
	return nil
}

const updateMergedState = `UPDATE found_nmc_blocks SET state = ?, confirmations = ?, is_orphaned = ? WHERE aux_block_hash = ?`

// SetMergedBlockState is SetBlockState for a block of another chain.
func (s *Store) SetMergedBlockState(ctx context.Context, hash string, state BlockState, confirmations int64) error {
	return s.setState(ctx, updateMergedState, hash, state, confirmations)
}

const (
	selectMergedBlock  = `SELECT bitcoin_block_hash, aux_block_hash, chain_name, aux_pow, submit_response, created_at, state, confirmations FROM found_nmc_blocks `
	selectMergedBlocks = selectMergedBlock + `ORDER BY id DESC LIMIT ? OFFSET ?`
	selectOpenMerged   = selectMergedBlock + `WHERE state IN ('submitted', 'accepted') ORDER BY id LIMIT ?`
)

// MergedBlocks returns up to limit blocks of other chains after the first offset ones, the newest first.
func (s *Store) MergedBlocks(ctx context.Context, limit, offset int) ([]MergedBlock, error) {
	return s.mergedBlocks(ctx, selectMergedBlocks, limit, offset)
}

// MergedBlockCount returns how many blocks of other chains there are.
func (s *Store) MergedBlockCount(ctx context.Context) (n int64, err error) {
	if err := s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM found_nmc_blocks").Scan(&n); err != nil {
		return 0, fmt.Errorf("number of merged blocks: %w", err)
	}
	return n, nil
}

// OpenMergedBlocks returns up to limit blocks of other chains that are submitted or accepted, the oldest first.
func (s *Store) OpenMergedBlocks(ctx context.Context, limit int) ([]MergedBlock, error) {
	return s.mergedBlocks(ctx, selectOpenMerged, limit)
}

func (s *Store) mergedBlocks(ctx context.Context, text string, args ...any) ([]MergedBlock, error) {
	return query(ctx, s, "merged blocks", text, args, func(rows *sql.Rows) (b MergedBlock, err error) {
		var created sql.NullTime
		err = rows.Scan(&b.ParentHash, &b.Hash, &b.Chain, &b.Proof, &b.Response, &created, &b.State, &b.Confirmations)
		b.CreatedAt = created.Time.UTC()
		return b, err
	})
}
