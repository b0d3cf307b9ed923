// Package durable is what spools, journals, caches and snapshots have in common: replacing a file whole, making the
// names in a folder durable, keeping a folder to one process, and records whose damage shows.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Replace makes content that of the file at path, which gets mode when it is new. After a crash or a loss of power at
// any moment the file has either the old content or the new.
func Replace(path string, content []byte, mode os.FileMode) error {
	if err := replace(path, content, mode); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir puts the names of new, renamed and removed files on disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(d), d.Close())
}

// ErrLocked means that another process, or another part of this one, has the folder.
var ErrLocked = errors.New("in use by another process")

// Lock makes dir, if it is missing, and keeps other processes out of it until the returned file is closed, which the
// end of the process does too. It wraps ErrLocked when there is one already.
func Lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
