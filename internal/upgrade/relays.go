package upgrade

import (
	"context"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// relayFor is how long connections are relayed at most.
const relayFor = 24 * time.Hour

// Relays are connections that a new process serves by way of the old one, as those that have TLS. The zero value has none.
type Relays struct {
	mu    sync.Mutex
	stops []func()
}

// Add has a connection ended by stop when its time is over; nil: it is not relayed.
func (r *Relays) Add(stop func()) {
	if stop == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stops = append(r.stops, stop)
}

// Wait returns when all goroutines, which relay, have ended. When ctx does, or after a day, it ends the connections.
func (r *Relays) Wait(ctx context.Context, goroutines *sync.WaitGroup, log zerolog.Logger) {
	r.mu.Lock()
	stops := slices.Clone(r.stops)
	r.mu.Unlock()
	if len(stops) > 0 {
		log.Info().Int("connections", len(stops)).Msg("relaying TLS connections to the process that serves them")
		debug.FreeOSMemory() // what has passed needs none here
	}
	ctx, cancel := context.WithTimeout(ctx, relayFor)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		for _, stop := range stops {
			stop()
		}
	})()
	goroutines.Wait()
}
