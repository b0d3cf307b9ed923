package poolwatcher

import (
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/job"
)

// emptyTemplate returns the answer to getblocktemplate of a node that has just seen that block and knows no
// transactions. Its time is not below the pool's, whose node knows what the chain demands.
func emptyTemplate(network bitcoin.Network, seen sighting, now time.Time) []byte {
	curTime := max(uint32(now.Unix()), seen.time)
	return job.EmptyResponse(&job.Template{
		Height: seen.height, PrevHash: seen.prevHash, Bits: seen.bits, Version: seen.own.Version,
		CurTime: curTime, MinTime: curTime, CoinbaseValue: network.Subsidy(seen.height),
	})
}
