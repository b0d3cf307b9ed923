package sserver

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"btcpool/internal/bus"
	"btcpool/internal/share"
)

// TestLastEvent has an event come right before the end, while who sends them looks whether there is one: it is sent.
func TestLastEvent(t *testing.T) {
	t.Parallel()
	for range 50_000 {
		q := newEventQueue(prometheus.NewCounter(prometheus.CounterOpts{Name: "dropped"}))
		ctx, end := context.WithCancel(t.Context())
		began, sent := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			close(began)
			_ = q.run(ctx, func(_ context.Context, batch []bus.Message) error {
				n += len(batch)
				return nil
			})
			sent <- n
		}()
		<-began
		q.add(share.Event{Action: share.MinerDead})
		end()
		if n := <-sent; n != 1 {
			t.Fatalf("%d events were sent", n)
		}
	}
}
