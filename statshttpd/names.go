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

// rename remembers the names in e. b.mu is held.
func (b *board) rename(k workerKey, w *worker, e *share.Event, live bool) {
	name := workerName{clip(e.WorkerName), clip(e.Agent)}
	if u := b.users[k.UserID]; e.UserName != "" {
		u.Name = clip(e.UserName)
	}
	changed := w.workerName != name
	w.workerName = name
	delete(b.nameless, k)
	if w.waits == nil && (live || changed) {
		b.renamed[k] = name
	}
}

// clip bounds a name and makes it valid UTF-8.
func clip(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), maxNameBytes)], "")
}

// addKnown takes in a row of the database. A worker whose figures there are not zero yet is kept in memory until they
// are.
func (b *board) addKnown(now time.Time, row store.Worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, name := workerKey{row.UserID, row.WorkerID}, workerName{row.Name, row.Agent}
	figures := row.Accept1h.Add(row.Stale1h).Add(row.Reject1h)
	w := b.workers[k]
	if w == nil && !figures.IsZero() {
		w = b.proven(now, k)
	}
	if w == nil {
		return
	}
	if u := b.users[k.UserID]; u.Name == "" {
		u.Name = clip(row.UserName)
	}
	if w.workerName == (workerName{}) {
		w.workerName = name
	}
	delete(b.nameless, k)
	if b.renamed[k] == name {
		delete(b.renamed, k)
	}
	if w.waits == nil && w.last == 0 {
		w.last = max(row.LastShareTime.Unix(), 1)
		u := b.users[k.UserID]
		u.last = max(u.last, w.last)
	}
}

// addUsers takes in the names of users the database knows.
func (b *board) addUsers(names map[int32]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, name := range names {
		if u := b.users[id]; u != nil && u.Name == "" {
			u.Name = clip(name)
		}
	}
}

// takeNameless returns up to n of the workers whose names are to be looked up, with their users, and forgets them.
func (b *board) takeNameless(n int) (keys []store.WorkerKey, users []int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.nameless {
		if len(keys) == n {
			break
		}
		keys = append(keys, store.WorkerKey(k))
		users = append(users, k.UserID)
		delete(b.nameless, k)
	}
	return keys, users
}

func (b *board) putNameless(keys []store.WorkerKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		if w := b.workers[workerKey(k)]; w != nil && w.workerName == (workerName{}) {
			b.nameless[workerKey(k)] = true
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

// learn reads the rows whose figures a stopped service has left.
func (s *Service) learn(ctx context.Context, db *store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	rows, err := db.BusyWorkers(ctx)
	var names map[int32]string
	if err == nil {
		names, err = db.UserNames(ctx, usersOf(rows))
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("workers not read: will try again")
		return err
	}
	now := s.now()
	for _, row := range rows {
		if row.WorkerID != 0 {
			s.board.addKnown(now, row)
		}
	}
	s.board.addUsers(names)
	s.log.Info().Int("workers", len(rows)).Msg("workers read")
	return nil
}

// usersOf returns the users that rows do not name, as those of other software do not.
func usersOf(rows []store.Worker) (ids []int32) {
	for _, row := range rows {
		if row.WorkerID == 0 && row.UserName == "" {
			ids = append(ids, row.UserID)
		}
	}
	return ids
}

// lookUp asks the database for the names of workers that mine without having said them while we listened.
func (s *Service) lookUp(ctx context.Context, db *store.Store) {
	const most = 1000
	keys, ids := s.board.takeNameless(most)
	if len(keys) == 0 {
		return
	}
	err := withTimeout(ctx, func(ctx context.Context) error {
		names, err := db.UserNames(ctx, ids)
		if err != nil {
			return err
		}
		rows, err := db.FindWorkers(ctx, keys)
		if err != nil {
			return err
		}
		now := s.now()
		for _, row := range rows {
			s.board.addKnown(now, row)
		}
		s.board.addUsers(names)
		return nil
	})
	if err != nil {
		s.board.putNameless(keys)
	}
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
		row := store.Worker{UserID: k.UserID, WorkerID: k.WorkerID, Name: n.Name, Agent: n.Agent}
		if u := b.users[k.UserID]; u != nil {
			row.UserName = u.Name
		}
		rows[k] = row
	}
	return rows
}
