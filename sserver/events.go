package sserver

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bus"
	"btcpool/internal/share"
)

const (
	// maxEvents is how many wait for Kafka, at 200 bytes of memory each: of three full agents that end and come back.
	maxEvents  = 400_000
	eventBatch = 1000
	// eventGrace is what the last events get to reach Kafka.
	eventGrace = 3 * time.Second
)

// eventQueue holds the comings and goings of miners until Kafka takes them. They are news, not accounts: when the queue
// is full the oldest is dropped.
type eventQueue struct {
	mu      sync.Mutex
	waiting []share.Event
	added   chan struct{} // holds one when some may be waiting
	dropped prometheus.Counter
}

func newEventQueue(dropped prometheus.Counter) *eventQueue {
	return &eventQueue{added: make(chan struct{}, 1), dropped: dropped}
}

// add does not block.
func (q *eventQueue) add(e share.Event) {
	q.mu.Lock()
	if len(q.waiting) == maxEvents {
		q.waiting = q.waiting[1:]
		q.dropped.Inc()
	}
	q.waiting = append(q.waiting, e)
	q.mu.Unlock()
	select {
	case q.added <- struct{}{}:
	default:
	}
}

// run sends what is added until ctx ends, and then for a moment what is left.
func (q *eventQueue) run(ctx context.Context, send func(context.Context, []bus.Message) error) error {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(eventGrace, cancel) })()
	for {
		ended := ctx.Err() != nil // what was added before that is among what is taken
		batch, left := q.take()
		if len(batch) == 0 {
			if ended {
				return nil
			}
			select {
			case <-q.added:
			case <-ctx.Done():
			}
			continue
		}
		if err := send(late, batch); err != nil {
			if late.Err() == nil {
				return err
			}
			q.dropped.Add(float64(len(batch) + left))
			return nil
		}
	}
}

// take returns the oldest that are waiting, up to eventBatch, and how many are left.
func (q *eventQueue) take() (batch []bus.Message, left int) {
	q.mu.Lock()
	oldest := q.waiting[:min(len(q.waiting), eventBatch)]
	q.waiting = q.waiting[len(oldest):]
	if left = len(q.waiting); left == 0 {
		q.waiting = nil
	}
	q.mu.Unlock()
	for _, e := range oldest {
		batch = append(batch, bus.Message{Value: e.AppendTo(nil)})
	}
	return batch, left
}
