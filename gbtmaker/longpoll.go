package gbtmaker

import (
	"context"
	"errors"
	"time"

	"btcpool/internal/retry"
)

// longPollSpacing, from start to start, bounds what a node costs that answers long polls at once.
const longPollSpacing = 100 * time.Millisecond

// await returns the newest template of n as soon as want says yes to it, or ok = false when ctx ends.
func (s *Service) await(ctx context.Context, n *node, want func(*template) bool) (_ *template, ok bool) {
	for {
		s.mu.Lock()
		latest, changed := n.latest, n.changed
		s.mu.Unlock()
		if latest != nil && want(latest) {
			return latest, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// longPoll waits at n for a template better than its newest, over and over until ctx ends. After a failure it has the
// node looked at, and waits for a template that came some other way: the node works again then.
func (s *Service) longPoll(ctx context.Context, n *node) {
	var seen *template
	for {
		base, ok := s.await(ctx, n, func(t *template) bool { return t != seen && t.LongPollID != "" })
		if !ok {
			return
		}
		seen = base
		begin := time.Now()
		response, err := s.pollFrom(ctx, n, base)
		switch {
		case err == nil:
			select {
			case n.polled <- response:
			case <-ctx.Done():
			}
		case ctx.Err() == nil && !errors.Is(err, context.Canceled):
			n.log.Debug().Err(err).Msg("long poll failed")
			n.doubted.Ring()
		}
		retry.Sleep(ctx, time.Until(begin.Add(longPollSpacing)))
	}
}

// pollFrom does one long poll. It is given up when base turns out to be
// outdated: a node that has not answered by then may never do.
func (s *Service) pollFrom(ctx context.Context, n *node, base *template) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.await(ctx, n, func(t *template) bool { return t.PrevHash != base.PrevHash })
		cancel()
	}()
	defer func() { cancel(); <-watched }()
	return n.client.BlockTemplate(ctx, base.LongPollID, nil)
}
