package poolwatcher

import (
	"encoding/json"
	"fmt"
	"time"

	"btcpool/internal/bitcoin"
)

// emptyTemplate returns the answer to getblocktemplate of a node that has just
// seen that block and knows no transactions. Its time is not below the
// pool's, whose node knows what the chain demands.
func emptyTemplate(network bitcoin.Network, seen sighting, now time.Time) ([]byte, error) {
	curTime := max(now.Unix(), int64(seen.time))
	type result struct {
		Version       int32      `json:"version"`
		PrevHash      string     `json:"previousblockhash"`
		Transactions  []struct{} `json:"transactions"`
		CoinbaseValue int64      `json:"coinbasevalue"`
		MinTime       int64      `json:"mintime"`
		CurTime       int64      `json:"curtime"`
		Bits          string     `json:"bits"`
		Height        int32      `json:"height"`
	}
	return json.Marshal(struct {
		Result result  `json:"result"`
		Error  *string `json:"error"`
		ID     string  `json:"id"`
	}{Result: result{
		Version:       seen.own.Version,
		PrevHash:      seen.prevHash.String(),
		Transactions:  []struct{}{},
		CoinbaseValue: network.Subsidy(seen.height),
		MinTime:       curTime,
		CurTime:       curTime,
		Bits:          fmt.Sprintf("%08x", seen.bits),
		Height:        seen.height,
	}, ID: "1"})
}
