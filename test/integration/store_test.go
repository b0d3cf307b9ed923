//go:build integration

package integration

import (
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
	storetest.Run(t, func(t *testing.T) *store.Store {
		t.Helper()
		name := fmt.Sprintf("pool%d", n.Add(1))
		if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(t.Context(), "mysql://"+strings.TrimSuffix(server.DSN, "/pool")+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}
