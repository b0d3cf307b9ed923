package miner

import (
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/bitcoin"
)

// Speed hashes with so many threads for the duration, and returns the hashes a second of all together.
func Speed(threads int, d time.Duration) float64 {
	const batch = 4096
	var (
		done    atomic.Int64
		workers sync.WaitGroup
		begin   = time.Now()
	)
	for range threads {
		workers.Go(func() {
			h := newHasher()
			h.reset(new([headerSize]byte))
			for time.Since(begin) < d {
				h.scan(0, batch, new(bitcoin.Target)) // which no hash meets
				done.Add(batch)
			}
		})
	}
	workers.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds()
}
