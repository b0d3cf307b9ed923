package blkmaker

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/btcsuite/btcd/wire/v2"

	"btcpool/internal/bitcoin"
	"btcpool/internal/durable"
)

// archiveFor is how long the file of a block is kept.
const archiveFor = 7 * 24 * time.Hour

// archive is a folder of blocks in hex, ready for
//
//	bitcoin-cli -stdin submitblock < 840000-<hash>.hex
//
// should everything else have been in vain.
type archive string

func openArchive(dir string) (archive, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return archive(dir), nil
}

// write keeps a block; the file appears whole or not at all.
func (a archive) write(b *block, blockHex string) error {
	return durable.Replace(a.path(b.height, b.hash.String()), []byte(blockHex), 0o644)
}

// restore gives b the raw block that was kept of it, and reports whether there is one.
func (a archive) restore(b *block) bool {
	blockHex, err := a.read(b.height, b.hash.String())
	if err != nil {
		return false
	}
	raw, err := hex.DecodeString(blockHex)
	if err != nil || len(raw) < wire.MaxBlockHeaderPayload || bitcoin.DoubleSHA256(raw[:wire.MaxBlockHeaderPayload]) != b.hash {
		return false
	}
	b.raw, b.size = raw, len(raw)
	return true
}

// read returns a block that was kept.
func (a archive) read(height int32, hash string) (blockHex string, err error) {
	content, err := os.ReadFile(a.path(height, hash))
	return string(content), err
}

func (a archive) path(height int32, hash string) string {
	return filepath.Join(string(a), fmt.Sprintf("%d-%s.hex", height, hash))
}

// prune removes the files of blocks that nobody will submit any more.
func (a archive) prune(now time.Time) error {
	entries, err := os.ReadDir(string(a))
	for _, e := range entries {
		info, infoErr := e.Info()
		if infoErr == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > archiveFor {
			infoErr = os.Remove(filepath.Join(string(a), e.Name()))
		}
		if !errors.Is(infoErr, fs.ErrNotExist) {
			err = errors.Join(err, infoErr)
		}
	}
	return err
}
