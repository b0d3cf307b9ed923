package sserver

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bus"
	"btcpool/internal/share"
)

const (
	maxEvents  = 50_000 // that wait for Kafka; about 10 MB of memory
	eventBatch = 1000
	// eventGrace is what the last events get to reach Kafka.
	eventGrace = 3 * time.Second
)

// eventQueue holds the comings and goings of miners until Kafka takes them. They are news, not accounts: when the queue
// is full the oldest is dropped.
type eventQueue struct {
	events  chan share.Event
	dropped prometheus.Counter
}

func newEventQueue(dropped prometheus.Counter) *eventQueue {
	return &eventQueue{events: make(chan share.Event, maxEvents), dropped: dropped}
}

// add does not block.
func (q *eventQueue) add(e share.Event) {
	for {
		select {
		case q.events <- e:
			return
		default:
		}
		select {
		case <-q.events:
			q.dropped.Inc()
		default:
		}
	}
}

// run sends what is added until ctx ends, and then for a moment what is left.
func (q *eventQueue) run(ctx context.Context, send func(context.Context, []bus.Message) error) error {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(eventGrace, cancel) })()
	for {
		var first share.Event
		select {
		case first = <-q.events:
		case <-ctx.Done():
			select {
			case first = <-q.events:
			default:
				return nil
			}
		}
		batch := q.batch(first)
		if err := send(late, batch); err != nil {
			if late.Err() == nil {
				return err
			}
			q.dropped.Add(float64(len(batch) + len(q.events)))
			return nil
		}
	}
}

// batch returns first and what else is waiting, up to eventBatch.
func (q *eventQueue) batch(first share.Event) []bus.Message {
	batch := []bus.Message{{Value: first.AppendTo(nil)}}
	for len(batch) < eventBatch && len(q.events) > 0 {
		e := <-q.events
		batch = append(batch, bus.Message{Value: e.AppendTo(nil)})
	}
	return batch
}
