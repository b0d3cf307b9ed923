package users

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"time"

	"btcpool/internal/durable"
)

// snapshotInterval is how often a changed list of users is written.
const snapshotInterval = 5 * time.Second

// readSnapshot takes in what an earlier run knew.
func (l *List) readSnapshot() error {
	durable.Sweep(l.snapshot)
	text, err := os.ReadFile(l.snapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ids := make(map[string]int32)
	if err := json.Unmarshal(text, &ids); err != nil {
		l.log.Warn().Err(err).Str("file", l.snapshot).Msg("snapshot of users is damaged, starting without it")
		return nil
	}
	l.learn(l.fold(ids, l.foldCase))
	l.dirty = false
	return nil
}

// writeSnapshot writes the list if it has changed.
func (l *List) writeSnapshot() {
	l.mu.Lock()
	if !l.dirty {
		l.mu.Unlock()
		return
	}
	l.dirty = false
	ids := maps.Clone(l.ids)
	l.mu.Unlock()

	text, err := json.Marshal(ids)
	if err == nil {
		err = durable.Replace(l.snapshot, text, 0o600)
	}
	if err != nil {
		l.log.Warn().Err(err).Msg("users not written")
		l.mu.Lock()
		l.dirty = true
		l.mu.Unlock()
	}
}
