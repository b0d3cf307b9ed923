package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"
)

// BlockState says how far a found block has come.
type BlockState string

// The states. A block begins as submitted; rejected is the end, all others may change while the chain reorganises.
const (
	Submitted BlockState = "submitted" // on its way: no node has answered
	Accepted  BlockState = "accepted"  // a node has it
	Confirmed BlockState = "confirmed" // buried in the active chain
	Orphaned  BlockState = "orphaned"  // left the active chain
	Rejected  BlockState = "rejected"  // no node took it
)

// Block is a row of found_blocks. Hashes are in display order.
type Block struct {
	UserID        int32
	WorkerID      int64
	WorkerName    string // full name, user.worker; kept to 255 characters
	JobID         uint64
	Height        int32
	Hash          string // unique
	RewardSat     int64  // sum of the coinbase's outputs
	Size          int    // bytes as submitted
	PrevHash      string
	Bits          uint32
	Version       int32
	CreatedAt     time.Time // kept in whole seconds
	State         BlockState
	Confirmations int64  // blocks from this one to the tip, both counted; 0 unless on the active chain
	SubPool       string // whose coinbase it has, at most 64 bytes; "": the pool's own
}

const blockColumns = `puid, worker_id, worker_full_name, job_id, height, hash, rewards, size, prev_hash, bits, version, created_at, state, confirmations, sub_pool`

const insertBlock = `INSERT INTO found_blocks (is_orphaned, ` + blockColumns + `) VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// AddBlock keeps a found block; an empty State means Submitted. A block whose hash is there already changes nothing.
func (s *Store) AddBlock(ctx context.Context, b Block) error {
	b.State = cmp.Or(b.State, Submitted)
	_, err := s.db.ExecContext(ctx, insertBlock+s.onConflict([]string{"hash"}),
		b.UserID, b.WorkerID, truncate(b.WorkerName, 255), s.unsigned(b.JobID), b.Height, b.Hash, b.RewardSat, b.Size,
		b.PrevHash, b.Bits, b.Version, timestamp(b.CreatedAt), string(b.State), b.Confirmations, b.SubPool)
	if err != nil {
		return fmt.Errorf("add block %s: %w", b.Hash, err)
	}
	return nil
}

const updateBlockState = `UPDATE found_blocks SET state = ?, confirmations = ?, is_orphaned = ? WHERE hash = ?`

// SetBlockState moves a block on; is_orphaned, which old readers know, goes with it. It returns ErrNotFound for a hash
// that was never added.
func (s *Store) SetBlockState(ctx context.Context, hash string, state BlockState, confirmations int64) error {
	return s.setState(ctx, updateBlockState, hash, state, confirmations)
}

func (s *Store) setState(ctx context.Context, update, hash string, state BlockState, confirmations int64) error {
	orphaned := 0
	if state == Orphaned {
		orphaned = 1
	}
	res, err := s.db.ExecContext(ctx, update, string(state), confirmations, orphaned, hash)
	if err != nil {
		return fmt.Errorf("set state of block %s: %w", hash, err)
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return fmt.Errorf("set state of block %s: %w", hash, ErrNotFound)
	}
	return nil
}

const settleBlock = `UPDATE found_blocks SET state = ? WHERE hash = ? AND state = 'submitted'`

// SettleBlock writes down what the nodes answered. A block whose state is not Submitted any more stays as it is: it was
// settled before, and followed since.
func (s *Store) SettleBlock(ctx context.Context, hash string, state BlockState) error {
	if _, err := s.db.ExecContext(ctx, settleBlock, string(state), hash); err != nil {
		return fmt.Errorf("settle block %s: %w", hash, err)
	}
	return nil
}

const selectOpenBlocks = `SELECT ` + blockColumns + ` FROM found_blocks WHERE state IN ('submitted', 'accepted') ORDER BY id LIMIT ?`

// OpenBlocks returns up to limit blocks that are submitted or accepted, the oldest first.
func (s *Store) OpenBlocks(ctx context.Context, limit int) ([]Block, error) {
	return s.blocks(ctx, selectOpenBlocks, limit)
}

const selectBlocks = `SELECT ` + blockColumns + ` FROM found_blocks ORDER BY id DESC LIMIT ? OFFSET ?`

// Blocks returns up to limit blocks after the first offset ones, the newest first.
func (s *Store) Blocks(ctx context.Context, limit, offset int) ([]Block, error) {
	return s.blocks(ctx, selectBlocks, limit, offset)
}

// Block returns the block with this hash, or ErrNotFound.
func (s *Store) Block(ctx context.Context, hash string) (Block, error) {
	all, err := s.blocks(ctx, `SELECT `+blockColumns+` FROM found_blocks WHERE hash = ? LIMIT ? OFFSET ?`, hash, 1, 0)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Block{}, err
	}
	return all[0], nil
}

const selectRoundBlocks = `SELECT ` + blockColumns + ` FROM found_blocks WHERE state <> 'rejected' ORDER BY id DESC LIMIT ? OFFSET ?`

// RoundBlocks is Blocks without those that no node took: each of them ended a round.
func (s *Store) RoundBlocks(ctx context.Context, limit, offset int) ([]Block, error) {
	return s.blocks(ctx, selectRoundBlocks, limit, offset)
}

// RoundEnds returns the times of all RoundBlocks, the oldest first.
func (s *Store) RoundEnds(ctx context.Context) ([]time.Time, error) {
	const text = `SELECT created_at FROM found_blocks WHERE state <> 'rejected' AND created_at IS NOT NULL ORDER BY created_at`
	return query(ctx, s, "ends of rounds", text, nil, func(rows *sql.Rows) (t time.Time, err error) {
		err = rows.Scan(&t)
		return t.UTC(), err
	})
}

func (s *Store) blocks(ctx context.Context, text string, args ...any) ([]Block, error) {
	return query(ctx, s, "blocks", text, args, func(rows *sql.Rows) (b Block, err error) {
		var created sql.NullTime
		err = rows.Scan(&b.UserID, &b.WorkerID, &b.WorkerName, (*unsigned)(&b.JobID), &b.Height, &b.Hash, &b.RewardSat, &b.Size,
			&b.PrevHash, &b.Bits, &b.Version, &created, &b.State, &b.Confirmations, &b.SubPool)
		b.CreatedAt = created.Time.UTC()
		return b, err
	})
}

const countBlocks = `SELECT state, COUNT(*) FROM found_blocks GROUP BY state`

// BlockCount returns the number of blocks by state; states without any are absent.
func (s *Store) BlockCount(ctx context.Context) (map[BlockState]int64, error) {
	return queryMap[BlockState, int64](ctx, s, "number of blocks", countBlocks)
}

// unsigned reads 64 bits without sign, as dialect.unsigned wrote them.
type unsigned uint64

// Scan implements sql.Scanner.
func (u *unsigned) Scan(v any) error {
	switch v := v.(type) {
	case int64:
		*u = unsigned(v)
	case uint64:
		*u = unsigned(v)
	case []byte:
		n, err := strconv.ParseUint(string(v), 10, 64)
		*u = unsigned(n)
		return err
	default:
		return fmt.Errorf("%T is no unsigned integer", v)
	}
	return nil
}
