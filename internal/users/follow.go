package users

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"btcpool/internal/retry"
)

const (
	// maxListed bounds an API's list; what is in the database is our own.
	maxListed = 4 << 20
	// pageTimeout bounds the reading of a page of users.
	pageTimeout = 10 * time.Second
)

// directory is where the users of a list are kept.
type directory interface {
	// list returns users whose ids are above after: all of them or the lowest, none only when there are no more.
	list(ctx context.Context, after int32) (map[string]int32, error)
	// find returns the id of a user that list has not shown; it is new now, if need be. The error wraps ErrUnknown when
	// there must be no such user.
	find(ctx context.Context, name string) (int32, error)
}

// follow keeps the list as its directory has it until ctx ends.
func (l *List) follow(ctx context.Context, dir directory) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for retry.Sleep(ctx, snapshotInterval) {
			l.writeSnapshot()
		}
	})
	for range maxFinding {
		wg.Go(func() { l.findAsked(ctx, dir) })
	}
	l.keep(ctx, dir)
	wg.Wait()
	l.writeSnapshot()
}

// keep reads the whole list again and again, and between that what is new, until ctx ends.
func (l *List) keep(ctx context.Context, dir directory) {
	var last int32         // id
	var complete time.Time // when the whole list was read
	ticker := time.NewTicker(l.cfg.ListInterval.Std())
	defer ticker.Stop()
	for {
		var err error
		if now := time.Now(); now.Sub(complete) < l.cfg.ReloadInterval.Std() {
			last, err = l.pages(ctx, dir, last, l.learn)
		} else if last, err = l.readAll(ctx, dir); err == nil {
			if complete.IsZero() {
				close(l.ready)
			}
			complete = now
		}
		switch {
		case err == nil:
			l.read("ok").Inc()
		case ctx.Err() == nil:
			l.read("failed").Inc()
			l.log.Warn().Err(err).Msg("users not read, going on with those known")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// readAll makes the list what its directory has now, and returns the highest id. New users are known before the last
// has been read.
func (l *List) readAll(ctx context.Context, dir directory) (last int32, err error) {
	l.mu.Lock()
	l.found = make(map[string]int32)
	l.mu.Unlock()
	all := make(map[string]int32)
	last, err = l.pages(ctx, dir, 0, func(page map[string]int32) {
		l.learn(page)
		for name, id := range page {
			if other, ok := all[name]; !ok || id < other {
				all[name] = id
			}
		}
	})
	if err == nil {
		err = l.replace(all)
	}
	return last, err
}

// replace forgets all users but those in all and those found meanwhile.
func (l *List) replace(all map[string]int32) error {
	removed, changed := 0, 0
	l.mu.RLock()
	for name, id := range l.ids {
		now, ok := all[name]
		_, found := l.found[name]
		switch {
		case !ok && !found:
			removed++
		case ok && now != id:
			changed++
		}
	}
	known := len(l.ids)
	l.mu.RUnlock()
	if l.cfg.Kind == API && len(all) == 0 && known > 0 {
		return errors.New("the list is empty, which is not believed")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, id := range l.found {
		if _, ok := all[name]; !ok {
			all[name] = id
		}
	}
	l.ids, l.found = all, nil
	l.known.Set(float64(len(all)))
	if removed+changed > 0 {
		l.dirty = true
		l.version.Add(1)
		l.log.Info().Int("removed", removed).Int("changed", changed).Int("users", len(all)).Msg("users have changed")
	}
	return nil
}

// pages hands the users above last to take, page by page, and returns the highest id.
func (l *List) pages(ctx context.Context, dir directory, last int32, take func(map[string]int32)) (int32, error) {
	for listed := 0; ; {
		page, err := l.page(ctx, dir, last)
		if err != nil {
			return last, err
		}
		if listed += len(page); listed > maxListed && l.cfg.Kind == API {
			return last, errors.New("too many users")
		}
		before := last
		for _, id := range page {
			last = max(last, id)
		}
		take(l.fold(page, l.listed))
		if last == before {
			return last, nil
		}
	}
}

func (l *List) page(ctx context.Context, dir directory, last int32) (map[string]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return dir.list(ctx, last)
}

// fold returns the users of a page by canonical names. Of several with the same the oldest, which is the one with the
// lowest id, has it.
func (l *List) fold(page map[string]int32, canonical func(string) string) map[string]int32 {
	folded := make(map[string]int32, len(page))
	for name, id := range page {
		name = canonical(name)
		if _, known := l.Cached(name); id <= 0 || !known && !l.admits(name) {
			continue
		}
		if other, ok := folded[name]; !ok || id < other {
			folded[name] = id
		}
	}
	return folded
}

// learn adds those of folded that are not known. What is known stays as it is until the whole list is read.
func (l *List) learn(folded map[string]int32) {
	fresh := make(map[string]int32)
	l.mu.RLock()
	for name, id := range folded {
		if _, known := l.ids[name]; !known {
			fresh[name] = id
		}
	}
	l.mu.RUnlock()
	if len(fresh) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.Copy(l.ids, fresh)
	l.dirty = true
	l.known.Set(float64(len(l.ids)))
}
