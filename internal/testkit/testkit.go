// Package testkit is what the tests of all packages share: waiting for a
// condition, golden files, metrics, an embedded broker, and the checks that a
// sample of a configuration is complete and an HTTP answer as described. Only tests
// import it.
package testkit

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
)

// Patience is how long Eventually waits: for busy machines, not for slow code.
const Patience = 30 * time.Second

// Eventually waits until met, which the test's own goroutine calls, returns
// true.
func Eventually(tb testing.TB, what string, met func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(Patience); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %s", what, Patience)
		}
	}
}

var update = flag.Bool("update", false, "rewrite golden files")

// Updating reports whether the test was asked to rewrite golden files.
func Updating() bool { return *update }

// Golden compares got with the file testdata/name; -update rewrites it.
func Golden(tb testing.TB, name string, got []byte) {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		tb.Errorf("%s (-golden +got):\n%s", name, diff)
	}
}

// Metric returns the value of a counter or gauge, or the number of a histogram's
// observations, added up over all that have the labels, given as name, value,
// name, value; 0 when there is none.
func Metric(tb testing.TB, reg prometheus.Gatherer, name string, labels ...string) float64 {
	tb.Helper()
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasLabels(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func hasLabels(m *dto.Metric, want []string) bool {
	for pair := range slices.Chunk(want, 2) {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
			return l.GetName() == pair[0] && l.GetValue() == pair[1]
		}) {
			return false
		}
	}
	return true
}

// Broker starts a broker with a folder of its own, which ends with the test, and
// returns what its clients are configured by.
func Broker(tb testing.TB) bus.Config {
	tb.Helper()
	broker, err := embedded.Start(tb.TempDir(), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := broker.Close(); err != nil {
			tb.Error(err)
		}
	})
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{broker.Addr()}
	return cfg
}
