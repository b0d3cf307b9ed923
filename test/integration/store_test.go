//go:build integration

package integration

import (
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"btcpool/internal/store"
	"btcpool/internal/store/storetest"
	"btcpool/test/integration/rig"
)

// TestStoreOnMariaDB holds MariaDB to the suite that SQLite passes.
func TestStoreOnMariaDB(t *testing.T) {
	t.Parallel()
	server := rig.StartMariaDB(t, t.TempDir())
	db := server.Open(t)
	var n atomic.Int64
	storetest.Run(t, func(t *testing.T) (*store.Store, *sql.DB) {
		t.Helper()
		name := fmt.Sprintf("pool%d", n.Add(1))
		if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
			t.Fatal(err)
		}
		dsn := strings.TrimSuffix(server.DSN, "pool") + name
		s, err := store.Open(t.Context(), "mysql://"+dsn)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := sql.Open("mysql", dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close(); s.Close() })
		return s, raw
	})
}
