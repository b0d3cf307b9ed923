package store_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/store"
	"btcpool/internal/store/storetest"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func createSQLite(t *testing.T) (dsn string, db *sql.DB) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pool #1 %41.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return "sqlite:" + path, db
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, createSQLite)
}

func TestSQLiteFileName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a b#c%41&d.db")
	s, err := store.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// Several services start on a new file at the same time, and all write to it.
func TestSQLiteShared(t *testing.T) {
	t.Parallel()
	dsn := "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := store.Open(t.Context(), dsn)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for n := range 20 {
				row := store.Stats{StatsKey: store.StatsKey{UserID: 1, WorkerID: int64(n + 1), Period: 20260301}}
				if err := s.WriteStats(t.Context(), []store.Stats{row}, nil); err != nil {
					t.Error(err)
				}
				if _, err := s.Blocks(t.Context(), 10, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestSQLiteReopened(t *testing.T) {
	t.Parallel()
	dsn := "sqlite:" + filepath.Join(t.TempDir(), "pool.db")
	var ids [2]int32
	for i := range ids {
		s, err := store.Open(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		if ids[i], err = s.UserID(t.Context(), "alice", i == 0); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("id became %d from %d", ids[1], ids[0])
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		cfg     store.Config
		wantErr string // "": valid
	}{
		{"mysql", store.Config{DSN: "mysql://pool:secret@tcp(db:3306)/pool"}, ""},
		{"mysql with parameters", store.Config{DSN: "mysql://pool@tcp(db:3306)/pool?tls=true"}, ""},
		{"sqlite", store.Config{DSN: "sqlite:/var/lib/pool.db"}, ""},
		{"sqlite with slashes", store.Config{DSN: "sqlite:///var/lib/pool.db"}, ""},
		{"file", store.Config{DSNFile: "/run/secrets/dsn"}, ""},
		{"nothing", store.Config{}, "database.dsn: must be set"},
		{"both", store.Config{DSN: "sqlite:a", DSNFile: "b"}, "only one"},
		{"other engine", store.Config{DSN: "postgres://db/pool"}, `must begin with "mysql://" or "sqlite:"`},
		{"no database", store.Config{DSN: "mysql://pool@tcp(db:3306)/"}, "name of a database"},
		{"no slash", store.Config{DSN: "mysql://pool@tcp(db:3306)"}, "want mysql://"},
		{"memory", store.Config{DSN: "sqlite::memory:"}, "must name a file"},
		{"no path", store.Config{DSN: "sqlite:"}, "must name a file"},
	} {
		err := test.cfg.Validate()
		if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%s: %v, want %q", test.name, err, test.wantErr)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error tells the password: %v", test.name, err)
		}
	}
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	at := time.Date(2028, 2, 29, 23, 59, 59, 0, time.UTC)
	for kind, want := range map[store.StatsKind]time.Time{store.Day: at.Truncate(24 * time.Hour), store.Hour: at.Truncate(time.Hour)} {
		if got, ok := kind.Start(kind.Period(at)); !ok || !got.Equal(want) {
			t.Errorf("%s: %v, %v, want %v", kind, got, ok, want)
		}
	}
	for kind, all := range map[store.StatsKind][]int{
		store.Day:  {0, -20280229, 20270229, 20281301, 20280001, 20280100, 2028022923},
		store.Hour: {0, -1, 20280229, 2028022924, 2027022900, 2028130100},
	} {
		for _, period := range all {
			if got, ok := kind.Start(period); ok {
				t.Errorf("%s %d begins at %v", kind, period, got)
			}
		}
	}
}

// closedPort returns an address where nobody listens.
func TestOpenDatabaseAway(t *testing.T) {
	t.Parallel()
	start := time.Now()
	if s, err := store.Open(t.Context(), "mysql://pool@tcp("+testkit.FreeAddr(t)+")/pool"); err == nil {
		t.Error("no error", s.Close())
	}
	if s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "missing", "pool.db")); err == nil {
		t.Error("no error", s.Close())
	}
	if took := time.Since(start); took > testkit.Patience {
		t.Errorf("took %s", took)
	}
}

func TestConnectEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := store.Connect(ctx, store.Config{DSN: "mysql://pool@tcp(" + testkit.FreeAddr(t) + ")/pool"}, zerolog.Nop())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestConnectWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dsnFile := filepath.Join(dir, "dsn")
	log := zerolog.New(writerFunc(func(p []byte) (int, error) { // the first failure mends what it complains of
		if _, err := os.Stat(dsnFile); err != nil {
			return len(p), os.WriteFile(dsnFile, []byte("sqlite:"+dir+"/pool.db\n"), 0o600)
		}
		return len(p), nil
	}))
	s, err := store.Connect(t.Context(), store.Config{DSNFile: dsnFile}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
