// Package retry is how everything here tries again and waits: pauses that grow, and that end with the context.
package retry

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Pace says how long the pauses between tries are: First, then twice as long each time, up to Longest.
type Pace struct{ First, Longest time.Duration }

// Pauses returns the pauses one after the other: NextBackOff is the next one, Reset begins anew.
func (p Pace) Pauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: p.First, Multiplier: 2, MaxInterval: p.Longest}
}

// Do calls try until it returns nil, or an error that Enough has made, or ctx ends; it returns that error, or ctx's.
// After each other failure it calls failed, which may be nil, and pauses. Unlike backoff.Retry it does not allocate: it
// stands around requests most of which succeed at once.
func Do(ctx context.Context, pace Pace, try func() error, failed func(err error, pause time.Duration)) error {
	for pauses := pace.Pauses(); ; {
		err := try()
		if err == nil {
			return nil
		}
		if enough := (*backoff.PermanentError)(nil); errors.As(err, &enough) {
			return enough.Unwrap()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause := pauses.NextBackOff()
		if failed != nil {
			failed(err, pause)
		}
		if !Sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// Enough marks an error that another try would not mend.
func Enough(err error) error { return backoff.Permanent(err) }

// Sleep waits for d, or until ctx ends: false.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// A Bell wakes one receiver. Rung several times before it is heard, it is heard once.
type Bell chan struct{}

// NewBell returns a bell that has not been rung.
func NewBell() Bell { return make(Bell, 1) }

// Ring does not block.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
