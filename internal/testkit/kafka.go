package testkit

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

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

// DeleteTopic deletes a topic and returns when it is gone.
func DeleteTopic(tb testing.TB, cfg bus.Config, topic string) {
	tb.Helper()
	transport := &kafka.Transport{MetadataTTL: time.Millisecond}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: 10 * time.Second, Transport: transport}
	Until(tb, Patience, "topic "+topic+" is deleted", func(ctx context.Context) error { // brokers may just have started
		answer, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
		if err == nil {
			err = answer.Errors[topic]
		}
		return err
	})
	Eventually(tb, "the end of topic "+topic, func() bool {
		answer, err := client.Metadata(tb.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
		return err == nil && len(answer.Topics) == 1 && errors.Is(answer.Topics[0].Error, kafka.UnknownTopicOrPartition)
	})
}
