package statshttpd

import (
	"context"
	"maps"
	"strings"
	"time"

	"btcpool/internal/share"
	"btcpool/internal/store"
)

const maxNameBytes = 128 // of a user, a worker or an agent; what is longer is cut

// workerName is what only events and the database know of a worker.
type workerName struct{ Name, Agent string }

// rename remembers the names in e. b.mu is held.
func (b *board) rename(k workerKey, e *share.Event, live bool) (kept bool) {
	name := workerName{clip(e.WorkerName), clip(e.Agent)}
	old, known := b.names[k]
	if !known && len(b.names) >= b.limit {
		return false
	}
	b.names[k] = name
	if e.UserName != "" && (len(b.userIDs) < b.limit || b.userIDs[e.UserID] != "") {
		b.userIDs[e.UserID] = clip(e.UserName)
	}
	if live || old != name {
		b.renamed[k] = name
	}
	return true
}

// clip bounds a name and makes it valid UTF-8.
func clip(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), maxNameBytes)], "")
}

// addKnown takes in a worker the database knows. One whose figures there are not zero yet is kept in memory until they are.
func (b *board) addKnown(k workerKey, name workerName, lastShare time.Time, figures bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.names[k]; !known && len(b.names) < b.limit && name != (workerName{}) {
		b.names[k] = name
	}
	if b.renamed[k] == name {
		delete(b.renamed, k)
	}
	if !figures {
		return
	}
	if w := b.workerAt(k); w != nil && w.last == 0 {
		w.last = lastShare.Unix()
		u := b.users[k.UserID]
		u.last = max(u.last, w.last)
	}
}

// addUsers takes in the names of users the database knows.
func (b *board) addUsers(users map[string]int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, id := range users {
		if len(b.userIDs) < b.limit && b.userIDs[id] == "" {
			b.userIDs[id] = clip(name)
		}
	}
}

// takeRenamed returns the names to be written and forgets them; putRenamed gives back those that could not be.
func (b *board) takeRenamed() map[workerKey]workerName {
	b.mu.Lock()
	defer b.mu.Unlock()
	renamed := b.renamed
	b.renamed = make(map[workerKey]workerName)
	return renamed
}

func (b *board) putRenamed(renamed map[workerKey]workerName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.Copy(renamed, b.renamed) // what came meanwhile is newer
	b.renamed = renamed
}

// learn reads what the database knows of users and workers.
func (s *Service) learn(ctx context.Context, db *store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	users, err := db.Users(ctx)
	var workers []store.Worker
	if err == nil {
		workers, err = db.Workers(ctx)
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("names of users and workers not read: will try again")
		return err
	}
	s.board.addUsers(users)
	for _, w := range workers {
		if w.UserName != "" {
			s.board.addUsers(map[string]int32{w.UserName: w.UserID})
		}
		if w.WorkerID == 0 {
			continue
		}
		figures := w.Accept1h.Add(w.Stale1h).Add(w.Reject1h)
		s.board.addKnown(workerKey{w.UserID, w.WorkerID}, workerName{w.Name, w.Agent}, w.LastShareTime, !figures.IsZero())
	}
	s.log.Info().Int("users", len(users)).Int("workers", len(workers)).Msg("names of users and workers read")
	return nil
}

func (s *Service) writeNames(ctx context.Context, db *store.Store) (written int, err error) {
	renamed := s.board.takeRenamed()
	for k, row := range s.board.nameRows(renamed) {
		if err := withTimeout(ctx, func(ctx context.Context) error { return db.UpsertWorkerName(ctx, row) }); err != nil {
			s.board.putRenamed(renamed)
			return written, err
		}
		delete(renamed, k)
		written++
	}
	return written, nil
}

// nameRows makes rows of names.
func (b *board) nameRows(names map[workerKey]workerName) map[workerKey]store.Worker {
	b.mu.RLock()
	defer b.mu.RUnlock()
	rows := make(map[workerKey]store.Worker, len(names))
	for k, n := range names {
		rows[k] = store.Worker{UserID: k.UserID, WorkerID: k.WorkerID, Name: n.Name, UserName: b.userIDs[k.UserID], Agent: n.Agent}
	}
	return rows
}
