package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"btcpool/internal/retry"
)

// pace is that of tries against brokers that are away.
var pace = retry.Pace{First: 10 * time.Millisecond, Longest: time.Second}

// logInterval is the least time between two lines about the same failure.
const logInterval = 10 * time.Second

// retry calls f until it returns nil or an error that will stay, or ctx ends. It returns that error, or nil, or ctx's.
func (c *Client) retry(ctx context.Context, what, topic string, f func(context.Context) error) error {
	attempts := 0
	var told time.Time // when a failure was logged last
	err := retry.Do(ctx, pace, func() error {
		attempts++
		err := f(ctx)
		if err != nil && ctx.Err() == nil && permanent(err) {
			err = retry.Enough(fmt.Errorf("%s %s: %w", what, topic, err))
		}
		return err
	}, func(err error, _ time.Duration) {
		// The first attempt after a broker's restart always meets a dead connection.
		if now := time.Now(); attempts > 1 && now.Sub(told) >= logInterval {
			told = now
			c.log.Warn().Err(c.explained(err)).Str("topic", topic).Int("attempts", attempts).Msg(what + ": will try again")
		}
	})
	if err == nil && !told.IsZero() {
		c.log.Info().Str("topic", topic).Int("attempts", attempts).Msg(what + ": succeeded")
	}
	return err
}

// permanent tells errors that no repetition will mend from those of brokers that are away, busy or still joining their
// cluster.
func permanent(err error) bool {
	if _, ok := errors.AsType[*limitError](err); ok {
		return true
	}
	code, ok := errors.AsType[kafka.Error](err)
	if !ok || code == kafka.Unknown || code.Temporary() || code.Timeout() {
		return false
	}
	switch code {
	case kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.OffsetOutOfRange,
		kafka.InvalidReplicationFactor: // fewer brokers than replicas, so far
		return false
	}
	return true
}
