package sserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// usersConfig is that of lists which notice changes at once.
func usersConfig(t testing.TB, source UserSource) Config {
	cfg := DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.Database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	cfg.Users.UserSource = source
	cfg.Users.ListInterval = config.Duration(5 * time.Millisecond)
	cfg.Users.ReloadInterval = config.Duration(20 * time.Millisecond)
	return cfg
}

// startUsers keeps the lists of cfg until stop is called, at the latest when the
// test ends. It returns the first.
func startUsers(t testing.TB, cfg Config) (u *userList, stop func()) {
	t.Helper()
	lists, err := newUserLists(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- lists.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return lists.lists[0], stop
}

func (u *userList) copyOfIDs() map[string]int32 {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return maps.Clone(u.ids)
}

// failures is how often reading has failed.
func (u *userList) failures() float64 { return testutil.ToFloat64(u.read("failed")) }

// becomes waits until the list is want.
func (u *userList) becomes(t *testing.T, want map[string]int32) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		diff := cmp.Diff(want, u.copyOfIDs())
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("users (-want +got):\n%s", diff)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestDatabaseUsers(t *testing.T) {
	t.Parallel()
	cfg := usersConfig(t, UserSource{Source: DatabaseUsers})
	path := strings.TrimPrefix(cfg.Database.DSN, "sqlite:")
	u, stop := startUsers(t, cfg)
	if _, err := u.id(t.Context(), "alice"); !errors.Is(err, errUnknownUser) {
		t.Errorf("empty table: %v", err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), "PRAGMA busy_timeout=10000; "+statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO users (puid, name) VALUES (3, 'alice'), (4, 'Bob'), (5, 'bob'), (-1, 'odd')`)
	u.becomes(t, map[string]int32{"alice": 3, "bob": 4})
	exec(`UPDATE users SET puid = 9 WHERE name = 'alice'; DELETE FROM users WHERE name = 'Bob'`)
	u.becomes(t, map[string]int32{"alice": 9, "bob": 5})
	if _, err := u.id(t.Context(), "carol"); !errors.Is(err, errUnknownUser) {
		t.Errorf("carol: %v", err)
	}
	exec(`DELETE FROM users`)
	u.becomes(t, map[string]int32{})
	stop()
}

func TestAddressUsers(t *testing.T) {
	t.Parallel()
	const base58, segwit = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
	const taproot = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"
	cfg := usersConfig(t, UserSource{Source: AddressUsers})
	db, err := store.Open(t.Context(), strings.TrimSpace(cfg.Database.DSN))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.UserID(t.Context(), "alice", true); err != nil {
		t.Fatal(err)
	}
	u, _ := startUsers(t, cfg)
	ids := make(map[string]int32)
	for _, name := range []string{base58, segwit, strings.ToUpper(segwit), taproot, strings.ToUpper(taproot)} {
		id, err := u.id(t.Context(), u.canonical(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		ids[u.canonical(name)] = id
	}
	want, err := db.Users(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	delete(want, "alice") // who came when the pool was open
	if diff := cmp.Diff(want, ids); diff != "" || len(ids) != 3 {
		t.Errorf("in the database (-), from logins (+):\n%s", diff)
	}
	u.becomes(t, ids)
	for what, name := range map[string]string{
		"another's case": strings.ToLower(base58),
		"two cases":      "bc1Q" + segwit[4:],
		"checksum":       base58[:len(base58)-1] + "b",
		"testnet":        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
		"a name":         "alice",
		"none":           "",
		"long":           strings.Repeat("1", maxUserName+1),
	} {
		if id, err := u.id(t.Context(), u.canonical(name)); !errors.Is(err, errUnknownUser) {
			t.Errorf("%s: id %d, %v", what, id, err)
		}
	}
}

func TestUserListPerSource(t *testing.T) {
	t.Parallel()
	cfg := usersConfig(t, UserSource{Source: StaticUsers, Static: map[string]int32{"Alice": 1}})
	static := func(id int32) *UserSource {
		return &UserSource{Source: StaticUsers, Static: map[string]int32{"Alice": id}}
	}
	cfg.Listeners = []Listener{{}, {Users: static(1)}, {Users: static(2)}, {Users: &UserSource{Source: OpenUsers}}}
	lists, err := newUserLists(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, place := range cfg.places() {
		u := lists.of(place)
		id, _ := u.cached("alice")
		got = append(got, fmt.Sprint(u.cfg.Source, id))
	}
	if diff := cmp.Diff([]string{"static1", "static1", "static1", "static2", "open0"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(lists.lists) != 3 {
		t.Errorf("%d lists", len(lists.lists))
	}
}

func TestStaticUsers(t *testing.T) {
	t.Parallel()
	cfg := usersConfig(t, UserSource{Source: StaticUsers, Static: map[string]int32{"Alice": 1}})
	u, stop := startUsers(t, cfg)
	stop()
	if id, err := u.id(t.Context(), "alice"); id != 1 || err != nil {
		t.Errorf("alice: id %d, %v", id, err)
	}
	if _, err := u.id(t.Context(), "bob"); !errors.Is(err, errUnknownUser) {
		t.Errorf("bob: %v", err)
	}
}

// testDirectory answers when the test lets it.
type testDirectory struct {
	lists chan map[string]int32
	finds chan error // nil: the name is the user 7
}

func (d testDirectory) list(ctx context.Context, _ int32) (map[string]int32, error) {
	select {
	case page := <-d.lists:
		return page, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d testDirectory) find(ctx context.Context, _ string) (int32, error) {
	select {
	case err := <-d.finds:
		if err != nil {
			return 0, err
		}
		return 7, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// inBubble runs test with a list that follows dir, in a time of its own.
func inBubble(t *testing.T, test func(t *testing.T, u *userList, dir testDirectory)) {
	dataDir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := defaultUsers()
		u, err := openUserList(cfg, dataDir, zerolog.Nop(), newUserMetrics(nil))
		if err != nil {
			t.Fatal(err)
		}
		dir := testDirectory{lists: make(chan map[string]int32), finds: make(chan error)}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { u.follow(ctx, dir) })
		test(t, u, dir)
		cancel()
		wg.Wait()
	})
}

// Logins of one new user are one question, and wait no longer than they may.
func TestLoginsAtOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, u *userList, dir testDirectory) {
		start := time.Now()
		if _, err := u.id(t.Context(), "alice"); !errors.Is(err, errUsersAway) || time.Since(start) != 5*time.Second {
			t.Errorf("before the list is read: %v after %s", err, time.Since(start))
		}
		dir.lists <- nil
		var wg sync.WaitGroup
		login := func(want int32, wantErr error) {
			wg.Go(func() {
				if id, err := u.id(t.Context(), "alice"); id != want || !errors.Is(err, wantErr) {
					t.Errorf("id %d, %v; want %d, %v", id, err, want, wantErr)
				}
			})
		}
		for range 100 {
			login(0, errUnknownUser)
		}
		synctest.Wait()
		dir.finds <- fmt.Errorf("no: %w", errUnknownUser)
		wg.Wait()
		login(0, errUnknownUser) // without a question
		wg.Wait()
		time.Sleep(refusalTime)
		for range 100 {
			login(7, nil)
		}
		synctest.Wait()
		dir.finds <- nil
		wg.Wait()
	})
}

func TestNewUsersAreBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, u *userList, dir testDirectory) {
		dir.lists <- nil
		var wg sync.WaitGroup
		for n := range maxFinding + maxWaiting {
			wg.Go(func() { _, _ = u.id(t.Context(), fmt.Sprint("user", n)) })
			if n < maxFinding {
				synctest.Wait() // until it is asked for
			}
		}
		synctest.Wait()
		if _, err := u.id(t.Context(), "alice"); !errors.Is(err, errUsersBusy) {
			t.Errorf("one too many: %v", err)
		}
		start := time.Now()
		wg.Wait()
		if waited := time.Since(start); waited > 5*time.Second {
			t.Errorf("logins waited %s", waited)
		}
	})
}

// A user that is new while the whole list is read stays, though the list may not
// have it.
func TestFoundWhileReading(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, u *userList, dir testDirectory) {
		dir.lists <- map[string]int32{"bob": 1, "carol": 2}
		dir.lists <- nil
		synctest.Wait()
		time.Sleep(u.cfg.ReloadInterval.Std() + pageTimeout/2) // the first page is awaited
		go func() { dir.finds <- nil }()
		if _, err := u.id(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		dir.lists <- map[string]int32{"bob": 3}
		dir.lists <- nil
		synctest.Wait()
		if diff := cmp.Diff(map[string]int32{"alice": 7, "bob": 3}, u.copyOfIDs()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func BenchmarkUserCached(b *testing.B) {
	u := &userList{ids: map[string]int32{"alice": 1}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := u.cached("alice"); !ok {
				b.Error("unknown")
			}
		}
	})
}

// BenchmarkReadAllUsers reads a million users again, of which none has changed.
func BenchmarkReadAllUsers(b *testing.B) {
	u, err := openUserList(defaultUsers(), b.TempDir(), zerolog.Nop(), newUserMetrics(nil))
	if err != nil {
		b.Fatal(err)
	}
	pages := make(pagedDirectory, 100)
	for i := range pages {
		pages[i] = make(map[string]int32, pageRows)
		for n := range pageRows {
			id := int32(i*pageRows + n + 1)
			pages[i][fmt.Sprint("user", id)] = id
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.readAll(b.Context(), pages); err != nil {
			b.Fatal(err)
		}
	}
}

type pagedDirectory []map[string]int32

func (d pagedDirectory) list(_ context.Context, after int32) (map[string]int32, error) {
	if page := int(after) / pageRows; page < len(d) {
		return d[page], nil
	}
	return nil, nil
}

func (pagedDirectory) find(context.Context, string) (int32, error) { return 0, errUnknownUser }
