package spool_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/config"
	"btcpool/internal/durable"
	"btcpool/internal/spool"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

func open(tb testing.TB, cfg spool.Config) *spool.Spool {
	tb.Helper()
	return openWith(tb, cfg, nil)
}

func openWith(tb testing.TB, cfg spool.Config, reg prometheus.Registerer) *spool.Spool {
	tb.Helper()
	s, err := spool.Open(cfg, telemetry.Deps{Log: zerolog.New(zerolog.NewTestWriter(tb)), Metrics: reg}, "test")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func closeSpool(tb testing.TB, s *spool.Spool) {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

// run sends the records of s until stop is called or the test ends.
func run(tb testing.TB, s *spool.Spool, send topic) (stop func()) {
	tb.Helper()
	return testkit.Run(tb, func(ctx context.Context) error { return s.Run(ctx, send) })
}

// topic is one of a single partition.
type topic func(context.Context, []bus.Message) error

func (topic) Partitions(context.Context) (int, error) { return 1, nil }

func (send topic) Write(ctx context.Context, _ int, msgs ...bus.Message) error {
	return send(ctx, msgs)
}

// discard sends records nowhere.
func discard(context.Context, []bus.Message) error { return nil }

// text appends a value that says which record it is.
func text(epoch uint32) func([]byte, uint64) []byte {
	return func(dst []byte, seq uint64) []byte { return fmt.Appendf(dst, "%d/%d", epoch, seq) }
}

// A spool whose records do not get away takes no more after a time.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Config{Dir: t.TempDir(), MaxAge: config.Duration(50 * time.Millisecond), SyncGap: -1})
	begin := time.Now()
	add(t, s, 1)
	appended := func() error {
		seq, err := s.Append(7, text(s.Epoch()))
		if err == nil {
			err = s.Wait(t.Context(), seq)
		}
		return err
	}
	testkit.Eventually(t, "it takes no more", func() bool { return appended() != nil })
	if err := appended(); !errors.Is(err, spool.ErrFull) || time.Since(begin) < 50*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	if err := s.Err(); !errors.Is(err, spool.ErrFull) {
		t.Errorf("while it takes no more: %v", err)
	}
	run(t, s, discard)
	testkit.Eventually(t, "it takes records again once all are sent", func() bool { return appended() == nil && s.Err() == nil })
}

// add appends n records and waits for them.
func add(tb testing.TB, s *spool.Spool, n int) {
	tb.Helper()
	var last uint64
	for range n {
		seq, err := s.Append(7, text(s.Epoch()))
		if err != nil {
			tb.Fatal(err)
		}
		last = seq
	}
	if err := s.Wait(tb.Context(), last); err != nil {
		tb.Fatal(err)
	}
}

// drain runs the spool until it is empty and returns what was sent.
func drain(tb testing.TB, s *spool.Spool) (got []string) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	defer cancel()
	drained := make(chan error, 1)
	go func() {
		drained <- s.Run(ctx, topic(func(_ context.Context, msgs []bus.Message) error {
			for _, m := range msgs {
				got = append(got, string(m.Value))
			}
			return nil
		}))
	}()
	// Run goes on for some seconds without ctx, which may not be enough for a machine that is busy.
	testkit.Eventually(tb, "all is sent", func() bool {
		records, size := s.Depth()
		return records == 0 && size == 0
	})
	cancel()
	if err := <-drained; err != nil {
		tb.Fatal(err)
	}
	return got
}

// names returns "epoch/seq" for sequences from to to.
func names(epoch uint32, from, to int) (names []string) {
	for i := from; i <= to; i++ {
		names = append(names, fmt.Sprintf("%d/%d", epoch, i))
	}
	return names
}

// segments returns the files that hold records.
func segments(tb testing.TB, dir string) []string {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		tb.Fatal(err)
	}
	var full []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			tb.Fatal(err)
		}
		if info.Size() > 0 { // not the one that is opened ahead
			full = append(full, path)
		}
	}
	return full
}

func TestOrderAcrossOpenings(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir()}
	var want []string
	var epoch uint32
	for range 3 {
		s := open(t, cfg)
		if s.Epoch() <= epoch || s.Epoch() > uint32(time.Now().Unix())+3+256 {
			t.Errorf("epoch %d after %d", s.Epoch(), epoch)
		}
		epoch = s.Epoch()
		add(t, s, 10)
		want = append(want, names(epoch, 1, 10)...)
		closeSpool(t, s)
	}
	s := open(t, cfg)
	add(t, s, 5)
	want = append(want, names(s.Epoch(), 1, 5)...)
	if records, size := s.Depth(); records != 35 || size < 35*spool.FrameSize {
		t.Errorf("depth %d records, %d bytes", records, size)
	}
	if diff := cmp.Diff(want, drain(t, s)); diff != "" {
		t.Error(diff)
	}
	closeSpool(t, s)

	s = open(t, cfg)
	if got := drain(t, s); got != nil {
		t.Errorf("sent again: %v", got)
	}
	if left := segments(t, cfg.Dir); left != nil {
		t.Errorf("segments left: %v", left)
	}
}

func TestKeyAndValue(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Config{Dir: t.TempDir()})
	for _, value := range []string{"", "a", string(make([]byte, spool.MaxValue))} {
		if _, err := s.Append(0x0102030405060708, func(dst []byte, _ uint64) []byte { return append(dst, value...) }); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var sizes []int
	err := s.Run(ctx, topic(func(_ context.Context, msgs []bus.Message) error {
		for _, m := range msgs {
			if binary.LittleEndian.Uint64(m.Key) != 0x0102030405060708 {
				t.Errorf("key %x", m.Key)
			}
			sizes = append(sizes, len(m.Value))
		}
		if len(sizes) == 3 {
			cancel()
		}
		return nil
	}))
	if diff := cmp.Diff([]int{0, 1, spool.MaxValue}, sizes); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir(), MaxBytes: 1000}
	reg := prometheus.NewRegistry()
	s := openWith(t, cfg, reg)
	if _, err := spool.Open(cfg, telemetry.Deps{}, "test"); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("opened twice: got %v, want ErrLocked", err)
	}
	if err := s.Wait(t.Context(), 1); err == nil {
		t.Error("waited for a record that is not there")
	}
	large := func(n int) func([]byte, uint64) []byte {
		return func(dst []byte, _ uint64) []byte { return append(dst, make([]byte, n)...) }
	}
	if _, err := s.Append(0, large(spool.MaxValue+1)); !errors.Is(err, spool.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	if _, err := s.Append(0, large(1000-spool.FrameSize)); err != nil {
		t.Errorf("just fits: %v", err)
	}
	if _, err := s.Append(0, large(0)); !errors.Is(err, spool.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if n := testkit.Metric(t, reg, "btcpool_spool_full_total"); n != 1 {
		t.Errorf("full_total: %v", n)
	}
	if err := s.Err(); !errors.Is(err, spool.ErrFull) {
		t.Errorf("while full: %v", err)
	}
	drain(t, s)
	if err := s.Err(); err != nil {
		t.Errorf("after draining: %v", err)
	}
	seq, err := s.Append(0, large(0))
	if seq != 2 || err != nil {
		t.Errorf("after draining: %d, %v; a refused record must not take a sequence number", seq, err)
	}
	closeSpool(t, s)
	if _, err := s.Append(0, large(0)); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if err := s.Wait(t.Context(), 2); err != nil {
		t.Errorf("Close did not write: %v", err)
	}
	if err := (spool.Config{MaxBytes: -1}).Validate(); err == nil || len(err.(interface{ Unwrap() []error }).Unwrap()) != 2 {
		t.Errorf("validate: %v", err)
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Config{Dir: t.TempDir()})
	hang, hangs := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(release)
	hanging := sync.OnceFunc(func() { close(hangs) })
	s.SetSync(func(*os.File) error { hanging(); <-hang; return nil })
	seq, err := s.Append(0, text(0))
	if err != nil {
		t.Fatal(err)
	}
	<-hangs
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Wait(ctx, seq); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// A disk that hangs bounds what gathers in memory.
	value := make([]byte, spool.MaxValue)
	for n := 0; ; n += len(value) {
		if n > spool.PendingBytes {
			t.Fatal("memory is not bounded")
		}
		_, err := s.Append(0, func(dst []byte, _ uint64) []byte { return append(dst, value...) })
		if errors.Is(err, spool.ErrFull) {
			break
		}
	}
	release()
	if err := s.Wait(t.Context(), seq); err != nil {
		t.Error(err)
	}
}

func TestGroupCommit(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Config{Dir: t.TempDir()})
	var syncs atomic.Int64
	hold := make(chan struct{})
	s.SetSync(func(f *os.File) error { syncs.Add(1); <-hold; return spool.Fdatasync(f) })
	var wg sync.WaitGroup
	for range 1000 {
		seq, err := s.Append(0, text(0))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := s.Wait(t.Context(), seq); err != nil {
				t.Error(err)
			}
		})
	}
	close(hold)
	wg.Wait()
	if n := syncs.Load(); n > 2 {
		t.Errorf("%d syncs for one group under way and one gathering", n)
	}
}

// TestSyncGap lets records come one after the other for a while, of which many must share a sync, while one on its own
// waits for nothing.
func TestSyncGap(t *testing.T) {
	t.Parallel()
	const gap = 20 * time.Millisecond
	s := open(t, spool.Config{Dir: t.TempDir(), SyncGap: config.Duration(gap)})
	var syncs atomic.Int64
	s.SetSync(func(f *os.File) error { syncs.Add(1); return spool.Fdatasync(f) })
	begin := time.Now()
	for time.Since(begin) < 5*gap || syncs.Load() < 2 {
		add(t, s, 1)
	}
	if n, most := syncs.Load(), int64(time.Since(begin)/gap)+1; n > most {
		t.Errorf("%d syncs in %v", n, time.Since(begin))
	}
	begin = time.Now()
	s = open(t, spool.Config{Dir: t.TempDir(), SyncGap: config.Duration(time.Hour)})
	add(t, s, 1)
	if _, err := s.Append(7, text(s.Epoch())); err != nil {
		t.Fatal(err)
	}
	closeSpool(t, s) // does not wait either
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("waited %v for nobody", took)
	}
}

// TestBeforeSync appends something in the last moment, which must share the sync of what has waited.
func TestBeforeSync(t *testing.T) {
	t.Parallel()
	const gap = 20 * time.Millisecond
	s := open(t, spool.Config{Dir: t.TempDir(), SyncGap: config.Duration(gap)})
	var syncs, late atomic.Int64
	s.SetSync(func(f *os.File) error { syncs.Add(1); return spool.Fdatasync(f) })
	s.BeforeSync(func() {
		if late.Load() > 0 || syncs.Load() != 1 {
			return
		}
		seq, err := s.Append(7, text(s.Epoch()))
		if err != nil {
			t.Error(err)
		}
		late.Store(int64(seq))
	})
	add(t, s, 1)
	next := s.NextSync()
	if time.Until(next) > 2*gap {
		t.Errorf("next sync in %v", time.Until(next))
	}
	if !strings.Contains(next.String(), " m=") {
		t.Error("the next sync moves with the wall clock")
	}
	seq, err := s.Append(7, text(s.Epoch()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), uint64(late.Load())); err != nil || syncs.Load() != 2 {
		t.Errorf("record %d: %v after %d syncs", late.Load(), err, syncs.Load())
	}
}

// TestHurry has a record that must not wait for others reach the disk although the gap is an hour.
func TestHurry(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Config{Dir: t.TempDir(), SyncGap: config.Duration(time.Hour)})
	add(t, s, 1)
	seq, err := s.Append(7, text(s.Epoch()))
	if err != nil {
		t.Fatal(err)
	}
	s.Hurry()
	if err := s.Wait(t.Context(), seq); err != nil {
		t.Error(err)
	}
}

func TestDiskRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, spool.Config{Dir: dir})
	var full atomic.Bool
	s.SetSync(func(f *os.File) error {
		if full.Load() {
			return syscall.ENOSPC
		}
		return spool.Fdatasync(f)
	})
	add(t, s, 3)
	full.Store(true)
	seq, err := s.Append(7, text(s.Epoch()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), seq); !errors.Is(err, spool.ErrBroken) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wait: got %v, want ErrBroken for ENOSPC", err)
	}
	if _, err := s.Append(7, text(s.Epoch())); !errors.Is(err, spool.ErrBroken) {
		t.Errorf("append: got %v, want ErrBroken", err)
	}
	if err := s.Err(); !errors.Is(err, spool.ErrBroken) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("while broken: %v", err)
	}
	full.Store(false)
	testkit.Eventually(t, "it takes records again", func() bool {
		seq, err = s.Append(7, text(s.Epoch()))
		return !errors.Is(err, spool.ErrBroken)
	})
	if seq != 5 || err != nil || s.Err() != nil {
		t.Fatalf("record %d after recovery: %v, %v", seq, err, s.Err())
	}
	add(t, s, 1)
	if diff := cmp.Diff(names(s.Epoch(), 1, 6), drain(t, s)); diff != "" {
		t.Error(diff)
	}
	closeSpool(t, s)
	if got := drain(t, open(t, spool.Config{Dir: dir})); got != nil {
		t.Errorf("sent again: %v", got)
	}
}

// TestOnDurable holds what the callback tells against what was appended when.
func TestOnDurable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, spool.Config{Dir: dir})
	type told struct {
		durable uint64
		err     error
	}
	calls := make(chan told, 100)
	s.OnDurable(func(durable uint64, err error) {
		calls <- told{durable, err}
	})
	var full atomic.Bool
	s.SetSync(func(f *os.File) error {
		if full.Load() {
			return syscall.ENOSPC
		}
		return spool.Fdatasync(f)
	})
	last := uint64(0)
	for appended := uint64(1); appended <= 100; appended++ {
		if _, err := s.Append(7, text(s.Epoch())); err != nil {
			t.Fatal(err)
		}
		for appended%10 == 0 && last < appended {
			call := <-calls
			if call.err != nil || call.durable <= last || call.durable > appended {
				t.Fatalf("%d on disk (%v) after %d, while %d were appended", call.durable, call.err, last, appended)
			}
			last = call.durable
		}
	}
	full.Store(true)
	if _, err := s.Append(7, text(s.Epoch())); err != nil {
		t.Fatal(err)
	}
	if call := <-calls; call.durable != 100 || !errors.Is(call.err, spool.ErrBroken) || !errors.Is(call.err, syscall.ENOSPC) {
		t.Errorf("%d on disk: %v; want 100 and ErrBroken for ENOSPC", call.durable, call.err)
	}
	full.Store(false)
	for call := range calls {
		if call.err == nil {
			if call.durable != 101 {
				t.Errorf("%d on disk, want 101", call.durable)
			}
			break
		}
	}
	if _, err := s.Append(7, text(s.Epoch())); err != nil {
		t.Fatal(err)
	}
	closeSpool(t, s)
	if call := <-calls; call.durable != 102 || call.err != nil {
		t.Errorf("closing: %d on disk, %v; want 102", call.durable, call.err)
	}
}

func TestCloseWhileDiskRefuses(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Config{Dir: t.TempDir()})
	s.SetSync(func(*os.File) error { return syscall.EIO })
	seq, err := s.Append(7, text(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), seq); !errors.Is(err, syscall.EIO) {
		t.Errorf("wait: %v", err)
	}
	if err := s.Close(); !errors.Is(err, spool.ErrBroken) {
		t.Errorf("close: got %v, want ErrBroken", err)
	}
	if err := s.Wait(t.Context(), seq); !errors.Is(err, spool.ErrBroken) {
		t.Errorf("wait after close: %v", err)
	}
	s.SetSync(func(*os.File) error { return nil })
	if err := s.Reopen(spool.Baton{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("what was lost before is lost again: %v", err)
	}
}

func TestTopicAway(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir()}
	s := open(t, cfg)
	var away atomic.Bool
	var got []string
	arrived := make(chan int, 1)
	stop := run(t, s, func(_ context.Context, msgs []bus.Message) error {
		if away.Load() {
			return errors.New("no broker")
		}
		for _, m := range msgs {
			got = append(got, string(m.Value))
		}
		select {
		case <-arrived:
		default:
		}
		arrived <- len(got)
		return nil
	})
	add(t, s, 10)
	for n := range arrived {
		if n == 10 {
			break
		}
	}
	away.Store(true)
	add(t, s, 30_000) // miners go on, and more than a batch waits
	testkit.Eventually(t, "only those that arrived are taken off", func() bool {
		records, _ := s.Depth()
		return records == 30_000
	})
	away.Store(false)
	for n := range arrived {
		if n == 30_010 {
			break
		}
	}
	stop()
	if diff := cmp.Diff(names(s.Epoch(), 1, 30_010), got); diff != "" {
		t.Error(diff)
	}
}

func TestRunLeavesTheRestForLater(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir()}
	s := open(t, cfg)
	add(t, s, 10)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Run(ctx, topic(func(ctx context.Context, _ []bus.Message) error {
		cancel()
		<-ctx.Done() // the broker does not answer any more; the grace ends this
		return ctx.Err()
	}))
	if err != nil {
		t.Error(err)
	}
	epoch := s.Epoch()
	add(t, s, 1) // after Run a record is still kept
	closeSpool(t, s)
	if diff := cmp.Diff(names(epoch, 1, 11), drain(t, open(t, cfg))); diff != "" {
		t.Error(diff)
	}
}

func TestSegments(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir(), NoSync: true}
	s := open(t, cfg)
	value := make([]byte, spool.MaxValue)
	const n = 5 * spool.SegmentBytes / spool.MaxValue
	for range n {
		seq, err := s.Append(0, func(dst []byte, seq uint64) []byte {
			binary.LittleEndian.PutUint64(value, seq)
			return append(dst, value...)
		})
		if err == nil {
			err = s.Wait(t.Context(), seq)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := len(segments(t, cfg.Dir)); got != 5 {
		t.Errorf("%d segments", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	next := uint64(1)
	err := s.Run(ctx, topic(func(_ context.Context, msgs []bus.Message) error {
		for _, m := range msgs {
			if seq := binary.LittleEndian.Uint64(m.Value); seq != next {
				t.Errorf("record %d instead of %d", seq, next)
			}
			if next++; next > n {
				cancel()
			}
		}
		return nil
	}))
	if got := len(segments(t, cfg.Dir)); err != nil || got != 1 {
		t.Errorf("%v; %d segments after all was sent", err, got)
	}
}

// TestOpenedAhead makes it impossible to open a file: records are taken nevertheless, in a segment that is open already.
func TestOpenedAhead(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "spool")
	s := open(t, spool.Config{Dir: dir})
	away := dir + "-away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	add(t, s, 3)
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names(s.Epoch(), 1, 3), drain(t, s)); diff != "" {
		t.Error(diff)
	}
	closeSpool(t, s)
	left, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(left) != 1 { // the one that was written to
		t.Errorf("%v, %v", left, err)
	}
}

// leftover makes a spool's directory with segments of n records each.
func leftover(t *testing.T, n ...int) (dir string, epochs []uint32) {
	t.Helper()
	dir = t.TempDir()
	for _, n := range n {
		s := open(t, spool.Config{Dir: dir})
		add(t, s, n)
		epochs = append(epochs, s.Epoch())
		closeSpool(t, s)
	}
	return dir, epochs
}

func TestTornTail(t *testing.T) {
	t.Parallel()
	dir, epochs := leftover(t, 3)
	path := segments(t, dir)[0]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := len(whole) / 3
	for cut := range len(whole) + 1 {
		content := whole[:cut]
		if cut%2 == 1 { // the length is there but not what was written
			content = append(slices.Clone(content), make([]byte, 100)...)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, spool.Config{Dir: dir, NoSync: true})
		if diff := cmp.Diff(names(epochs[0], 1, cut/size), drain(t, s)); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		closeSpool(t, s)
		os.Remove(filepath.Join(dir, "position"))
	}
}

// TestDamage flips a bit in the head and in the value of a record in the first, in a middle and in the last place of a
// segment: that record is lost, told and nothing else.
func TestDamage(t *testing.T) {
	t.Parallel()
	for segment := range 2 {
		for _, record := range []int{0, 3, 9} {
			for _, at := range []int{0, 10, spool.FrameSize} {
				dir, epochs := leftover(t, 10, 10)
				path := segments(t, dir)[segment]
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				content[nth(t, content, record)+at] ^= 1
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				reg := prometheus.NewRegistry()
				s := openWith(t, spool.Config{Dir: dir}, reg)
				add(t, s, 1)
				want := [2][]string{names(epochs[0], 1, 10), names(epochs[1], 1, 10)}
				want[segment] = slices.Delete(want[segment], record, record+1)
				if diff := cmp.Diff(slices.Concat(want[0], want[1], names(s.Epoch(), 1, 1)), drain(t, s)); diff != "" {
					t.Errorf("segment %d, record %d, byte %d: %s", segment, record, at, diff)
				}
				if segment == 1 && record == 9 && at == 0 {
					continue // a longer record that was not written to its end looks the same
				}
				kept, err := filepath.Glob(filepath.Join(dir, "*.bad"))
				if err != nil || len(kept) != 1 {
					t.Errorf("damaged segment not kept: %v, %v", kept, err)
				}
				if n := testkit.Metric(t, reg, "btcpool_spool_lost_records_total"); n != 1 {
					t.Errorf("lost_records_total is %v", n)
				}
				if n := testkit.Metric(t, reg, "btcpool_spool_lost_bytes_total"); n < spool.FrameSize || n > 2*spool.FrameSize {
					t.Errorf("lost_bytes_total is %v", n)
				}
			}
		}
	}
}

// nth returns where a record begins.
func nth(t *testing.T, segment []byte, record int) (at int) {
	t.Helper()
	for range record {
		_, size, err := durable.CutFrame(segment[at:], 1, len(segment))
		if err != nil {
			t.Fatal(err)
		}
		at += size
	}
	return at
}

// TestDamageWhileOpen damages records that were read well at opening.
func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, spool.Config{Dir: dir})
	add(t, s, 10)
	path := segments(t, dir)[0]
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names(s.Epoch(), 1, 9), drain(t, s)); diff != "" {
		t.Error(diff)
	}
	add(t, s, 1)
	if diff := cmp.Diff(names(s.Epoch(), 11, 11), drain(t, s)); diff != "" {
		t.Error(diff)
	}
}

// TestSegmentDeleted lets somebody make room by hand.
func TestSegmentDeleted(t *testing.T) {
	t.Parallel()
	dir, epochs := leftover(t, 3, 3)
	s := open(t, spool.Config{Dir: dir})
	if err := os.Remove(segments(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names(epochs[1], 1, 3), drain(t, s)); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedPosition(t *testing.T) {
	t.Parallel()
	dir, epochs := leftover(t, 5)
	if err := os.WriteFile(filepath.Join(dir, "position"), bytes.Repeat([]byte{9}, 20), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names(epochs[0], 1, 5), drain(t, open(t, spool.Config{Dir: dir}))); diff != "" {
		t.Error(diff)
	}
}

// FuzzOpen finds anything in a spool's files: it opens, and what is appended is sent after the next opening, last.
func FuzzOpen(f *testing.F) {
	frames := slices.Concat(spool.Frame(1, 2, 3, []byte("value")), spool.Frame(1, 3, 3, nil))
	f.Add(uint64(0), int64(0), "", "", frames)
	f.Add(uint64(5), int64(30), "4\n", "1700000000\n", frames)
	f.Add(uint64(5), int64(-1), "x", "y", frames)
	f.Add(uint64(4), int64(math.MaxInt64), "0", "4294967294", frames[:40])
	f.Add(uint64(math.MaxUint64), int64(9), "-1", "", frames)
	f.Add(uint64(math.MaxUint64-1), int64(0), "99999999999", "99999999999", []byte{0})
	f.Fuzz(func(t *testing.T, segment uint64, offset int64, partitions, epoch string, records []byte) {
		cfg := spool.Config{Dir: t.TempDir(), NoSync: true, SyncGap: -1}
		for name, content := range map[string][]byte{
			"position": spool.Position(t, segment, offset), "partitions": []byte(partitions), "epoch": []byte(epoch), "00000005.seg": records,
		} {
			must(t, os.WriteFile(filepath.Join(cfg.Dir, name), content, 0o640))
		}
		reopen := func() (*spool.Spool, bool) {
			t.Helper()
			s, err := spool.Open(cfg, telemetry.Deps{Log: zerolog.Nop()}, "test")
			if err != nil && strings.Contains(err.Error(), "no epoch left") {
				return nil, false
			}
			must(t, err)
			return s, true
		}
		s, ok := reopen()
		if !ok {
			return
		}
		add(t, s, 1)
		want := fmt.Sprintf("%d/1", s.Epoch())
		closeSpool(t, s)
		if s, ok = reopen(); !ok {
			return
		}
		defer closeSpool(t, s)
		if got := drain(t, s); len(got) == 0 || got[len(got)-1] != want {
			t.Fatalf("sent %q, want %s last", got, want)
		}
	})
}

func TestEpochWithClockInThePast(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	future := uint32(time.Now().Add(time.Hour).Unix())
	if err := os.WriteFile(filepath.Join(dir, "epoch"), fmt.Appendln(nil, future), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, spool.Config{Dir: dir})
	if s.Epoch() != future+1 {
		t.Errorf("epoch %d, want %d", s.Epoch(), future+1)
	}
	add(t, s, 1)
	closeSpool(t, s)
	// The file may be lost; what is in the segments counts as well.
	if err := os.Remove(filepath.Join(dir, "epoch")); err != nil {
		t.Fatal(err)
	}
	if s := open(t, spool.Config{Dir: dir}); s.Epoch() != future+2 {
		t.Errorf("epoch %d, want %d", s.Epoch(), future+2)
	}
}

// TestSetEpoch begins epochs while records are appended: each belongs to one, and they grow for good.
func TestSetEpoch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, spool.Config{Dir: dir})
	first := s.Epoch()
	add(t, s, 3)
	if err := s.SetEpoch(first); err == nil {
		t.Error("an epoch began twice")
	}
	if err := s.SetEpoch(first + 10); err != nil || s.Epoch() != first+10 {
		t.Errorf("epoch %d: %v", s.Epoch(), err)
	}
	add(t, s, 2)
	closeSpool(t, s)
	s = open(t, spool.Config{Dir: dir})
	if s.Epoch() <= first+10 {
		t.Errorf("epoch %d after %d", s.Epoch(), first+10)
	}
	if diff := cmp.Diff(slices.Concat(names(first, 1, 3), names(first+10, 4, 5)), drain(t, s)); diff != "" {
		t.Error(diff)
	}
}

// TestEpochsSpread opens spools in the same seconds: hardly any two have the same epoch.
func TestEpochsSpread(t *testing.T) {
	t.Parallel()
	seen := map[uint32]int{}
	for range 20 {
		seen[open(t, spool.Config{Dir: t.TempDir()}).Epoch()]++
	}
	if len(seen) < 10 {
		t.Errorf("20 spools have %d epochs", len(seen))
	}
}

// TestDamagedEpoch goes by the clock.
func TestDamagedEpoch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "epoch"), []byte("17\xb04"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := open(t, spool.Config{Dir: dir}); int64(s.Epoch()) < time.Now().Unix()-5 {
		t.Errorf("epoch %d", s.Epoch())
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	dir, _ := leftover(t, 5)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(segments(t, dir)[0], old, old); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	s := openWith(t, spool.Config{Dir: dir}, reg)
	add(t, s, 2)
	if age := testkit.Metric(t, reg, "btcpool_spool_oldest_seconds"); age < 3599 || age > 3700 {
		t.Errorf("oldest is %v s old", age)
	}
	if n := testkit.Metric(t, reg, "btcpool_spool_depth_records"); n != 7 {
		t.Errorf("depth is %v", n)
	}
	drain(t, s)
	for name, want := range map[string]float64{
		"btcpool_spool_oldest_seconds": 0, "btcpool_spool_depth_records": 0, "btcpool_spool_depth_bytes": 0,
		"btcpool_spool_appended_total": 2, "btcpool_spool_sent_total": 7,
	} {
		if got := testkit.Metric(t, reg, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	add(t, s, 1)
	if age := testkit.Metric(t, reg, "btcpool_spool_oldest_seconds"); age > 60 {
		t.Errorf("after a drain the oldest is %v s old", age)
	}
}

// TestConcurrent appends, waits and drains at once, over several openings with a topic that fails now and then.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir()}
	for range 3 {
		s := open(t, cfg)
		var next uint64 = 1
		stop := run(t, s, func(_ context.Context, msgs []bus.Message) error {
			if rand.IntN(50) == 0 {
				return errors.New("now and then")
			}
			for _, m := range msgs {
				seq, err := strconv.ParseUint(string(m.Value), 10, 64)
				if err != nil || seq != next {
					t.Errorf("%q instead of %d", m.Value, next)
				}
				next = seq + 1
			}
			return nil
		})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 200 {
					seq, err := s.Append(0, func(dst []byte, seq uint64) []byte { return strconv.AppendUint(dst, seq, 10) })
					if err == nil {
						err = s.Wait(t.Context(), seq)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		stop()
		if next != 4001 {
			t.Errorf("sent up to %d", next-1)
		}
		closeSpool(t, s)
	}
}

// TestThroughBroker lets a real broker come and go under the spool.
func TestThroughBroker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broker, err := embedded.Start(dir, testkit.FreeAddr(t), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { broker.Close() }()
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{broker.Addr()}
	topic := cfg.Topics.Share
	client := testkit.Bus(t, cfg, topic)
	s := open(t, spool.Config{Dir: t.TempDir()})
	stop := run(t, s, func(ctx context.Context, msgs []bus.Message) error { return client.Write(ctx, topic, msgs...) })
	for range 3 {
		add(t, s, 1000)
		if err := broker.Close(); err != nil {
			t.Fatal(err)
		}
		add(t, s, 1000)
		if broker, err = embedded.Start(dir, cfg.Brokers[0], zerolog.Nop()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	want := uint64(1)
	reading, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	if err := client.Read(reading, topic, bus.Earliest(), func(m bus.Message) error {
		_, text, _ := strings.Cut(string(m.Value), "/")
		switch seq, err := strconv.ParseUint(text, 10, 64); {
		case err != nil || seq > want:
			return fmt.Errorf("%s came instead of record %d", m.Value, want)
		case seq == want: // a smaller one comes again
			want++
		}
		return nil
	}, bus.CaughtUp(cancel)); err != nil {
		t.Error(err)
	}
	if want != 6001 {
		t.Errorf("%d of 6000 records came", want-1)
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	s := open(t, spool.Config{Dir: t.TempDir(), NoSync: true})
	value := make([]byte, 100)
	encode := func(dst []byte, _ uint64) []byte { return append(dst, value...) }
	hold := make(chan struct{})
	s.SetSync(func(*os.File) error { <-hold; return nil })
	defer close(hold)
	for range 10_000 { // the first record is with the flusher now, the others have grown the buffer
		if _, err := s.Append(0, encode); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Append(0, encode); err != nil {
			t.Fatal(err)
		}
	}); n > 0.5 {
		t.Errorf("%v allocations", n)
	}
}

// TestFormat keeps what is on disk readable by other versions.
func TestFormat(t *testing.T) {
	t.Parallel()
	const want = "19000000" + "36dc2fc0" + "04030201" + "0500000000000000" + "0d0c0b0a09080706" + "76616c7565"
	if got := hex.EncodeToString(spool.Frame(0x01020304, 5, 0x060708090a0b0c0d, []byte("value"))); got != want {
		t.Errorf("record %s, want %s", got, want)
	}
	const at = "0700000000000000" + "2c01000000000000" + "1499a991"
	if got := hex.EncodeToString(spool.Position(t, 7, 300)); got != at {
		t.Errorf("position %s, want %s", got, at)
	}
}

func BenchmarkAppendWait(b *testing.B) {
	for _, waiters := range []int{1, 100, 10_000} {
		b.Run(strconv.Itoa(waiters), func(b *testing.B) {
			s := open(b, spool.Config{Dir: b.TempDir()})
			stop := run(b, s, discard)
			value := make([]byte, 100)
			encode := func(dst []byte, _ uint64) []byte { return append(dst, value...) }
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range waiters {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						seq, err := s.Append(0, encode)
						if err == nil {
							err = s.Wait(b.Context(), seq)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			stop()
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, spool.Config{Dir: b.TempDir(), NoSync: true})
	run(b, s, discard)
	value := make([]byte, 100)
	encode := func(dst []byte, _ uint64) []byte { return append(dst, value...) }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Append(0, encode); err != nil && !errors.Is(err, spool.ErrFull) {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareSync is the limit: one record's bytes, write and fdatasync.
func BenchmarkBareSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	record := make([]byte, spool.FrameSize+100)
	for b.Loop() {
		if _, err := f.Write(record); err != nil {
			b.Fatal(err)
		}
		if err := spool.Fdatasync(f); err != nil {
			b.Fatal(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// spread is a topic that keeps what is written, and among how many partitions.
type spread struct {
	partitions int
	written    chan string
}

func (t spread) Partitions(context.Context) (int, error) { return t.partitions, nil }

func (t spread) Write(_ context.Context, among int, msgs ...bus.Message) error {
	for _, m := range msgs {
		t.written <- fmt.Sprintf("%s/%d", m.Value, among)
	}
	return nil
}

// deliver opens a spool, appends a record of that name, unless it is "", and sends what is there to a topic of so many
// partitions.
func deliver(t *testing.T, cfg spool.Config, partitions int, name string, want ...string) {
	t.Helper()
	s := open(t, cfg)
	if name != "" {
		_, err := s.Append(1, func(dst []byte, _ uint64) []byte { return append(dst, name...) })
		must(t, err)
	}
	to := spread{partitions, make(chan string, 9)}
	stop := testkit.Run(t, func(ctx context.Context) error { return s.Run(ctx, to) })
	var got []string
	for range want {
		got = append(got, <-to.written)
	}
	stop()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	closeSpool(t, s)
}

// TestPartitionsAdded: what is sent again goes where it went before, and a position from before is not gone back to
// when new records have gone elsewhere.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	cfg := spool.Config{Dir: t.TempDir()}
	path := filepath.Join(cfg.Dir, "position")
	old := func() []byte {
		t.Helper()
		position, err := os.ReadFile(path)
		must(t, err)
		return position
	}
	before := spool.Position(t, 0, 0)
	deliver(t, cfg, 2, "a", "a/2")
	must(t, os.WriteFile(path, before, 0o644)) // what a crash may leave of it
	deliver(t, cfg, 4, "b", "a/2", "b/4")
	before = old()
	deliver(t, cfg, 4, "c", "c/4")
	must(t, os.WriteFile(path, before, 0o644))
	deliver(t, cfg, 3, "", "c/4") // Write knows that there are no more than 3
	deliver(t, cfg, 8, "d", "d/8")
}

// TestDamagedPartitions sends what is left among all partitions when it is not known where it was sent before.
func TestDamagedPartitions(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x", "-1", "99999999999", "2\x00"} {
		cfg := spool.Config{Dir: t.TempDir()}
		s := open(t, cfg)
		_, err := s.Append(1, func(dst []byte, _ uint64) []byte { return append(dst, 'a') })
		must(t, err)
		closeSpool(t, s)
		path := filepath.Join(cfg.Dir, "partitions")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		deliver(t, cfg, 4, "b", "a/0", "b/4")
		if now, err := os.ReadFile(path); err != nil || string(now) != "4\n" {
			t.Errorf("%q: now %q, %v", text, now, err)
		}
	}
}
