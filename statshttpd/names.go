package statshttpd

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"btcpool/internal/share"
	"btcpool/internal/store"
)

const maxNameBytes = 128 // of a user, a worker or an agent; what is longer is cut

// rename remembers the names in e. b.mu is held.
func (b *board) rename(k workerKey, w *worker, e *share.Event, live bool) {
	name := workerName{clip(e.WorkerName), clip(e.Agent)}
	b.nameUser(k.UserID, e.UserName)
	changed := w.workerName != name
	if changed {
		w.workerName = name
		w.renamed++
	}
	if w.waits == nil && (live || changed) {
		b.renamed[k] = name
	}
}

// nameUser says what a user is called, unless the name is empty. b.mu is held.
func (b *board) nameUser(id int32, name string) {
	u := b.users[id]
	if name = clip(name); u == nil || name == "" || name == u.Name {
		return
	}
	if b.names[u.Name] == id {
		delete(b.names, u.Name)
	}
	u.Name, b.names[name] = name, id
}

// clip bounds a name and makes it valid UTF-8.
func clip(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), maxNameBytes)], "")
}

// addKnown takes in a row of the database: names, and what is remembered of the time before this process. b.mu is held.
func (b *board) addKnown(now time.Time, row store.Worker) {
	k, name := workerKey{row.UserID, row.WorkerID}, workerName{clip(row.Name), clip(row.Agent)}
	if delete(b.unread, k); row.WorkerID == 0 {
		if u := b.users[k.UserID]; u != nil {
			b.nameUserOnce(k.UserID, row.UserName)
			u.remember(row, b.roundFrom)
		}
		b.pool.remember(row, b.roundFrom)
		return
	}
	w := b.workers[k]
	if w == nil && !row.LastShareTime.IsZero() && len(b.workers)-b.lobby.size < b.limit {
		w = b.proven(now, k)
		delete(b.unread, k)
		w.cleared = row.Accept1h.Add(row.Stale1h).Add(row.Reject1h).IsZero()
	}
	if w == nil {
		return
	}
	b.nameUserOnce(k.UserID, row.UserName)
	if w.workerName == (workerName{}) {
		w.workerName = name
		w.renamed++
	}
	if b.renamed[k] == name {
		delete(b.renamed, k)
	}
	w.remember(row, b.roundFrom)
	if u := b.users[k.UserID]; w.waits == nil {
		u.last = max(u.last, w.last)
	}
}

// nameUserOnce names a user that has no name. b.mu is held.
func (b *board) nameUserOnce(id int32, name string) {
	if b.users[id].Name == "" {
		b.nameUser(id, name)
	}
}

// remember takes in what a row says of the time before; the round began at that unix time.
func (w *window) remember(row store.Worker, round int64) {
	if last := row.LastShareTime.Unix(); !row.LastShareTime.IsZero() && last > w.last {
		w.last = last
		if ip, err := netip.ParseAddr(row.LastShareIP); err == nil && row.LastShareIP != ipText(netip.Addr{}) {
			w.lastIP = ip
		}
	}
	if row.FirstShare > 0 && (w.first == 0 || row.FirstShare < w.first) {
		w.first = row.FirstShare
	}
	if best := record(row.Best); best.beats(w.best) {
		w.best = best
	}
	if r := record(row.RoundBest); r.At >= round && (w.round.At < round || r.beats(w.round)) {
		w.round = r
	}
}

// addUsers takes in the names of users the database knows.
func (b *board) addUsers(names map[int32]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, name := range names {
		if b.users[id] != nil {
			b.nameUserOnce(id, name)
		}
	}
}

// takeUnread returns up to n of the keys whose rows are to be read, with their users, and forgets them; putUnread gives
// back those that could not be.
func (b *board) takeUnread(n int) (keys []store.WorkerKey, users []int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.unread {
		if len(keys) == n {
			break
		}
		keys = append(keys, store.WorkerKey(k))
		users = append(users, k.UserID)
		delete(b.unread, k)
	}
	return keys, users
}

func (b *board) putUnread(keys []store.WorkerKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		if k.WorkerID == 0 && b.users[k.UserID] != nil || b.workers[workerKey(k)] != nil {
			b.unread[workerKey(k)] = true
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

// learn reads what the database knows of users and workers: those of the latest shares, and those with figures that a
// stopped service has left.
func (s *Service) learn(ctx context.Context, db *store.Store) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s.refreshLedger(ctx, db) // where the round begins
	rows, err := db.RecentWorkers(ctx, 2*s.cfg.MaxWorkers)
	var busy []store.Worker
	if err == nil {
		busy, err = db.BusyWorkers(ctx)
	}
	var names map[int32]string
	if err == nil {
		names, err = db.UserNames(ctx, usersOf(rows))
	}
	if err != nil {
		s.log.Warn().Err(err).Msg("workers not read: will try again")
		return err
	}
	s.board.learn(s.now(), append(busy, rows...), names)
	s.log.Info().Int("workers", len(rows)).Msg("workers read")
	return nil
}

// learn takes in rows, and the names of users that rows do not name.
func (b *board) learn(now time.Time, rows []store.Worker, names map[int32]string) {
	for _, users := range []bool{false, true} { // workers first: a user is there because of them
		for chunk := range slices.Chunk(rows, flushRows) { // shares are not kept waiting
			b.mu.Lock()
			for _, row := range chunk {
				if (row.WorkerID == 0) == users {
					b.addKnown(now, row)
				}
			}
			b.mu.Unlock()
		}
	}
	b.addUsers(names)
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

// lookUp reads the rows of who began to mine while we listened: what they say of the time before, and names that nobody
// said. Before that none of them is written: the best of a round is what was written last.
func (s *Service) lookUp(ctx context.Context, db *store.Store) error {
	const most = 1000
	for more := true; more; {
		keys, ids := s.board.takeUnread(most)
		if len(keys) == 0 {
			return nil
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
			s.board.learn(s.now(), rows, names)
			return nil
		})
		if err != nil {
			s.board.putUnread(keys)
			return fmt.Errorf("rows of new workers not read: %w", err)
		}
		more = len(keys) == most // who comes meanwhile is looked up the next time
	}
	return nil
}

// writeNames writes the names that changed, in chunks.
func (s *Service) writeNames(ctx context.Context, db *store.Store) (written int, err error) {
	renamed := s.board.takeRenamed()
	if !s.cfg.UpdateWorkerName {
		return 0, nil
	}
	for chunk := range slices.Chunk(s.board.nameRows(renamed), flushRows) {
		if err := withTimeout(ctx, func(ctx context.Context) error { return db.UpsertWorkerNames(ctx, chunk) }); err != nil {
			s.board.putRenamed(renamed)
			return written, err
		}
		for _, row := range chunk {
			delete(renamed, workerKey{row.UserID, row.WorkerID})
		}
		written += len(chunk)
	}
	return written, nil
}

// nameRows makes rows of names.
func (b *board) nameRows(names map[workerKey]workerName) []store.Worker {
	b.mu.RLock()
	defer b.mu.RUnlock()
	rows := make([]store.Worker, 0, len(names))
	for k, n := range names {
		row := store.Worker{UserID: k.UserID, WorkerID: k.WorkerID, Name: n.Name, Agent: n.Agent}
		if u := b.users[k.UserID]; u != nil {
			row.UserName = u.Name
		}
		rows = append(rows, row)
	}
	return rows
}
