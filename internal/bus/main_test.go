package bus_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startBroker(tb testing.TB, dir, addr string) *embedded.Broker {
	tb.Helper()
	b, err := embedded.Start(dir, addr, zerolog.New(zerolog.NewTestWriter(tb)).Level(zerolog.WarnLevel))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// newBus returns a client on a broker of its own.
func newBus(tb testing.TB, partitions int) (*bus.Client, bus.Config) {
	tb.Helper()
	cfg := testkit.Broker(tb)
	cfg.Partitions = partitions
	return testkit.Bus(tb, cfg), cfg
}

// restartable returns how to reach a broker that runs but between stop and start.
func restartable(tb testing.TB) (cfg bus.Config, stop, start func()) {
	tb.Helper()
	dir := tb.TempDir()
	b := startBroker(tb, dir, testkit.FreeAddr(tb))
	tb.Cleanup(func() { b.Close() })
	cfg = bus.DefaultConfig()
	cfg.Brokers = []string{b.Addr()}
	stop = func() { must(tb, b.Close()) }
	start = func() { b = startBroker(tb, dir, cfg.Brokers[0]) }
	return cfg, stop, start
}

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), testkit.Patience)
	tb.Cleanup(cancel)
	return ctx
}

func numbered(from, to int) []bus.Message {
	var msgs []bus.Message
	for i := from; i < to; i++ {
		msgs = append(msgs, bus.Message{Value: fmt.Appendf(nil, "%d", i)})
	}
	return msgs
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
