package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// MergedBlock is a row of found_nmc_blocks: a block of another chain that was
// mined with ours.
type MergedBlock struct {
	ParentHash string // of the Bitcoin header that proves it, in display order
	Hash       string // 64 hex digits, in display order; unique
	Chain      string // kept to 20 characters
	Proof      string // AuxPoW in hex; empty for RSK, whose node does not take one. Longer than the column holds, it is left out
	Response   string // what the chain's node answered; kept to 255 characters
	CreatedAt  time.Time
}

// maxProof is what MySQL's text holds.
const maxProof = 1<<16 - 1

const insertMergedBlock = `INSERT INTO found_nmc_blocks (bitcoin_block_hash, aux_block_hash, aux_pow, is_orphaned, chain_name, submit_response, created_at) ` +
	`VALUES (?, ?, ?, 0, ?, ?, ?)`

// AddMergedBlock keeps a block of another chain. One that is there already gets
// the new proof and answer.
func (s *Store) AddMergedBlock(ctx context.Context, b MergedBlock) error {
	if len(b.Proof) > maxProof {
		b.Proof = ""
	}
	tail := s.onConflict([]string{"aux_block_hash"}, s.replace("bitcoin_block_hash", "aux_pow", "submit_response")...)
	_, err := s.db.ExecContext(ctx, insertMergedBlock+tail,
		b.ParentHash, b.Hash, b.Proof, truncate(b.Chain, 20), truncate(b.Response, 255), timestamp(b.CreatedAt))
	if err != nil {
		return fmt.Errorf("add block %s of %s: %w", b.Hash, b.Chain, err)
	}
	return nil
}

const selectMergedBlocks = `SELECT bitcoin_block_hash, aux_block_hash, chain_name, aux_pow, submit_response, created_at ` +
	`FROM found_nmc_blocks ORDER BY id DESC LIMIT ?`

// MergedBlocks returns up to limit blocks of other chains, the newest first.
func (s *Store) MergedBlocks(ctx context.Context, limit int) ([]MergedBlock, error) {
	return query(ctx, s, "merged blocks", selectMergedBlocks, []any{limit}, func(rows *sql.Rows) (b MergedBlock, err error) {
		var created sql.NullTime
		err = rows.Scan(&b.ParentHash, &b.Hash, &b.Chain, &b.Proof, &b.Response, &created)
		b.CreatedAt = created.Time.UTC()
		return b, err
	})
}
