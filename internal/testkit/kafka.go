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
	administer(tb, cfg, "topic "+topic+" is gone", func(ctx context.Context, client *kafka.Client) error {
		answer, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
		if err != nil || errors.Is(answer.Errors[topic], kafka.UnknownTopicOrPartition) {
			return err
		}
		return errors.Join(answer.Errors[topic], errors.New("not gone yet"))
	})
}

// AddPartitions has a topic have so many partitions.
func AddPartitions(tb testing.TB, cfg bus.Config, topic string, count int) {
	tb.Helper()
	administer(tb, cfg, "partitions of "+topic, func(ctx context.Context, client *kafka.Client) error {
		answer, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err == nil && len(answer.Topics) == 1 && len(answer.Topics[0].Partitions) == count {
			return nil
		}
		if err == nil {
			_, err = client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
				Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: int32(count)}},
			})
		}
		return errors.Join(err, errors.New("not there yet"))
	})
}

// administer tries until what is to be done is done: brokers may just have started.
func administer(tb testing.TB, cfg bus.Config, what string, do func(context.Context, *kafka.Client) error) {
	tb.Helper()
	transport := &kafka.Transport{MetadataTTL: time.Millisecond}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: 10 * time.Second, Transport: transport}
	Until(tb, Patience, what, func(ctx context.Context) error { return do(ctx, client) })
}
