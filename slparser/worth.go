package slparser

import (
	"math"
	"math/big"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
)

// scoreOne is the score of a share that is worth a block.
var scoreOne = new(big.Int).Exp(big.NewInt(10), big.NewInt(25), nil)

// worth is what an accepted share is worth, both in units of 10^-25.
type worth struct{ score, earn sum }

func (w *worth) times(n uint64) worth {
	if n == 1 {
		return *w
	}
	return worth{w.score.times(n), w.earn.times(n)}
}

// worths keeps what shares of a day's blocks are worth, for each difficulty: who reads a sealed day comes by all of them
// with each worker.
type worths struct {
	earnings Earnings
	network  bitcoin.Network
	slots    [difficulties]*[heightsKept]slot // nil: no share has this difficulty
}

type slot struct {
	worth
	bits, height uint32
	known        bool
}

const (
	heightsKept  = 256
	difficulties = int(bitcoin.MaxDifficulty) - int(bitcoin.MinDifficulty) + 1
)

func (w *worths) of(c *credit) *worth {
	slots := &w.slots[int(c.difficulty)-int(bitcoin.MinDifficulty)]
	if *slots == nil {
		*slots = new([heightsKept]slot)
	}
	slot := &(*slots)[c.height%heightsKept]
	if !slot.known || slot.bits != c.bits || slot.height != c.height {
		score := score(c.bits, c.difficulty)
		slot.score = sumOf(score)
		slot.earn = sumOf(score.Mul(score, big.NewInt(w.earnings.reward(w.network, c.height))))
		slot.bits, slot.height, slot.known = c.bits, c.height, true
	}
	return &slot.worth
}

// Earnings says what miners are credited with of a block, besides its subsidy.
type Earnings struct {
	// BlockFeesSat is what a block is counted with in transaction fees, in satoshi; 0, as in btcpool, by default.
	BlockFeesSat int64 `toml:"block_fees_sat"`
	// PoolFeePercent is the part of it all that the pool keeps, in percent to four decimals; 0, as in btcpool, by default.
	PoolFeePercent float64 `toml:"pool_fee_percent"`
}

const (
	million       = 1_000_000
	mostBlockFees = 1_000_000_000_000 // satoshi: with any subsidy, and times a million, it fits an int64
)

// Validate reports all faults.
func (e Earnings) Validate() error {
	var faults config.Faults
	if e.BlockFeesSat < 0 || e.BlockFeesSat > mostBlockFees {
		faults.Addf("block_fees_sat = %d: must be 0 to %d", e.BlockFeesSat, int64(mostBlockFees))
	}
	if !(e.PoolFeePercent >= 0 && e.PoolFeePercent <= 100) {
		faults.Addf("pool_fee_percent = %v: must be 0 to 100", e.PoolFeePercent)
	}
	return faults.Err()
}

// reward is what miners get for the block at a height, in whole satoshi.
func (e Earnings) reward(network bitcoin.Network, height uint32) int64 {
	kept := int64(math.Round(e.PoolFeePercent * (million / 100)))
	return (network.Subsidy(int32(min(height, math.MaxInt32))) + e.BlockFeesSat) * (million - kept) / million
}

// score is the part of a block that a share is: its difficulty by the network's, at most 1, in units of 10^-25, rounded
// down. It is 0 when bits are no target.
func score(bits uint32, difficulty bitcoin.Difficulty) *big.Int {
	target, err := bitcoin.TargetFromBits(bits)
	if err != nil {
		return new(big.Int)
	}
	// difficulty / (difficulty1 / target), and difficulty1 is 0xffff·2^208.
	var bigEndian [len(target)]byte
	for i, b := range target {
		bigEndian[len(target)-1-i] = b
	}
	n := new(big.Int).SetBytes(bigEndian[:])
	n.Mul(n, scoreOne)
	one := new(big.Int).Lsh(big.NewInt(0xffff), 208)
	if difficulty >= 0 {
		n.Lsh(n, uint(difficulty))
	} else {
		one.Lsh(one, uint(-difficulty))
	}
	if n.Div(n, one); n.Cmp(scoreOne) > 0 {
		return n.Set(scoreOne)
	}
	return n
}
