package spool_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/spool"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
)

// sentTo is a topic that remembers what it was sent.
type sentTo struct {
	mu   sync.Mutex
	sent []string
}

func (*sentTo) Partitions(context.Context) (int, error) { return 1, nil }

func (s *sentTo) Write(_ context.Context, _ int, msgs ...bus.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range msgs {
		s.sent = append(s.sent, string(m.Value))
	}
	return nil
}

func (s *sentTo) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

// A spool passes from one process to the next and back while both have Run running: each record is sent once, in order,
// and what is appended in between is refused.
func TestReopen(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir()}
	deps := telemetry.Deps{Log: zerolog.New(zerolog.NewTestWriter(t))}
	topic := new(sentTo)
	one := open(t, cfg)
	other, err := spool.New(cfg, deps, "other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	for _, s := range []*spool.Spool{one, other} {
		testkit.Run(t, func(ctx context.Context) error { return s.Run(ctx, topic) })
	}
	var want []string
	epochs := map[uint32]bool{}
	here, there := one, other
	for turn := range 6 {
		if epochs[here.Epoch()] {
			t.Fatalf("epoch %d comes again", here.Epoch())
		}
		epochs[here.Epoch()] = true
		if _, err := there.Append(1, func(dst []byte, _ uint64) []byte { return dst }); !errors.Is(err, spool.ErrClosed) {
			t.Fatalf("append to a closed spool: %v", err)
		}
		for i := range 50 {
			value := strconv.Itoa(turn*100 + i)
			seq, err := here.Append(1, func(dst []byte, _ uint64) []byte { return append(dst, value...) })
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, value)
			if i == 25 {
				if err := here.Wait(t.Context(), seq); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := here.StopSending(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := here.Close(); err != nil {
			t.Fatal(err)
		}
		if err := there.Reopen(); err != nil {
			t.Fatal(err)
		}
		there.GoOnSending()
		here, there = there, here
	}
	testkit.Eventually(t, "all is sent", func() bool { return len(topic.all()) >= len(want) })
	if got := topic.all(); !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

// Run of a spool that is somebody else's by now ends at once.
func TestRunOfClosedSpoolEnds(t *testing.T) {
	t.Parallel()
	s, err := spool.New(spool.Config{Dir: t.TempDir()}, telemetry.Deps{}, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, new(sentTo)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Sending stops even while the topic is away, if only for as long as the caller waits: it is not stopped then.
func TestStopSendingGivesUp(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Config{Dir: t.TempDir()})
	sending, away := make(chan struct{}, 1), make(chan struct{})
	stop := run(t, s, func(ctx context.Context, _ []bus.Message) error {
		select {
		case sending <- struct{}{}:
		default:
		}
		select {
		case <-away:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if _, err := s.Append(1, func(dst []byte, _ uint64) []byte { return append(dst, 'x') }); err != nil {
		t.Fatal(err)
	}
	<-sending
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.StopSending(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	close(away)
	testkit.Eventually(t, "the record is sent", func() bool { n, _ := s.Depth(); return n == 0 })
	stop()
}
