package poolwatcher

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/btcsuite/btcd/txscript/v2"

	"btcpool/internal/bitcoin"
)

// Of a serialized coinbase: version, number of inputs and the null outpoint are
// before the length of the script.
const scriptAt = 4 + 1 + 36

var errNoHeight = errors.New("the coinbase does not begin with a height")

// coinbaseHeight returns the height that BIP 34 wants at the start of the
// coinbase's script, from the first part of a coinbase.
func coinbaseHeight(coinbase1 []byte) (int32, error) {
	if len(coinbase1) < scriptAt+2 || coinbase1[4] != 1 {
		return 0, errNoHeight
	}
	script := coinbase1[scriptAt+1:] // its length is below 100, one byte
	op, rest := script[0], script[1:]
	switch {
	case op >= txscript.OP_1 && op <= txscript.OP_16:
		return int32(op-txscript.OP_1) + 1, nil
	case op < 1 || op > 4 || len(rest) < int(op):
		return 0, errNoHeight
	}
	var number [4]byte
	copy(number[:], rest[:op])
	height := int32(binary.LittleEndian.Uint32(number[:]))
	if height < 0 || rest[op-1]&0x80 != 0 {
		return 0, fmt.Errorf("%w: it is negative", errNoHeight)
	}
	return height, nil
}

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
