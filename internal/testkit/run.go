package testkit

import (
	"context"
	"testing"
)

// Run runs f until the test ends, where f must return nil.
func Run(tb testing.TB, f func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
}
