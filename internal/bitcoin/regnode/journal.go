package regnode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"btcpool/internal/durable"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// journal keeps the newest blocks on disk until the chain's database has them there too. The database holds what it is
// given in memory and writes it down with the first block that comes 5 minutes after the last time; killed before that,
// it falls back to its last state.
//
// The journal is two files of durable frames, each of which holds a block. Every journalPeriod the newer file becomes
// the older, and the older is gone.
type journal struct {
	newer, older string    // paths
	file         *os.File  // the newer one, open behind its last block
	since        time.Time // when the newer one was begun
}

// journalPeriod is longer than twice the database's: when a block is stored after that time, what was stored before it
// is on disk.
const journalPeriod = 15 * time.Minute

// openJournal gives the chain back what its database has lost, and returns how many blocks those are.
func (n *Node) openJournal(dir string) (recovered int, err error) {
	j := &journal{newer: filepath.Join(dir, "journal"), older: filepath.Join(dir, "journal.old"), since: time.Now()}
	var end int64
	for _, path := range []string{j.older, j.newer} {
		var lost int
		if lost, end, err = n.replay(path); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		recovered += lost
	}
	if j.file, err = os.OpenFile(j.newer, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return 0, err
	}
	n.journal = j
	n.opened = append(n.opened, func() error { return j.file.Close() })
	// After a torn record nothing can be appended: what replay did not read was never acknowledged.
	if err := j.file.Truncate(end); err != nil {
		return 0, err
	}
	_, err = j.file.Seek(end, io.SeekStart)
	return recovered, err
}

// replay gives the blocks of one journal file to the chain. It returns how many the chain did not have, and where the
// last whole one ends.
func (n *Node) replay(path string) (recovered int, end int64, err error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, err
	}
	blocks, end := readJournal(text)
	for _, raw := range blocks {
		block, err := btcutil.NewBlockFromBytes(raw)
		if err != nil {
			return recovered, end, err
		}
		_, _, err = n.chain.ProcessBlock(block, blockchain.BFNone)
		switch violation := (blockchain.RuleError{}); {
		case err == nil:
			recovered++
		case !errors.As(err, &violation):
			return recovered, end, err
		case violation.ErrorCode != blockchain.ErrDuplicateBlock:
			n.log.Warn().Stringer("hash", block.Hash()).Str("rule", violation.Description).Msg("block of the journal refused")
		}
	}
	return recovered, end, nil
}

// readJournal returns the blocks of a journal file and where the last of them ends; a torn record ends the file.
func readJournal(text []byte) (blocks [][]byte, end int64) {
	for {
		raw, size, err := durable.CutFrame(text[end:], 1, wire.MaxBlockPayload)
		if err != nil {
			return blocks, end
		}
		blocks = append(blocks, raw)
		end += int64(size)
	}
}

// append puts a block that the chain has just stored on disk.
func (j *journal) append(raw []byte) error {
	if time.Since(j.since) > journalPeriod {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	record := append(make([]byte, durable.FrameHead, durable.FrameHead+len(raw)), raw...)
	durable.SealFrame(record)
	if _, err := j.file.Write(record); err != nil {
		return err
	}
	return j.file.Sync()
}

func (j *journal) rotate() error {
	if err := j.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(j.newer, j.older); err != nil {
		return err
	}
	file, err := os.OpenFile(j.newer, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	j.file, j.since = file, time.Now()
	return nil
}
