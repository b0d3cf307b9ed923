package bitcoin

import "time"

// MaxFutureBlockTime is how far ahead of a node's clock the time of a block may
// be (MAX_FUTURE_BLOCK_TIME in Bitcoin Core's src/chain.h).
const MaxFutureBlockTime = 2 * time.Hour

// RetargetInterval is the number of blocks that have the same difficulty, of
// every network that changes it; the first has a height that is a multiple
// (DifficultyAdjustmentInterval in Bitcoin Core's src/consensus/params.h).
const RetargetInterval = 2016
