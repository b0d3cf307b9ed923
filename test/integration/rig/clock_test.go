//go:build integration

package rig_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestClock steps the clock of a program: the times in its log follow.
func TestClock(t *testing.T) {
	t.Parallel()
	clock := rig.NewClock(t)
	for _, want := range []time.Duration{0, time.Hour, 0, -time.Hour, -time.Hour - 5*time.Second} {
		clock.Step(t, want-clock.Offset())
		dir := t.TempDir()
		config := fmt.Sprintf("network = \"regtest\"\ndata_dir = %q\n[[nodes]]\nrpc_url = \"http://127.0.0.1:1\"\nrpc_user = \"nobody\"\nrpc_password = \"none\"\n", dir)
		p := rig.StartMoved(t, dir, "gbtmaker", clock, config)
		var got time.Time
		testkit.Until(t, testkit.Patience, "it writes a line", func(context.Context) (err error) {
			got, err = firstTime(p.LogTail(1 << 10))
			return err
		})
		if ahead := time.Until(got); ahead > want || want-ahead > time.Minute {
			t.Errorf("moved by %v it says %v, at %v", want, got, time.Now())
		}
		p.Kill()
	}
}

// firstTime returns the time of the first line of a log.
func firstTime(log string) (time.Time, error) {
	line, _, whole := strings.Cut(log, "\n")
	if !whole {
		return time.Time{}, errors.New("no line yet")
	}
	var entry struct{ Time time.Time }
	err := json.Unmarshal([]byte(line), &entry)
	return entry.Time, err
}
