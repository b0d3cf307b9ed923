package dirlock_test

import (
	"errors"
	"path/filepath"
	"testing"

	"btcpool/internal/dirlock"
)

func TestLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	first, err := dirlock.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dirlock.Lock(dir); !errors.Is(err, dirlock.ErrLocked) {
		t.Fatalf("second lock: got %v, want ErrLocked", err)
	}
	first.Close()
	again, err := dirlock.Lock(dir)
	if err != nil {
		t.Fatalf("lock after close: %v", err)
	}
	again.Close()
}
