package gbtmaker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"

	"btcpool/internal/job"
	"btcpool/internal/retry"
)

// TestHold has something happen 50 ms after the light form of a template was sent.
func TestHold(t *testing.T) {
	t.Parallel()
	const wholeAfter, early = 150 * time.Millisecond, 50 * time.Millisecond
	of := func(block byte, transactions int) *template {
		return &template{Template: &job.Template{PrevHash: chainhash.Hash{block}, Transactions: transactions}}
	}
	for name, tt := range map[string]struct {
		sent       *template
		wholeAfter time.Duration
		next       *template // is chosen then
		stop       bool      // comes then
		want       time.Duration
	}{
		"nothing":           {of(1, 1), wholeAfter, nil, false, wholeAfter},
		"the same block":    {of(1, 1), wholeAfter, of(1, 2), false, wholeAfter},
		"another block":     {of(1, 1), wholeAfter, of(2, 1), false, early},
		"an empty template": {of(1, 1), wholeAfter, of(2, 0), false, early},
		"the end":           {of(1, 1), wholeAfter, nil, true, early},
		"after an empty":    {of(1, 0), wholeAfter, nil, false, 0},
		"not wanted":        {of(1, 1), 0, nil, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				outbox, err := openOutbox(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer outbox.close()
				s := &Service{log: zerolog.Nop(), wholeAfter: tt.wholeAfter, outbox: outbox, queue: retry.NewBell(), chosen: tt.sent}
				time.AfterFunc(early, func() {
					if tt.stop {
						cancel()
					}
					if tt.next != nil {
						s.mu.Lock()
						s.chosen = tt.next
						s.mu.Unlock()
						s.queue.Ring()
					}
				})
				begin := time.Now()
				s.hold(ctx, tt.sent)
				if took := time.Since(begin); took != tt.want {
					t.Errorf("took %s, want %s", took, tt.want)
				}
				if rung := len(s.queue) == 1; rung != (tt.next != nil) {
					t.Errorf("write hears of what is new: %v", rung)
				}
			})
		})
	}
}
