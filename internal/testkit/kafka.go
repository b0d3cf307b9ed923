package testkit

import (
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/telemetry"
)

// Broker starts a broker with a folder of its own, which ends with the test, and returns what its clients are
// configured by.
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

// Bus returns a client, which ends with the test, after it has made the topics.
func Bus(tb testing.TB, cfg bus.Config, topics ...string) *bus.Client {
	tb.Helper()
	client, err := bus.New(cfg, telemetry.Deps{Log: zerolog.Nop()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { client.Close() })
	if err := client.EnsureTopics(tb.Context(), topics...); err != nil {
		tb.Fatal(err)
	}
	return client
}
