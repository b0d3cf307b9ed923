package chainwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"btcpool/internal/durable"
	"btcpool/internal/retry"
	"btcpool/internal/userchain"
)

const (
	fileInterval = 5 * time.Second
	maxFile      = 1 << 30 // bytes
)

// memory is what the file says.
type memory struct {
	// Saved is when, RFC 3339.
	Saved time.Time         `json:"saved"`
	Users map[string]member `json:"users"`
}

type member struct {
	// Node is what the user's says; nil: there is none.
	Node *userchain.Value `json:"node"`
	Read int64            `json:"read"` // Unix time
	// Mined is the chain that the user mined last here, if that is remembered.
	Mined string `json:"mined,omitempty"`
}

// load remembers what is in the file and not too old.
func (w *Watcher) load(now time.Time) error {
	if w.cfg.File == "" {
		return nil
	}
	info, err := os.Stat(w.cfg.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Size() > maxFile:
		return fmt.Errorf("%s has %d bytes", w.cfg.File, info.Size())
	}
	text, err := os.ReadFile(w.cfg.File)
	if err != nil {
		return err
	}
	var m memory
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%s: %w", w.cfg.File, err)
	}
	for name, of := range m.Users {
		read := time.Unix(of.Read, 0)
		if userchain.CheckUser(name) != nil || now.Sub(read) > w.cfg.MaxAge.Std() || read.After(now.Add(time.Hour)) || len(w.users) >= w.cfg.MaxUsers {
			continue
		}
		u := &user{name: name, read: read, mined: of.Mined}
		if of.Node != nil {
			if userchain.CheckChain(of.Node.Chain) != nil {
				continue
			}
			u.answer = Answer{*of.Node, true}
		}
		w.users[name] = u
	}
	return nil
}

// KeepFile writes the file when something has changed, and when ctx ends.
func (w *Watcher) KeepFile(ctx context.Context) {
	if w.cfg.File == "" {
		return
	}
	w.sweepFile()
	for retry.Sleep(ctx, fileInterval) {
		w.save()
	}
	w.save()
}

// sweepFile removes what a process has left that was killed while it wrote.
func (w *Watcher) sweepFile() {
	w.saving.Lock()
	defer w.saving.Unlock()
	if !w.left {
		durable.Sweep(w.cfg.File)
	}
}

// LeaveFile writes the file once more, and leaves it to another process until undo is called. What changes meanwhile is
// what Memories returns.
func (w *Watcher) LeaveFile() (undo func()) {
	leave := func(left bool, since map[*user]struct{}) {
		w.mu.Lock()
		w.since = since
		w.mu.Unlock()
		if left {
			w.save()
		}
		w.saving.Lock()
		defer w.saving.Unlock()
		w.left = left
	}
	leave(true, make(map[*user]struct{}))
	return func() { leave(false, nil) }
}

// save writes the file if there is something new.
func (w *Watcher) save() {
	w.saving.Lock()
	defer w.saving.Unlock()
	if w.left || w.cfg.File == "" {
		return
	}
	now := time.Now()
	w.mu.Lock()
	// What is right is as good as read: else a calm pool's memory would grow old.
	m := memory{now, make(map[string]member, len(w.users))}
	for name, u := range w.users {
		if u.fresh && !u.reading && !u.read.IsZero() && w.connected && w.away.Err() == nil {
			u.read = now
		}
		if u.read.IsZero() || now.Sub(u.read) > w.cfg.MaxAge.Std() {
			continue
		}
		of := member{Read: u.read.Unix(), Mined: u.mined}
		if u.answer.Known {
			value := u.answer.Value
			of.Node = &value
		}
		m.Users[name] = of
	}
	due := w.changed || now.Sub(w.saved) > time.Minute && w.connected
	w.changed = w.changed && !due
	w.mu.Unlock()
	if !due {
		return
	}
	text, err := json.Marshal(m)
	if err == nil {
		err = durable.Replace(w.cfg.File, text, 0o640)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.saved = now
	} else {
		w.changed = true
	}
	w.file.Set(err)
}
