package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/config"
	"btcpool/internal/store"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setup is what a list is made of.
type setup struct {
	Config

	dir      string
	database store.Config
}

// quick returns the setup of a list that notices changes at once.
func quick(t testing.TB, source Source) setup {
	s := setup{Config: DefaultConfig(), dir: t.TempDir()}
	s.database.DSN = "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	s.Source = source
	s.ListInterval = config.Duration(5 * time.Millisecond)
	s.ReloadInterval = config.Duration(20 * time.Millisecond)
	return s
}

// openList returns a list that nobody keeps.
func openList(t testing.TB, cfg Config, dir string) *List {
	t.Helper()
	l, err := open(cfg, dir, zerolog.Nop(), newMetrics(nil, "sserver"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start keeps the list of s until stop is called, at the latest when the test ends.
func (s setup) start(t testing.TB) (l *List, stop func()) {
	t.Helper()
	lists, err := New("sserver", s.Config, []Source{s.Source}, s.dir, s.database, telemetry.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	return lists.Of(s.Source), testkit.Run(t, func(ctx context.Context) error {
		lists.Run(ctx)
		return nil
	})
}

func (l *List) copyOfIDs() map[string]int32 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.ids)
}

// failures is how often reading has failed.
func (l *List) failures() float64 { return testutil.ToFloat64(l.read("failed")) }

// becomes waits until the list is want.
func (l *List) becomes(t *testing.T, want map[string]int32) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprint("users ", want), func() bool { return cmp.Equal(want, l.copyOfIDs()) })
}

func TestDatabaseUsers(t *testing.T) {
	t.Parallel()
	s := quick(t, Source{Kind: Database})
	path := strings.TrimPrefix(s.database.DSN, "sqlite:")
	l, stop := s.start(t)
	if _, err := l.ID(t.Context(), "alice"); !errors.Is(err, ErrUnknown) {
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
	l.becomes(t, map[string]int32{"alice": 3, "bob": 4})
	exec(`UPDATE users SET puid = 9 WHERE name = 'alice'; DELETE FROM users WHERE name = 'Bob'`)
	l.becomes(t, map[string]int32{"alice": 9, "bob": 5})
	if _, err := l.ID(t.Context(), "carol"); !errors.Is(err, ErrUnknown) {
		t.Errorf("carol: %v", err)
	}
	exec(`DELETE FROM users`)
	l.becomes(t, map[string]int32{})
	stop()
}

func TestAddressUsers(t *testing.T) {
	t.Parallel()
	const base58, segwit = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
	const taproot = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"
	s := quick(t, Source{Kind: Address})
	db, err := store.Open(t.Context(), strings.TrimSpace(s.database.DSN))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.UserID(t.Context(), "alice", true); err != nil {
		t.Fatal(err)
	}
	l, _ := s.start(t)
	ids := make(map[string]int32)
	for _, name := range []string{base58, segwit, strings.ToUpper(segwit), taproot, strings.ToUpper(taproot)} {
		id, err := l.ID(t.Context(), l.Canonical(name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		ids[l.Canonical(name)] = id
	}
	want, err := db.Users(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	delete(want, "alice") // who came when the pool was open
	if diff := cmp.Diff(want, ids); diff != "" || len(ids) != 3 {
		t.Errorf("in the database (-), from logins (+):\n%s", diff)
	}
	l.becomes(t, ids)
	for what, name := range map[string]string{
		"another's case": strings.ToLower(base58),
		"two cases":      "bc1Q" + segwit[4:],
		"checksum":       base58[:len(base58)-1] + "b",
		"testnet":        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
		"a name":         "alice",
		"none":           "",
		"long":           strings.Repeat("1", maxName+1),
	} {
		if id, err := l.ID(t.Context(), l.Canonical(name)); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: id %d, %v", what, id, err)
		}
	}
}

func TestStaticUsers(t *testing.T) {
	t.Parallel()
	s := quick(t, Source{Kind: Static, Static: map[string]int32{"Alice": 1}})
	l, stop := s.start(t)
	stop()
	if id, err := l.ID(t.Context(), "alice"); id != 1 || err != nil {
		t.Errorf("alice: id %d, %v", id, err)
	}
	if _, err := l.ID(t.Context(), "bob"); !errors.Is(err, ErrUnknown) {
		t.Errorf("bob: %v", err)
	}
}

func BenchmarkCached(b *testing.B) {
	l := &List{ids: map[string]int32{"alice": 1}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := l.Cached("alice"); !ok {
				b.Error("unknown")
			}
		}
	})
}
