package sealed

import (
	"context"

	"btcpool/internal/sharefile"
)

// SealInRuns seals a day in small runs, which are merged in several rounds, and small row groups.
func SealInRuns(ctx context.Context, dir, chain string, day sharefile.Day) (*Footer, error) {
	return sealWithin(ctx, dir, chain, day, limits{rows: 100, runs: 3, group: 300})
}

// SealSparing seals a day if that leaves so many bytes of disk.
func SealSparing(ctx context.Context, dir, chain string, day sharefile.Day, spare uint64) (*Footer, error) {
	return sealWithin(ctx, dir, chain, day, limits{rows: 100, runs: 3, group: 300, spare: spare})
}

// ParseFooter is for fuzzing.
var ParseFooter = parseFooter

// Encode is ParseFooter's reverse.
func (f *Footer) Encode() (string, error) { return f.encode() }
