package userchain

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
)

// Shares says which part of the users in auto mode mines which chain, by numbers that add up to 1.
type Shares map[string]float64

// Check says what is wrong with shares.
func (s Shares) Check() error {
	if len(s) == 0 || len(s) > maxPUIDs {
		return fmt.Errorf("%d chains", len(s))
	}
	sum := 0.0
	for chain, part := range s {
		if err := CheckChain(chain); err != nil {
			return fmt.Errorf("chain %.40q: %w", chain, err)
		}
		if !(part >= 0 && part <= 1) || chain == Auto {
			return fmt.Errorf("chain %s has a share of %v", chain, part)
		}
		sum += part
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("the shares add up to %v", sum)
	}
	return nil
}

// Of returns the chain of a user in auto mode. It is the same wherever it is asked, and when a share grows by some
// part, that part of the users goes there and nobody else goes anywhere: each chain draws a lot for the user, weighted
// by its share, and the best wins (weighted rendezvous hashing).
func (s Shares) Of(user string) (chain string) {
	best := math.Inf(-1)
	for _, c := range slices.Sorted(maps.Keys(s)) {
		if s[c] <= 0 {
			continue
		}
		if lot := s[c] / -math.Log(draw(user, c)); lot > best {
			best, chain = lot, c
		}
	}
	return chain
}

// draw returns a number between 0 and 1, without either, which user and chain make.
func draw(user, chain string) float64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(user + "\x00" + chain))
	x := h.Sum64()
	x ^= x >> 33 // the finish of MurmurHash3: FNV alone leaves the high bits of like names alike
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return (float64(x>>11) + 0.5) / (1 << 53)
}

// Largest returns the chain that most users mine.
func (s Shares) Largest() (chain string) {
	for _, c := range slices.Sorted(maps.Keys(s)) {
		if chain == "" || s[c] > s[chain] {
			chain = c
		}
	}
	return chain
}
