package regnode

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/wire/v2"
)

// journal keeps the newest blocks on disk until the chain's database has them
// there too. The database holds what it is given in memory and writes it down
// with the first block that comes 5 minutes after the last time; killed before
// that, it falls back to its last state.
//
// The journal is two files of records: length and CRC-32, both little-endian,
// and a block. Every journalPeriod the newer becomes the older, and the older
// is gone.
type journal struct {
	newer, older string // paths
	file         *os.File
	since        time.Time // the newer one was begun
}

// journalPeriod is longer than twice the database's: when a block is stored
// after that time, what was stored before it is on disk.
const journalPeriod = 15 * time.Minute

var journalTable = crc32.MakeTable(crc32.Castagnoli)

// openJournal gives the chain back what its database has lost, and returns how
// many blocks those are.
func (n *Node) openJournal(dir string) (recovered int, err error) {
	j := &journal{newer: filepath.Join(dir, "journal"), older: filepath.Join(dir, "journal.old"), since: time.Now()}
	for _, path := range []string{j.older, j.newer} {
		lost, err := n.replay(path)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		recovered += lost
	}
	// After a torn record nothing can be appended: what replay did not read
	// was never acknowledged.
	if j.file, err = os.OpenFile(j.newer, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return 0, err
	}
	n.journal = j
	_, end, err := readJournal(j.file)
	if err != nil {
		return 0, err
	}
	if err := j.file.Truncate(end); err != nil {
		return 0, err
	}
	_, err = j.file.Seek(end, io.SeekStart)
	return recovered, err
}

// replay gives the blocks of one journal file to the chain.
func (n *Node) replay(path string) (recovered int, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	blocks, _, err := readJournal(file)
	if err != nil {
		return 0, err
	}
	for _, raw := range blocks {
		block, err := btcutil.NewBlockFromBytes(raw)
		if err != nil {
			return recovered, err
		}
		_, _, err = n.chain.ProcessBlock(block, blockchain.BFNone)
		switch violation := (blockchain.RuleError{}); {
		case err == nil:
			recovered++
		case !errors.As(err, &violation):
			return recovered, err
		case violation.ErrorCode != blockchain.ErrDuplicateBlock:
			n.log.Warn().Stringer("hash", block.Hash()).Str("rule", violation.Description).Msg("block of the journal refused")
		}
	}
	return recovered, nil
}

// readJournal returns the blocks of a journal file and where the last of them
// ends; a torn record ends the file.
func readJournal(r io.Reader) (blocks [][]byte, end int64, err error) {
	in := bufio.NewReader(r)
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return blocks, end, ignoreEOF(err)
		}
		size := binary.LittleEndian.Uint32(head[:])
		if size == 0 || size > wire.MaxBlockPayload {
			return blocks, end, nil
		}
		raw := make([]byte, size)
		if _, err := io.ReadFull(in, raw); err != nil {
			return blocks, end, ignoreEOF(err)
		}
		if crc32.Checksum(raw, journalTable) != binary.LittleEndian.Uint32(head[4:]) {
			return blocks, end, nil
		}
		blocks = append(blocks, raw)
		end += int64(len(head)) + int64(size)
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// append puts a block that the chain has just stored on disk.
func (j *journal) append(raw []byte) error {
	if time.Since(j.since) > journalPeriod {
		if err := j.rotate(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	record := make([]byte, 0, 8+len(raw))
	record = binary.LittleEndian.AppendUint32(record, uint32(len(raw)))
	record = binary.LittleEndian.AppendUint32(record, crc32.Checksum(raw, journalTable))
	record = append(record, raw...)
	if _, err := j.file.Write(record); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
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

func (j *journal) close() error { return j.file.Close() }
