package gbtmaker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/retry"
)

const (
	// writeTimeout is how long a template may take before Ready says that Kafka is away; writing goes on.
	writeTimeout = 10 * time.Second
	// lastWrite is how long the rest of a template may take that gbtmaker was stopped over.
	lastWrite = 5 * time.Second
	// writeRetry is the pause after an error that is Kafka's last word.
	writeRetry = time.Second
)

// write writes what is chosen until ctx ends.
func (s *Service) write(ctx context.Context) error {
	if err := s.bus.EnsureTopics(ctx, s.topic, s.light); err != nil || ctx.Err() != nil {
		return err
	}
	s.kafka.Set(nil)
	if err := s.sendKept(ctx); err != nil {
		return err
	}
	var last *template
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.queue:
		}
		s.mu.Lock()
		t := s.chosen
		s.mu.Unlock()
		if t == last { // the bell rang between its choice and its writing
			continue
		}
		err := s.deliver(ctx, t, last)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			s.wrote(t, last)
			last = t
		default:
			s.metrics.failures.WithLabelValues("kafka").Inc()
			if !retry.Sleep(ctx, writeRetry) {
				return nil
			}
			s.queue.Ring()
		}
	}
}

// sendKept writes the template that an earlier process was killed over.
func (s *Service) sendKept(ctx context.Context) error {
	raw, ok, err := s.outbox.kept()
	if err != nil {
		s.log.Error().Err(err).Msg("cannot read the template that an earlier process may not have sent")
		return nil
	}
	if !ok {
		return nil
	}
	if err := s.bus.Write(ctx, s.topic, bus.Message{Value: raw.AppendTo(nil)}); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.log.Info().Str("gbthash", raw.Hash).Msg("template sent that an earlier process had not sent")
	return s.outbox.clear()
}

// deliver writes t, which comes after last: what jobs need of it, and then all of it. It tries to however long Kafka is
// away and whatever is chosen meanwhile: there may be jobs of its light form, and a block found on one needs the rest.
// Its error is ctx's, or one that no repetition mends.
func (s *Service) deliver(ctx context.Context, t, last *template) error {
	err := s.outbox.fill(t.answer.text) // while it gets its name
	raw := t.raw()
	if err == nil {
		err = s.outbox.seal(raw)
	}
	if err != nil {
		s.log.Error().Err(err).Msg("template is being sent without a copy on disk")
	}
	light := job.LightGBT{CreatedAt: raw.CreatedAt, Hash: raw.Hash, Left: raw.Left, Work: raw.Work, Template: t.Template}
	if err := s.send(ctx, s.light, light.AppendTo(nil)); err != nil && ctx.Err() == nil {
		return err
	}
	s.metrics.writeSeconds.Observe(time.Since(t.received).Seconds())
	if news(t, last) {
		s.hold(ctx, t)
	}
	if ctx.Err() != nil { // who stops does not leave the rest to the next start
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
		defer cancel()
	}
	if err := s.send(ctx, s.topic, raw.AppendTo(nil)); err != nil {
		return err
	}
	if err := s.outbox.clear(); err != nil {
		s.log.Error().Err(err).Msg("copy of a sent template not removed: the next start sends it once more")
	}
	return nil
}

// send writes a message to a topic, however long that takes; Ready says so meanwhile.
func (s *Service) send(ctx context.Context, topic string, message []byte) error {
	for {
		err := s.trySend(ctx, topic, message)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.kafka.Set(err)
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		s.metrics.failures.WithLabelValues("kafka").Inc()
	}
}

func (s *Service) trySend(ctx context.Context, topic string, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.bus.Write(ctx, topic, bus.Message{Value: message}); err != nil {
		return fmt.Errorf("template not written, is Kafka running? %w", err)
	}
	return nil
}

// news reports whether all miners are given a job of t at once when the last one was of last.
func news(t, last *template) bool {
	return last == nil || t.PrevHash != last.PrevHash || t.Bits != last.Bits || last.Empty() && !t.Empty()
}

// hold has the whole of t wait while miners are being told of it: the megabytes would take the processor from who tells
// them. It is over when there is something else to tell them.
func (s *Service) hold(ctx context.Context, t *template) {
	if s.wholeAfter == 0 || t.Empty() {
		return
	}
	over := time.After(s.wholeAfter)
	if err := s.outbox.sync(); err != nil {
		s.log.Error().Err(err).Msg("template is being sent while its copy may not be on disk")
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-s.queue:
		}
		s.mu.Lock()
		next := s.chosen
		s.mu.Unlock()
		defer s.queue.Ring() // it is for write
		if news(next, t) {
			return
		}
	}
}

// wrote records that t is in the topic, after last.
func (s *Service) wrote(t, last *template) {
	now := time.Now()
	s.mu.Lock()
	s.written = now
	s.mu.Unlock()
	s.metrics.templates.WithLabelValues(t.trigger).Inc()
	s.metrics.height.Set(float64(t.Height))
	s.metrics.transactions.Set(float64(t.Transactions))
	s.metrics.bytes.Set(float64(len(t.answer.text)))
	s.metrics.lastTime.Set(float64(now.Unix()))
	for _, n := range s.nodes {
		used := 0.0
		if n == t.node {
			used = 1
		}
		s.metrics.used.WithLabelValues(n.label).Set(used)
	}
	if last == nil || t.PrevHash != last.PrevHash {
		s.log.Info().Int32("height", t.Height).Stringer("prev_hash", t.PrevHash).Int("transactions", t.Transactions).
			Str("node", t.node.label).Str("trigger", t.trigger).Msg("template for a new block")
	}
}
