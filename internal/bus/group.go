package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
)

// groupWait is how long a fetch may wait for a message to come. The library
// gives up a connection whose broker answers less than a second late if this is
// 2 s, and a quarter of it if it is less: too soon on a busy machine.
const groupWait = 2 * time.Second

// ReadGroup calls handle for each message of topic that no member of the
// consumer group has handled yet, and commits the message when handle returned
// nil. A group without commits starts at the earliest message. ReadGroup
// returns handle's error at once, and nil when ctx ends.
func (c *Client) ReadGroup(ctx context.Context, topic, group string, handle func(ctx context.Context, m Message) error) error {
	log := c.log.With().Str("topic", topic).Str("group", group).Logger()
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers:               c.cfg.Brokers,
		Dialer:                &kafka.Dialer{ClientID: "btcpool", Timeout: 5 * time.Second, KeepAlive: 15 * time.Second},
		GroupID:               group,
		Topic:                 topic,
		StartOffset:           kafka.FirstOffset,
		MinBytes:              1,
		MaxBytes:              fetchBytes,
		MaxWait:               groupWait,
		ReadBackoffMin:        10 * time.Millisecond,
		ReadBackoffMax:        time.Second,
		SessionTimeout:        10 * time.Second, // how long a killed member keeps its partitions
		RebalanceTimeout:      10 * time.Second,
		JoinGroupBackoff:      time.Second,
		WatchPartitionChanges: true,
		Logger:                Logger(log, zerolog.DebugLevel),
		ErrorLogger:           Logger(log, zerolog.WarnLevel),
	})
	defer func() { _ = r.Close() }() // it always returns nil

	pause := newBackoff()
	for {
		m, err := r.FetchMessage(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			c.metrics.readErrors.WithLabelValues(topic).Inc()
			if pause.worthALine() {
				log.Warn().Err(err).Msg("read from topic: will try again")
			}
			pause.wait(ctx)
			continue
		}
		pause = newBackoff()
		if err := handle(ctx, Message{Partition: m.Partition, Offset: m.Offset, Time: m.Time, Key: m.Key, Value: m.Value}); err != nil {
			return unlessEnded(ctx, err)
		}
		c.metrics.readMessages.WithLabelValues(topic).Inc()
		c.metrics.readBytes.WithLabelValues(topic).Add(float64(len(m.Key) + len(m.Value)))
		// A commit that does not succeed only means that the message comes
		// again, so it does not stop us.
		if err := r.CommitMessages(ctx, m); err != nil && !errors.Is(err, context.Canceled) {
			log.Warn().Err(err).Msg("offset not committed")
		}
	}
}

// Logger returns a logger for the Kafka library that writes to log.
func Logger(log zerolog.Logger, level zerolog.Level) kafka.LoggerFunc {
	return func(format string, args ...any) {
		log.WithLevel(level).Msg(strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}
