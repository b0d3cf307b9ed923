package durable_test

import (
	"errors"
	"path/filepath"
	"testing"

	"btcpool/internal/durable"
)

func TestLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	first, err := durable.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.Lock(dir); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("second lock: got %v, want ErrLocked", err)
	}
	first.Close()
	again, err := durable.Lock(dir)
	if err != nil {
		t.Fatalf("lock after close: %v", err)
	}
	again.Close()
}
