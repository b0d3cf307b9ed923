package retry_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"btcpool/internal/retry"
)

var errAway = errors.New("away")

func TestDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start, tries := time.Now(), 0
		var pauses []time.Duration
		err := retry.Do(t.Context(), retry.Pace{First: time.Second, Longest: 3 * time.Second}, func() error {
			if tries++; tries < 5 {
				return errAway
			}
			return nil
		}, func(err error, pause time.Duration) {
			if !errors.Is(err, errAway) {
				t.Errorf("told of %v", err)
			}
			pauses = append(pauses, pause)
		})
		want := []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second}
		if err != nil || !slices.Equal(pauses, want) || time.Since(start) != 9*time.Second {
			t.Errorf("got %v, pauses %v in %s, want %v", err, pauses, time.Since(start), want)
		}
	})
}

func TestDoEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pace := retry.Pace{First: time.Second, Longest: time.Hour}
		if err := retry.Do(t.Context(), pace, func() error { return retry.Enough(errAway) }, nil); !errors.Is(err, errAway) {
			t.Errorf("got %v, want the error itself", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		err := retry.Do(ctx, pace, func() error { return errAway }, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

func TestDoDoesNotAllocate(t *testing.T) {
	ctx, tries := t.Context(), 0
	pace := retry.Pace{First: time.Second, Longest: time.Hour}
	if n := testing.AllocsPerRun(100, func() {
		if err := retry.Do(ctx, pace, func() error { tries++; return nil }, func(error, time.Duration) { tries-- }); err != nil {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for a try that succeeds", n)
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if !retry.Sleep(ctx, 9*time.Second) || retry.Sleep(ctx, 2*time.Second) {
			t.Error("sleep and context have changed places")
		}
	})
}

func TestBell(t *testing.T) {
	t.Parallel()
	b := retry.NewBell()
	b.Ring()
	b.Ring()
	<-b
	select {
	case <-b:
		t.Error("heard twice")
	default:
	}
}
