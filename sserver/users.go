package sserver

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"btcpool/internal/bitcoin"
)

const (
	// maxListed bounds an API's list; what is in the database is our own.
	maxListed = 4 << 20
	// pageTimeout bounds the reading of a page of users.
	pageTimeout = 10 * time.Second
)

// userDirectory is where the users of a list are kept.
type userDirectory interface {
	// list returns users whose ids are above after: all of them or the lowest,
	// none only when there are no more.
	list(ctx context.Context, after int32) (map[string]int32, error)
	// find returns the id of a user that list has not shown; it is new now, if
	// need be. The error wraps errUnknownUser when there must be no such user.
	find(ctx context.Context, name string) (int32, error)
}

// userList knows the ids of users by name. What it learned survives in a
// snapshot, so that known users log in while their source is away.
type userList struct {
	cfg      Users // with the list's own source
	network  bitcoin.Network
	log      zerolog.Logger
	snapshot string // file
	known    prometheus.Gauge
	read     func(result string) prometheus.Counter

	ready chan struct{} // closed when the whole list has been read
	ended chan struct{} // closed when it is not kept any more
	asked chan *finding
	pace  *rate.Limiter // of the asked

	// version grows when users were removed or got other ids: who holds an id
	// should look again.
	version atomic.Uint64

	mu      sync.RWMutex
	ids     map[string]int32
	dirty   bool                 // ids differ from the snapshot
	found   map[string]int32     // since the reading of the whole list began; nil: there is none
	finding map[string]*finding  // by name
	refused map[string]time.Time // when
}

func openUserList(cfg Users, dir string, log zerolog.Logger, m *userMetrics) (*userList, error) {
	name := cfg.name()
	u := &userList{
		cfg:      cfg,
		log:      log.With().Str("list", name).Logger(),
		snapshot: filepath.Join(dir, "users-"+name+".json"),
		known:    m.known.WithLabelValues(name),
		read:     func(result string) prometheus.Counter { return m.readings.WithLabelValues(name, result) },
		ready:    make(chan struct{}),
		ended:    make(chan struct{}),
		asked:    make(chan *finding, maxWaiting),
		pace:     rate.NewLimiter(findRate, findBurst),
		ids:      make(map[string]int32),
		finding:  make(map[string]*finding),
		refused:  make(map[string]time.Time),
	}
	if cfg.Source == AddressUsers {
		var err error
		if u.network, err = bitcoin.NetworkByName(cfg.Network); err != nil {
			return nil, err
		}
	}
	if cfg.Source == StaticUsers {
		u.learn(u.fold(cfg.Static))
		close(u.ready)
		return u, nil
	}
	return u, u.readSnapshot()
}

// canonical returns what the user of that name is called here. The other
// methods want names in this form.
func (u *userList) canonical(name string) string {
	if u.cfg.Source != AddressUsers {
		if u.cfg.CaseInsensitive {
			return strings.ToLower(name)
		}
		return name
	}
	// BIP 173: all capitals are the same address; base58 is case sensitive.
	if lower := strings.ToLower(name); strings.ToUpper(name) == name && strings.HasPrefix(lower, u.network.Params.Bech32HRPSegwit+"1") {
		return lower
	}
	return name
}

// admits reports whether a user may have that name.
func (u *userList) admits(name string) bool {
	if name == "" || len(name) > maxUserName {
		return false
	}
	if u.cfg.Source != AddressUsers {
		return true
	}
	_, err := u.network.PayoutScript(name)
	return err == nil
}

// cached returns the id of a user, if it is known without asking.
func (u *userList) cached(name string) (id int32, ok bool) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	id, ok = u.ids[name]
	return id, ok
}

// follow keeps the list as its directory has it until ctx ends.
func (u *userList) follow(ctx context.Context, dir userDirectory) {
	var wg sync.WaitGroup
	wg.Go(func() { u.keepSnapshot(ctx) })
	for range maxFinding {
		wg.Go(func() { u.findAsked(ctx, dir) })
	}
	u.keep(ctx, dir)
	wg.Wait()
	u.writeSnapshot()
}

// keep reads the whole list again and again, and between that what is new, until
// ctx ends.
func (u *userList) keep(ctx context.Context, dir userDirectory) {
	ticker := time.NewTicker(u.cfg.ListInterval.Std())
	defer ticker.Stop()
	var last int32         // id
	var complete time.Time // when the whole list was read
	for {
		var err error
		if now := time.Now(); now.Sub(complete) < u.cfg.ReloadInterval.Std() {
			last, err = u.pages(ctx, dir, last, u.learn)
		} else if last, err = u.readAll(ctx, dir); err == nil {
			if complete.IsZero() {
				close(u.ready)
			}
			complete = now
		}
		switch {
		case err == nil:
			u.read("ok").Inc()
		case ctx.Err() == nil:
			u.read("failed").Inc()
			u.log.Warn().Err(err).Msg("users not read, going on with those known")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// readAll makes the list what its directory has now, and returns the highest id.
// New users are known before the last has been read.
func (u *userList) readAll(ctx context.Context, dir userDirectory) (last int32, err error) {
	u.mu.Lock()
	u.found = make(map[string]int32)
	u.mu.Unlock()
	all := make(map[string]int32)
	last, err = u.pages(ctx, dir, 0, func(page map[string]int32) {
		u.learn(page)
		for name, id := range page {
			if other, ok := all[name]; !ok || id < other {
				all[name] = id
			}
		}
	})
	if err == nil {
		err = u.replace(all)
	}
	return last, err
}

// replace forgets all users but those in all and those found meanwhile.
func (u *userList) replace(all map[string]int32) error {
	removed, changed := 0, 0
	u.mu.RLock()
	for name, id := range u.ids {
		now, ok := all[name]
		_, found := u.found[name]
		switch {
		case !ok && !found:
			removed++
		case ok && now != id:
			changed++
		}
	}
	known := len(u.ids)
	u.mu.RUnlock()
	if u.cfg.Source == APIUsers && len(all) == 0 && known > 0 {
		return errors.New("the list is empty, which is not believed")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, id := range u.found {
		if _, ok := all[name]; !ok {
			all[name] = id
		}
	}
	u.ids, u.found = all, nil
	u.known.Set(float64(len(all)))
	if removed+changed > 0 {
		u.dirty = true
		u.version.Add(1)
		u.log.Info().Int("removed", removed).Int("changed", changed).Int("users", len(all)).Msg("users have changed")
	}
	return nil
}

// pages hands the users above last to take, page by page, and returns the
// highest id.
func (u *userList) pages(ctx context.Context, dir userDirectory, last int32, take func(map[string]int32)) (int32, error) {
	for listed := 0; ; {
		page, err := u.page(ctx, dir, last)
		if err != nil {
			return last, err
		}
		if listed += len(page); listed > maxListed && u.cfg.Source == APIUsers {
			return last, errors.New("too many users")
		}
		before := last
		for _, id := range page {
			last = max(last, id)
		}
		take(u.fold(page))
		if last == before {
			return last, nil
		}
	}
}

func (u *userList) page(ctx context.Context, dir userDirectory, last int32) (map[string]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return dir.list(ctx, last)
}

// fold returns the users of a page by canonical names. Of several with the same
// the oldest, which is the one with the lowest id, has it.
func (u *userList) fold(page map[string]int32) map[string]int32 {
	folded := make(map[string]int32, len(page))
	for name, id := range page {
		name = u.canonical(name)
		if _, known := u.cached(name); id <= 0 || !known && !u.admits(name) {
			continue
		}
		if other, ok := folded[name]; !ok || id < other {
			folded[name] = id
		}
	}
	return folded
}

// learn adds those of folded that are not known. What is known stays as it is
// until the whole list is read.
func (u *userList) learn(folded map[string]int32) {
	fresh := make(map[string]int32)
	u.mu.RLock()
	for name, id := range folded {
		if _, known := u.ids[name]; !known {
			fresh[name] = id
		}
	}
	u.mu.RUnlock()
	if len(fresh) == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.Copy(u.ids, fresh)
	u.dirty = true
	u.known.Set(float64(len(u.ids)))
}
