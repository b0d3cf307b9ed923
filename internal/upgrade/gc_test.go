package upgrade_test

import (
	"runtime/debug"
	"testing"

	"btcpool/internal/upgrade"
)

// Memory is collected again when the last has moved what there was, and as before.
func TestWithoutGC(t *testing.T) {
	before := debug.SetGCPercent(70)
	defer debug.SetGCPercent(before)
	percent := func() int {
		now := debug.SetGCPercent(50)
		debug.SetGCPercent(now)
		return now
	}
	one, other := upgrade.WithoutGC(), upgrade.WithoutGC()
	one()
	if got := percent(); got != -1 {
		t.Errorf("%d while one is moving still", got)
	}
	other()
	if got := percent(); got != 70 {
		t.Errorf("%d afterwards, want 70", got)
	}
}
