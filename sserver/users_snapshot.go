package sserver

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"time"
)

// snapshotInterval is how often a changed list of users is written.
const snapshotInterval = 5 * time.Second

// readSnapshot takes in what an earlier run knew.
func (u *userList) readSnapshot() error {
	text, err := os.ReadFile(u.snapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ids := make(map[string]int32)
	if err := json.Unmarshal(text, &ids); err != nil {
		u.log.Warn().Err(err).Str("file", u.snapshot).Msg("snapshot of users is damaged, starting without it")
		return nil
	}
	u.learn(u.fold(ids))
	u.dirty = false
	return nil
}

// keepSnapshot writes what changes until ctx ends.
func (u *userList) keepSnapshot(ctx context.Context) {
	ticker := time.NewTicker(snapshotInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			u.writeSnapshot()
		}
	}
}

func (u *userList) writeSnapshot() {
	u.mu.Lock()
	if !u.dirty {
		u.mu.Unlock()
		return
	}
	u.dirty = false
	ids := maps.Clone(u.ids)
	u.mu.Unlock()

	text, err := json.Marshal(ids)
	if err == nil {
		err = replaceFile(u.snapshot, text)
	}
	if err != nil {
		u.log.Warn().Err(err).Msg("users not written")
		u.mu.Lock()
		u.dirty = true
		u.mu.Unlock()
	}
}

// replaceFile leaves either the old contents or the new, after a loss of power
// as well.
func replaceFile(path string, text []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
