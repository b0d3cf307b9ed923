package notify

import (
	"context"
	"errors"
	"time"
)

const (
	sendTimeout  = 30 * time.Second
	firstRetry   = 30 * time.Second
	longestRetry = time.Hour
	giveUpAfter  = 24 * time.Hour
)

func sendInTime(ctx context.Context, s sender, m *Message) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return s.send(ctx, m)
}

// deliver sends what is for t until ctx ends.
func (n *Notifier) deliver(ctx context.Context, t *target) {
	for ctx.Err() == nil {
		q, wait := n.due(t)
		if q == nil {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-t.bell:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		err := sendInTime(ctx, t.sender, q.Message)
		if err != nil && ctx.Err() != nil {
			return // it goes on with the next start
		}
		n.sent(t, q, err)
	}
}

// due returns the message for t that is to be sent now, or nil and how long none is. Nothing is sent that is not on disk.
func (n *Notifier) due(t *target) (q *queued, wait time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.write(); n.state.dirty {
		return nil, firstRetry
	}
	wait = longestRetry
	now := time.Now()
	for _, q := range n.state.Queue {
		if q.Target != t.Name {
			continue
		}
		left := time.Unix(q.Next, 0).Sub(now)
		if left <= 0 {
			return q, 0
		}
		wait = min(wait, left)
	}
	return nil, wait
}

// sent takes note of what became of a try.
func (n *Notifier) sent(t *target, q *queued, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.failing.Set(err)
	now := time.Now()
	switch {
	case err == nil:
		n.metrics.messages.WithLabelValues(string(t.Kind), "sent").Inc()
		n.log.Info().Str("target", t.Name).Str("id", q.Message.ID).Str("event", string(q.Message.Type)).Msg("notification sent")
		n.state.drop(q)
	case now.Sub(q.Message.Time) > giveUpAfter:
		n.metrics.messages.WithLabelValues(string(t.Kind), "dropped").Inc()
		n.log.Error().Err(err).Str("target", t.Name).Str("id", q.Message.ID).Str("event", string(q.Message.Type)).
			Msg("notification given up: it could not be sent for a day")
		n.state.drop(q)
	default:
		n.metrics.messages.WithLabelValues(string(t.Kind), "failed").Inc()
		q.Tries++
		pause := firstRetry << min(q.Tries-1, 10)
		if r, ok := errors.AsType[*refusal](err); ok {
			pause = max(pause, r.after)
		}
		q.Next = now.Add(min(pause, longestRetry)).Unix()
		n.state.dirty = true
	}
	n.write()
}
