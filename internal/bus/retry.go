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

// retry calls f until it returns nil or an error that will stay, or ctx ends.
// It returns that error, or nil, or ctx's. It is retry.Do without allocations:
// most calls succeed at once.
func (c *Client) retry(ctx context.Context, what, topic string, f func(context.Context) error) error {
	pauses := pace.Pauses()
	var told time.Time // when a failure was logged last
	for attempts := 1; ; attempts++ {
		err := f(ctx)
		switch {
		case err == nil:
			if !told.IsZero() {
				c.log.Info().Str("topic", topic).Int("attempts", attempts).Msg(what + ": succeeded")
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case permanent(err):
			return fmt.Errorf("%s %s: %w", what, topic, err)
		}
		// The first attempt after a broker's restart always meets a dead connection.
		if now := time.Now(); attempts > 1 && now.Sub(told) >= logInterval {
			told = now
			c.log.Warn().Err(err).Str("topic", topic).Int("attempts", attempts).Msg(what + ": will try again")
		}
		if !retry.Sleep(ctx, pauses.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// permanent tells errors that no repetition will mend from those of brokers
// that are away, busy or still joining their cluster.
func permanent(err error) bool {
	var limit *limitError
	if errors.As(err, &limit) {
		return true
	}
	var code kafka.Error
	if !errors.As(err, &code) || code == kafka.Unknown || code.Temporary() || code.Timeout() {
		return false
	}
	switch code {
	case kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.OffsetOutOfRange,
		kafka.InvalidReplicationFactor: // fewer brokers than replicas, so far
		return false
	}
	return true
}
