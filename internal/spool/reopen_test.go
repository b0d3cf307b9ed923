package spool_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
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
		if err := there.Reopen(spool.Baton{}); err != nil {
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

// What was left for the next opening is used, and never twice.
func TestLeave(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir()}
	deps := telemetry.Deps{Log: zerolog.New(zerolog.NewTestWriter(t))}
	s := open(t, cfg)
	other, err := spool.New(cfg, deps, "other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	last := s.Epoch()
	next := func(to *spool.Spool, left spool.Baton) {
		t.Helper()
		if err := to.Reopen(left); err != nil {
			t.Fatal(err)
		}
		if to.Epoch() <= last {
			t.Errorf("epoch %d after %d", to.Epoch(), last)
		}
		last = to.Epoch()
		add(t, to, 1)
	}
	leave := func(from *spool.Spool) spool.Baton {
		t.Helper()
		left, err := from.Leave()
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	reserve := func(of *spool.Spool, least uint32) {
		t.Helper()
		if err := of.Reserve(least); err != nil {
			t.Fatal(err)
		}
	}
	size := func(number uint64) int64 {
		info, err := os.Stat(filepath.Join(cfg.Dir, fmt.Sprintf("%08d.seg", number)))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	add(t, s, 1)
	least := last + 10_000
	reserve(s, least)
	left := leave(s)
	if left.Epoch != least || left.Segment == 0 || size(left.Segment) > 0 {
		t.Errorf("left %+v", left)
	}
	next(other, left)
	if err := s.SetEpoch(math.MaxUint32); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("an epoch in a spool that is another's: %v", err)
	}
	if other.Epoch() != least || size(left.Segment) == 0 {
		t.Errorf("epoch %d, want %d; %d bytes where the new ones belong", other.Epoch(), least, size(left.Segment))
	}
	if again := leave(other); again.Epoch != 0 {
		t.Errorf("an epoch that nobody has reserved: %+v", again)
	}
	next(s, left) // an old one
	reserve(s, 0)
	void := last + 1
	if err := s.SetEpoch(void); err != nil {
		t.Fatal(err)
	}
	last = void
	if left = leave(s); left.Epoch != 0 {
		t.Errorf("reserved beside an epoch that was begun later: %+v", left)
	}
	next(other, left)
	reserve(other, 0)
	left = leave(other)
	next(s, spool.Baton{}) // who was to have it is gone
	if s.Epoch() <= left.Epoch {
		t.Errorf("epoch %d, which %d should have been", s.Epoch(), left.Epoch)
	}
	if got := len(drain(t, s)); got != 5 {
		t.Errorf("%d records, want 5", got)
	}
}
