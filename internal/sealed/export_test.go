package sealed

import (
	"context"

	"btcpool/internal/sharefile"
)

// SealInRuns seals a day in small runs, which are merged in several rounds.
func SealInRuns(ctx context.Context, dir, chain string, day sharefile.Day) (*Footer, error) {
	return sealWithin(ctx, dir, chain, day, limits{rows: 100, runs: 3})
}

// ParseFooter is for fuzzing.
var ParseFooter = parseFooter

// Encode is ParseFooter's reverse.
func (f *Footer) Encode() (string, error) { return f.encode() }
