package notify

import (
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/telemetry"
)

// BenchmarkLook judges 100,000 workers that work.
func BenchmarkLook(b *testing.B) {
	benchmarkLook(b, func(now time.Time, sight *Sight) { sight.Last = now.Unix() })
}

// BenchmarkLookSilent judges as many of which all are silent, and have been told so.
func BenchmarkLookSilent(b *testing.B) {
	benchmarkLook(b, func(time.Time, *Sight) {})
}

func benchmarkLook(b *testing.B, see func(now time.Time, sight *Sight)) {
	n, err := New(testConfig(b.TempDir()), telemetry.Deps{Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	now := noon
	sights := make([]Sight, 100_000)
	for i := range sights {
		sights[i] = worker(i+1, now)
	}
	look := func() {
		for i := range sights {
			see(now, &sights[i])
		}
		n.Look(now, slices.Values(sights))
		now = now.Add(Interval)
	}
	for range 50 { // 12 minutes
		look()
	}
	b.ReportAllocs()
	for b.Loop() {
		look()
	}
}
