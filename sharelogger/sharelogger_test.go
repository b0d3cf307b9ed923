package sharelogger_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/durable"
	"btcpool/internal/service"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/spool"
	"btcpool/internal/testkit"
	"btcpool/sharelogger"
)

const monday = 1700438400 // 2023-11-20 00:00:00 UTC

// childEnv turns the test program into a sharelogger that is there to be killed: its value is "directory broker".
const childEnv = "SHARELOGGER_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir, broker, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		os.Exit(service.Main("sharelogger", nil, os.Stderr, testConfig(dir, broker), sharelogger.New))
	}
	goleak.VerifyTestMain(m)
}

func testConfig(dir, broker string) sharelogger.Config {
	cfg := sharelogger.DefaultConfig()
	cfg.DataDir = dir
	cfg.FlushInterval = config.Duration(20 * time.Millisecond)
	cfg.Kafka.Brokers = []string{broker}
	cfg.Kafka.Partitions = 3
	cfg.Log.Level = "error"
	return cfg
}

// pool is a broker and a client to write shares with.
type pool struct {
	cfg      sharelogger.Config
	client   *bus.Client
	registry *prometheus.Registry // of the service started last
}

func newPool(t *testing.T) *pool {
	t.Helper()
	cfg := testConfig(t.TempDir(), testkit.Broker(t).Brokers[0])
	return &pool{cfg: cfg, client: testkit.Bus(t, cfg.Kafka, cfg.Kafka.Topics.Share)}
}

func (p *pool) write(t *testing.T, values ...[]byte) {
	t.Helper()
	var msgs []bus.Message
	for i, value := range values {
		msgs = append(msgs, bus.Message{Key: []byte{byte(i)}, Value: value})
	}
	if err := p.client.Write(t.Context(), p.cfg.Kafka.Topics.Share, msgs...); err != nil {
		t.Fatal(err)
	}
}

// writeTo writes shares with the key of a worker.
func (p *pool) writeTo(t *testing.T, worker byte, shares ...share.Share) {
	t.Helper()
	var msgs []bus.Message
	for _, s := range shares {
		msgs = append(msgs, bus.Message{Key: []byte{worker}, Value: s.AppendTo(nil)})
	}
	if err := p.client.Write(t.Context(), p.cfg.Kafka.Topics.Share, msgs...); err != nil {
		t.Fatal(err)
	}
}

// start runs the service until stop is called or the test ends.
func (p *pool) start(t *testing.T) (svc *sharelogger.Service, stop func()) {
	t.Helper()
	p.registry = prometheus.NewRegistry()
	svc, err := sharelogger.New(p.cfg, service.Deps{Log: zerolog.Nop(), Metrics: p.registry})
	if err != nil {
		t.Fatal(err)
	}
	return svc, testkit.Run(t, svc.Run)
}

// newShare makes a share numbered by its nonce.
func newShare(nonce uint32, time int64) share.Share {
	return share.Share{
		ID: share.ID{Server: 1, Epoch: 1700000000, Seq: uint64(nonce)}, JobID: 1, WorkerID: 2, UserID: 3,
		Status: share.StatusAccept, Time: time, IP: netip.MustParseAddr("192.0.2.1"), Difficulty: 10, Bits: 0x1d00ffff,
		Height: 1, Nonce: nonce,
	}
}

// nonces are those of the shares in all files, sorted.
func (p *pool) nonces(t *testing.T) []uint32 {
	t.Helper()
	days, err := sharefile.Days(p.cfg.DataDir, p.cfg.Chain)
	if err != nil {
		t.Fatal(err)
	}
	var all []uint32
	for _, day := range days {
		r, err := sharefile.Open(sharefile.Path(p.cfg.DataDir, p.cfg.Chain, day))
		if errors.Is(err, fs.ErrNotExist) { // a sealed day's, removed just now
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for {
			body, err := r.Next()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			var s share.Share
			if err := s.ParseBody(body); err != nil {
				t.Fatal(err)
			}
			if got := sharefile.DayOf(s.Time); got != day {
				t.Fatalf("share of %d is in the file of %d", got, day)
			}
			all = append(all, s.Nonce)
		}
		r.Close()
	}
	slices.Sort(all)
	return all
}

func TestWritesValidSharesOnce(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	svc, stop := p.start(t)
	bad := newShare(100, monday)
	bad.JobID = 0
	v1 := binary.LittleEndian.AppendUint64(nil, 77)                    // job id
	v1 = binary.LittleEndian.AppendUint64(v1, 2)                       // worker id
	v1 = append(v1, 192, 0, 2, 1, 3, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0) // ip, user id, difficulty
	v1 = binary.LittleEndian.AppendUint32(v1, monday)
	v1 = append(v1, 0xff, 0xff, 0, 0x1d, 1, 0, 0, 0, 0, 0, 0, 0) // bits, result, padding
	p.write(t, bad.AppendTo(nil), []byte("no share"), nil, v1)
	for nonce := uint32(1); nonce <= 20; nonce++ {
		s := newShare(nonce, monday+int64(nonce%2)*86400)
		p.writeTo(t, byte(nonce%3), s, s)
		if nonce == 10 {
			testkit.Eventually(t, "the first half", func() bool { return len(p.nonces(t)) == 11 })
			if err := svc.Ready(); err != nil {
				t.Error(err)
			}
			stop()
			svc, stop = p.start(t)
		}
	}
	testkit.Eventually(t, "all shares", func() bool { return len(p.nonces(t)) >= 21 })
	stop()
	want := []uint32{0} // of the old version, which has no nonce
	for nonce := uint32(1); nonce <= 20; nonce++ {
		want = append(want, nonce)
	}
	if diff := cmp.Diff(want, p.nonces(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStopFlushes: what was read before SIGTERM is on disk after it, however long the interval.
func TestStopFlushes(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	p.cfg.FlushInterval = config.Duration(time.Minute)
	p.cfg.FlushBytes = 64 << 10
	_, stop := p.start(t)
	var shares []share.Share
	size := 0
	for nonce := uint32(1); size < 100_000; nonce++ {
		s := newShare(nonce, monday)
		shares = append(shares, s)
		size += 4 + len(s.AppendBody(nil))
	}
	p.writeTo(t, 0, shares...)
	testkit.Eventually(t, "a flush by size, and the rest in memory", func() bool {
		rest := size
		for _, s := range shares[:len(p.nonces(t))] {
			rest -= 4 + len(s.AppendBody(nil))
		}
		return 0 < rest && rest < size && testkit.Metric(t, p.registry, "btcpool_sharelogger_pending_bytes") == float64(rest)
	})
	stop()
	if got := len(p.nonces(t)); got != len(shares) {
		t.Errorf("%d shares on disk, want %d", got, len(shares))
	}
}

// TestFileMode has new files have the configured permissions, whatever the umask, also one that a crash has left without;
// those that have shares keep theirs.
func TestFileMode(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	path := func(day sharefile.Day) string { return sharefile.Path(p.cfg.DataDir, p.cfg.Chain, day) }
	p.writeTo(t, 0, newShare(1, monday))
	_, stop := p.start(t)
	testkit.Eventually(t, "a share", func() bool { return len(p.nonces(t)) == 1 })
	stop()
	if err := errors.Join(os.Chmod(path(20231120), 0o600), os.WriteFile(path(20231122), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	p.cfg.FileMode = "0666"
	p.start(t)
	p.writeTo(t, 0, newShare(2, monday), newShare(3, monday+86400), newShare(4, monday+2*86400))
	testkit.Eventually(t, "all shares", func() bool { return len(p.nonces(t)) == 4 })
	for day, want := range map[sharefile.Day]os.FileMode{20231120: 0o600, 20231121: 0o666, 20231122: 0o666} {
		if info, err := os.Stat(path(day)); err != nil || info.Mode() != want {
			t.Errorf("%d: %v, %v", day, info.Mode(), err)
		}
	}
}

func TestStartLatest(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	p.cfg.Start = "latest"
	p.writeTo(t, 0, newShare(1, monday))
	svc, _ := p.start(t)
	testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })
	nonce := uint32(1)
	testkit.Eventually(t, "a share", func() bool { // the end of the topic is looked up some time after readiness
		nonce++
		p.writeTo(t, 0, newShare(nonce, monday))
		return len(p.nonces(t)) > 0
	})
	if slices.Contains(p.nonces(t), 1) {
		t.Error("read a share from before the start")
	}
}

// TestFileInTheWay stands for any trouble with the disk.
func TestFileInTheWay(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	svc, _ := p.start(t)
	tuesday := sharefile.Path(p.cfg.DataDir, p.cfg.Chain, 20231121)
	if err := os.Mkdir(tuesday, 0o750); err != nil {
		t.Fatal(err)
	}
	p.writeTo(t, 0, newShare(1, monday), newShare(2, monday+86400), newShare(3, monday))
	testkit.Eventually(t, "unreadiness", func() bool {
		err := svc.Ready()
		return err != nil && strings.Contains(err.Error(), tuesday)
	})
	if err := os.Remove(tuesday); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "all shares", func() bool { return len(p.nonces(t)) == 3 })
	testkit.Eventually(t, "readiness", func() bool { return svc.Ready() == nil })
}

// TestFileRemoved has somebody remove the file of the day: what comes is written to a new one, and it is told.
func TestFileRemoved(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	svc, _ := p.start(t)
	p.writeTo(t, 0, newShare(1, monday))
	testkit.Eventually(t, "a share", func() bool {
		return testkit.Metric(t, p.registry, "btcpool_sharelogger_shares_written_total") == 1
	})
	if err := os.Remove(sharefile.Path(p.cfg.DataDir, p.cfg.Chain, 20231120)); err != nil {
		t.Fatal(err)
	}
	p.writeTo(t, 0, newShare(2, monday))
	testkit.Eventually(t, "the next", func() bool { return slices.Contains(p.nonces(t), 2) })
	testkit.Eventually(t, "the gap is told", func() bool {
		return testkit.Metric(t, p.registry, "btcpool_sharelogger_file_gaps") == 1
	})
	if err := svc.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// TestClose wants nothing to be left of a service that has not run: another one has the folder.
func TestClose(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t.TempDir(), "127.0.0.1:1")
	deps := service.Deps{Log: zerolog.Nop()}
	first, err := sharelogger.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sharelogger.New(cfg, deps); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("two in one folder: %v", err)
	}
	for range 2 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	second, err := sharelogger.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// TestTopicMadeAnew deletes the topic while the service is away, and fills another beyond where it was.
func TestTopicMadeAnew(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	_, stop := p.start(t)
	var want []uint32
	next := uint32(1)
	fill := func(n int) {
		for range n {
			p.writeTo(t, 0, newShare(next, monday))
			want = append(want, next)
			next++
		}
	}
	fill(5)
	testkit.Eventually(t, "the first topic's shares", func() bool { return len(p.nonces(t)) == 5 })
	stop()
	topic := p.cfg.Kafka.Topics.Share
	testkit.DeleteTopic(t, p.cfg.Kafka, topic)
	p.client = testkit.Bus(t, p.cfg.Kafka, topic)
	fill(12)
	_, stop = p.start(t)
	fill(3)
	testkit.Eventually(t, "the other's", func() bool { return slices.Contains(p.nonces(t), next-1) })
	stop()
	if diff := cmp.Diff(want, p.nonces(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := testkit.Metric(t, p.registry, "btcpool_bus_read_rewinds_total"); n != 1 {
		t.Errorf("%v rewinds", n)
	}
}

func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	p := &pool{cfg: testConfig(t.TempDir(), testkit.Broker(t).Brokers[0])}
	testPartitionsAdded(t, p)
}

// testPartitionsAdded has the topic get more partitions while a spool's position is old: shares come twice, and their
// keys choose among more than the first time.
func testPartitionsAdded(t *testing.T, p *pool) {
	t.Helper()
	p.cfg.Kafka.Partitions = 1
	topic := p.cfg.Kafka.Topics.Share
	dir := t.TempDir()
	var want []uint32
	send := func(n int) {
		t.Helper()
		p.client = testkit.Bus(t, p.cfg.Kafka, topic) // of a server that was started just now
		s, err := spool.Open(spool.Config{Dir: dir}, service.Deps{Log: zerolog.Nop()}, "shares")
		if err != nil {
			t.Fatal(err)
		}
		for key := range n {
			nonce := uint32(len(want) + 1)
			want = append(want, nonce)
			if _, err := s.Append(uint64(key), func(dst []byte, seq uint64) []byte {
				sh := newShare(nonce, monday)
				sh.ID = share.ID{Server: 1, Epoch: s.Epoch(), Seq: seq}
				return sh.AppendTo(dst)
			}); err != nil {
				t.Fatal(err)
			}
		}
		stop := testkit.Run(t, func(ctx context.Context) error { return s.Run(ctx, p.client.Topic(topic)) })
		testkit.Eventually(t, "all sent", func() bool { records, _ := s.Depth(); return records == 0 })
		stop()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	send(50)
	_, stop := p.start(t)
	testkit.Eventually(t, "the first shares", func() bool { return len(p.nonces(t)) == 50 })
	stop()
	if err := os.Truncate(filepath.Join(dir, "position"), 0); err != nil { // as a crash may leave it
		t.Fatal(err)
	}
	testkit.AddPartitions(t, p.cfg.Kafka, topic, 4)
	send(30)
	_, stop = p.start(t)
	testkit.Eventually(t, "all shares", func() bool { return len(p.nonces(t)) >= len(want) })
	testkit.Eventually(t, "all that came twice", func() bool {
		return testkit.Metric(t, p.registry, "btcpool_sharelogger_shares_dropped_total", "reason", "repeated") == 50
	})
	stop()
	if diff := cmp.Diff(want, p.nonces(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := testkit.Metric(t, p.registry, "btcpool_bus_read_lag_messages"); n != 0 {
		t.Errorf("%v messages were not read", n)
	}
}

// TestKilled kills the process again and again while shares arrive, some of them twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	const kills, batch = 12, 60
	var nonce uint32
	last := make([]share.Share, 3)
	for range kills {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+p.cfg.DataDir+" "+p.cfg.Kafka.Brokers[0])
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		before := len(p.nonces(t))
		end := nonce + batch
		for nonce < end {
			nonce++
			worker := nonce % 3
			s := newShare(nonce, monday+86399-int64(nonce%2)+rand.Int64N(3))
			p.writeTo(t, byte(worker), last[worker], s)
			last[worker] = s
		}
		testkit.Eventually(t, "shares of this process", func() bool { return len(p.nonces(t)) > before })
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := child.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Fatalf("child ended by itself: %v", err)
		}
	}
	_, stop := p.start(t)
	testkit.Eventually(t, "all shares", func() bool { return len(p.nonces(t)) >= int(nonce) })
	stop()
	var want []uint32
	for n := range nonce {
		want = append(want, n+1)
	}
	if diff := cmp.Diff(want, p.nonces(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLagWithoutTime: btcpool's messages have no time, but their shares do.
func TestLagWithoutTime(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	s := newShare(1, time.Now().Add(-time.Minute).Unix())
	if err := p.client.Write(t.Context(), p.cfg.Kafka.Topics.Share, bus.Message{Time: time.UnixMilli(-1), Value: s.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
	_, _ = p.start(t)
	testkit.Eventually(t, "the share", func() bool { return len(p.nonces(t)) == 1 })
	if lag := testkit.Metric(t, p.registry, "btcpool_sharelogger_lag_seconds"); lag < 60 || lag > 60+testkit.Patience.Seconds() {
		t.Errorf("lag of %v s, want a minute", lag)
	}
}
