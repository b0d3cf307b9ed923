// Package testkit is what the tests of all packages share: running what is tested, waiting for a condition, golden
// files, metrics, an embedded broker, and the checks that a sample of a configuration is complete and an HTTP answer as
// described. Only tests import it.
package testkit

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for what is to happen, or goes on with what it does until it has happened, before
// it says that it does not: for machines that do much else, not for slow code. Waiting longer costs nothing when it
// happens.
const Patience = 2 * time.Minute

// Eventually waits until met, which the test's own goroutine calls, returns true.
func Eventually(tb testing.TB, what string, met func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(Patience); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %s", what, Patience)
		}
	}
}

// Until waits at most limit until check, which is asked twenty times a second, returns nil. If it does not, the test
// fails with what check said last before its context ended.
func Until(tb testing.TB, limit time.Duration, what string, check func(ctx context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("never asked")
	for {
		if err := check(ctx); err == nil {
			return
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("%s: not within %s: %v", what, limit, last)
		case <-tick.C:
		}
	}
}

// Run runs f until stop is called or the test ends. stop waits for f, which must return nil; calling it again does
// nothing.
func Run(tb testing.TB, f func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	return stop
}
