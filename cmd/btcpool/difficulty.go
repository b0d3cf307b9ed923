package main

import (
	"runtime"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/miner"
)

const (
	// blockTime is what a block of the embedded chain takes this machine's miner on average, with nothing else to do.
	// Beside the pool it is somewhat more. No block for 30 s has the probability e^(-30/4), 1 in 1,800.
	blockTime = 4 * time.Second
	// measureFor is how long the speed is measured when a chain begins.
	measureFor = 250 * time.Millisecond
)

// sharesOf is the difficulty of first shares on a chain of bits: several shares a block.
func sharesOf(bits uint32) float64 {
	const sharesPerBlock = 8
	target, err := bitcoin.TargetFromBits(bits)
	if err != nil {
		return 1 // regnode does not take such bits
	}
	return target.Difficulty() / sharesPerBlock
}

// bits is the target of the embedded chain: as configured, of the chain that is there, or by the speed of this machine.
func (c Config) bits() uint32 {
	if c.chainBits != 0 {
		return c.chainBits
	}
	if bits, ok := regnode.ChainBits(c.path("chain")); ok {
		return bits
	}
	threads := c.Threads
	if threads < 1 {
		threads = runtime.NumCPU()
	}
	return regnode.BitsFor(miner.Speed(threads, measureFor) * blockTime.Seconds())
}
