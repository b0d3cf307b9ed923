package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"btcpool/internal/bus"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	must(t, bus.DefaultConfig().Validate())

	parentOnly := bus.DefaultConfig()
	parentOnly.Topics.AuxWork, parentOnly.Topics.AuxSolved, parentOnly.Topics.RSKWork, parentOnly.Topics.RSKSolved = "", "", "", ""
	must(t, parentOnly.Validate())

	bad := bus.DefaultConfig()
	bad.Brokers = []string{"kafka1:9092", "kafka2"}
	bad.Replication = 0
	bad.Partitions = 0
	bad.Topics.Job = "no/slash"
	bad.Topics.SolvedShare = bad.Topics.Share
	bad.Topics.RSKWork = bad.Topics.AuxWork
	want := `kafka.brokers has "kafka2": must be host:port
kafka.replication = 0: must be 1 to 32767
kafka.share_partitions = 0: must be 1 to 1000
kafka.topics.job = "no/slash": must be 1 to 249 of letters, digits, '.', '_' and '-'
kafka.topics.solved_share = "BtcShare": is share already
kafka.topics.rsk_work = "AuxPowBlock": is aux_work already`
	if diff := cmp.Diff(want, fmt.Sprint(bad.Validate())); diff != "" {
		t.Error(diff)
	}
}

func TestCheckTopic(t *testing.T) {
	t.Parallel()
	for name, valid := range map[string]bool{
		"BtcShare": true, "a.b_c-9": true, "...": true, strings.Repeat("x", 249): true,
		"": false, ".": false, "..": false, "no/slash": false, "ä": false, "a\n": false, strings.Repeat("x", 250): false,
	} {
		if err := bus.CheckTopic(name); (err == nil) != valid {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

// read returns the first n values that Read delivers.
func read(tb testing.TB, c *bus.Client, topic string, from bus.Start, n int) []string {
	tb.Helper()
	var got []string
	errEnough := errors.New("enough")
	err := c.Read(testContext(tb), topic, from, func(m bus.Message) error {
		if got = append(got, string(m.Value)); len(got) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		tb.Fatalf("read %d of %d from %s: %v", len(got), n, topic, err)
	}
	return got
}

// mark is that of a message without a key.
func mark(offset int64, value string) bus.Mark {
	m := bus.Message{Offset: offset, Value: []byte(value)}
	return m.Mark()
}

func TestReadStarts(t *testing.T) {
	t.Parallel()
	c, cfg := newBus(t, 1)
	ctx := testContext(t)
	topic := cfg.Topics.Job
	must(t, c.EnsureTopics(ctx, topic))

	noon := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for i := range 10 {
		must(t, c.Write(ctx, topic, bus.Message{Time: noon.Add(time.Duration(i) * time.Minute), Value: fmt.Appendf(nil, "%d", i)}))
	}
	for _, tc := range []struct {
		name string
		from bus.Start
		want []string
	}{
		{"earliest", bus.Earliest(), []string{"0", "1"}},
		{"last", bus.Last(3), []string{"7", "8", "9"}},
		{"last of more than there are", bus.Last(100), []string{"0", "1"}},
		{"since a message's time", bus.Since(noon.Add(4*time.Minute), 9), []string{"4", "5"}},
		{"since between two", bus.Since(noon.Add(4*time.Minute+time.Second), 9), []string{"5", "6"}},
		{"after", bus.After(map[int]bus.Mark{0: mark(7, "7")}, 0), []string{"8", "9"}},
		{"after, and some before", bus.After(map[int]bus.Mark{0: mark(7, "7")}, 3), []string{"5", "6"}},
		{"after, and more before than there are", bus.After(map[int]bus.Mark{0: mark(7, "7")}, 100), []string{"0"}},
		{"after, partition not named", bus.After(nil, 0), []string{"0"}},
		{"after what is not known", bus.After(map[int]bus.Mark{0: {Offset: 7}}, 0), []string{"8", "9"}},
		{"after nothing", bus.After(map[int]bus.Mark{0: {Offset: -1}}, 0), []string{"0"}},
		{"after another", bus.After(map[int]bus.Mark{0: mark(7, "70")}, 0), []string{"0"}},
		{"after another, and some before", bus.After(map[int]bus.Mark{0: mark(7, "70")}, 3), []string{"0"}},
		{"after one beyond the end", bus.After(map[int]bus.Mark{0: mark(1000, "7")}, 0), []string{"0"}},
		{"beyond the end after what is not known", bus.After(map[int]bus.Mark{0: {Offset: 1000}}, 995), []string{"0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, read(t, c, topic, tc.from, len(tc.want))); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, from := range map[string]bus.Start{
		"latest": bus.Latest(), "last 0": bus.Last(0), "since the future": bus.Since(time.Now().Add(time.Hour), 9),
	} {
		t.Run(name, func(t *testing.T) {
			reading, cancel := context.WithCancel(ctx)
			defer cancel()
			ready := make(chan struct{})
			var got []string
			done := make(chan error, 1)
			go func() {
				done <- c.Read(reading, topic, from, func(m bus.Message) error {
					got = append(got, string(m.Value))
					cancel()
					return nil
				}, bus.CaughtUp(func() { close(ready) }))
			}()
			<-ready
			must(t, c.Write(ctx, topic, bus.Message{Value: []byte(name)}))
			must(t, <-done)
			if diff := cmp.Diff([]string{name}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadSinceWithoutTimes(t *testing.T) {
	t.Parallel()
	c, cfg := newBus(t, 1)
	testReadSinceWithoutTimes(t, c, cfg.Topics.Job, func(values ...[]byte) { writeWithoutTime(t, c, cfg.Topics.Job, values...) })
}

// writeWithoutTime writes messages as converted ones stand in a topic.
func writeWithoutTime(t *testing.T, c *bus.Client, topic string, values ...[]byte) {
	t.Helper()
	for _, value := range values {
		must(t, c.Write(testContext(t), topic, bus.Message{Time: time.UnixMilli(-1), Value: value}))
	}
}

// testReadSinceWithoutTimes reads a topic that write appends messages without time to.
func testReadSinceWithoutTimes(t *testing.T, c *bus.Client, topic string, write func(values ...[]byte)) {
	t.Helper()
	ctx := testContext(t)
	must(t, c.EnsureTopics(ctx, topic))
	hourAgo := time.Now().Add(-time.Hour)
	since := func(n int) string {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		got := []byte{}
		must(t, c.Read(ctx, topic, bus.Since(hourAgo, n), func(m bus.Message) error {
			if want := m.Value[0] < 'A'; m.Time.IsZero() != want {
				t.Errorf("%s has the time %v", m.Value, m.Time)
			}
			got = append(got, m.Value...)
			return nil
		}, bus.CaughtUp(cancel)))
		return string(got)
	}
	check := func(n int, want string) {
		t.Helper()
		if got := since(n); got != want {
			t.Errorf("the last %d in doubt: %q, want %q", n, got, want)
		}
	}
	check(3, "")
	write([]byte("0"), []byte("1"), []byte("2"), []byte("3"))
	check(3, "123")
	check(100, "0123")
	check(0, "")
	must(t, c.Write(ctx, topic, bus.Message{Value: []byte("A")})) // another service has been replaced
	check(2, "23A")
	write([]byte("4"))
	check(2, "23A4")
	must(t, c.Write(ctx, topic, bus.Message{Time: hourAgo.Add(-time.Second), Value: []byte("B")}, bus.Message{Value: []byte("C")}))
	check(2, "23A4BC")
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	const partitions = 4
	c, cfg := newBus(t, partitions)
	ctx := testContext(t)
	topic := cfg.Topics.Share
	must(t, c.EnsureTopics(ctx, topic))

	var msgs []bus.Message
	want := make(map[int][]string)
	for i := range 1000 {
		m := bus.Message{Key: fmt.Appendf(nil, "worker%d", i%17), Value: fmt.Appendf(nil, "%d", i)}
		if i%100 == 0 {
			m.Key = nil
		}
		p := 0
		if m.Key != nil {
			p = int(crc32.ChecksumIEEE(m.Key) % partitions)
		}
		want[p] = append(want[p], string(m.Key)+":"+string(m.Value))
		msgs = append(msgs, m)
	}
	must(t, c.Write(ctx, topic, msgs...))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got := make(map[int][]string)
	caughtUp := 0
	err := c.Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
		if m.Offset != int64(len(got[m.Partition])) || time.Since(m.Time).Abs() > time.Minute {
			t.Errorf("partition %d: offset %d, time %v", m.Partition, m.Offset, m.Time)
		}
		got[m.Partition] = append(got[m.Partition], string(m.Key)+":"+string(m.Value))
		return nil
	}, bus.CaughtUp(func() { caughtUp++; cancel() }))
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" || caughtUp != 1 {
		t.Errorf("caught up %d times\n%s", caughtUp, diff)
	}
}

// TestLeastReplicas wants the partition that is lost first to count.
func TestLeastReplicas(t *testing.T) {
	t.Parallel()
	partition := func(replicas int) kafka.Partition { return kafka.Partition{Replicas: make([]kafka.Broker, replicas)} }
	for _, c := range []struct {
		want int
		of   []kafka.Partition
	}{
		{0, nil},
		{3, []kafka.Partition{partition(3)}},
		{1, []kafka.Partition{partition(3), partition(1), partition(2)}},
		{0, []kafka.Partition{partition(0), partition(2)}},
	} {
		if got := bus.LeastReplicas(c.of); got != c.want {
			t.Errorf("%d partitions: %d, want %d", len(c.of), got, c.want)
		}
	}
}

func TestReadReturnsHandlersError(t *testing.T) {
	t.Parallel()
	c, cfg := newBus(t, 1)
	ctx := testContext(t)
	must(t, c.EnsureTopics(ctx, cfg.Topics.Job))
	must(t, c.Write(ctx, cfg.Topics.Job, numbered(0, 10)...))
	want := errors.New("full")
	n := 0
	err := c.Read(ctx, cfg.Topics.Job, bus.Earliest(), func(bus.Message) error { n++; return want })
	if !errors.Is(err, want) || n != 1 {
		t.Errorf("got %v after %d messages", err, n)
	}
}

func TestLargeTemplates(t *testing.T) {
	t.Parallel()
	c, cfg := newBus(t, 1)
	ctx := testContext(t)
	topic := cfg.Topics.RawGBT
	must(t, c.EnsureTopics(ctx, topic))
	// What does not compress must fit as well.
	want := make([]byte, bus.MaxTemplate-1<<20)
	state := uint32(1)
	for i := range want {
		state = state*1664525 + 1013904223
		want[i] = byte(state >> 24)
	}
	must(t, c.Write(ctx, topic, bus.Message{Value: want}, bus.Message{Value: []byte("next")}))
	got := read(t, c, topic, bus.Earliest(), 2)
	if !bytes.Equal([]byte(got[0]), want) || got[1] != "next" {
		t.Errorf("got %d and %d bytes", len(got[0]), len(got[1]))
	}

	err := c.Write(ctx, cfg.Topics.RawGBT, bus.Message{Value: append(want, want[:2<<20]...)})
	if !errors.Is(err, kafka.MessageSizeTooLarge) {
		t.Errorf("above the limit: got %v, want MessageSizeTooLarge", err)
	}
}

func TestEnsureTopicsChecksLimits(t *testing.T) {
	t.Parallel()
	_, cfg := newBus(t, 1)
	ctx := testContext(t)

	// A topic that exists under another name was made with other limits.
	other := cfg
	other.Topics.RawGBT, other.Topics.Job = cfg.Topics.Job, cfg.Topics.RawGBT
	must(t, testkit.Bus(t, other).EnsureTopics(ctx, cfg.Topics.RawGBT))

	err := testkit.Bus(t, cfg).EnsureTopics(ctx, cfg.Topics.RawGBT)
	if err == nil || !strings.Contains(err.Error(), "max.message.bytes=67108864") {
		t.Errorf("got %v, want an error naming the setting", err)
	}
}

func TestEnsureTopicsTwice(t *testing.T) {
	t.Parallel()
	_, cfg := newBus(t, 3)
	ctx := testContext(t)
	all := []string{cfg.Topics.RawGBT, cfg.Topics.Job, cfg.Topics.Share, cfg.Topics.SolvedShare, cfg.Topics.CommonEvents}
	done := make(chan error)
	for range 4 {
		go func() { done <- testkit.Bus(t, cfg).EnsureTopics(ctx, all...) }()
	}
	for range 4 {
		must(t, <-done)
	}
}

// TestTellsWhyBrokersAreAway looks at what is logged: whom to look after, and why.
func TestTellsWhyBrokersAreAway(t *testing.T) {
	t.Parallel()
	free := testkit.FreeAddr(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { other.Close() })
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			conn.Close()
		}
	}()
	for addr, want := range map[string]string{
		free:                        "nothing listens at " + free + ": is Kafka running, and is kafka.brokers right?",
		"no-such-host.invalid:9092": "the host of no-such-host.invalid:9092 is not known: is Kafka running, and is kafka.brokers right?",
		other.Addr().String():       "Kafka at " + other.Addr().String() + ": its first answer is none of Kafka's: is it running, and is kafka.brokers right?",
	} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			cfg := bus.DefaultConfig()
			cfg.Brokers = []string{addr}
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			lines := make(lines, 1)
			c, err := bus.New(cfg, telemetry.Deps{Log: zerolog.New(lines)})
			must(t, err)
			defer c.Close()
			done := make(chan error, 1)
			go func() { done <- c.EnsureTopics(ctx, cfg.Topics.Job) }()
			select {
			case line := <-lines:
				if !strings.Contains(line, want) {
					t.Errorf("logged %s, want %s", line, want)
				}
			case <-ctx.Done():
				t.Error("nothing was logged")
			}
			cancel()
			must(t, <-done)
		})
	}
}

// lines passes on lines that are written to it, as many as it has room for.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default:
	}
	return len(line), nil
}

// await waits until a line has text.
func (l lines) await(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("%q was not logged", text)
		}
	}
}

func TestWaitsForBroker(t *testing.T) {
	t.Parallel()
	cfg, stop, start := restartable(t)
	stop()

	c := testkit.Bus(t, cfg)
	ctx := testContext(t)
	if err := c.Ping(ctx); err == nil {
		t.Error("ping without a broker succeeded")
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	must(t, c.EnsureTopics(short, cfg.Topics.Job)) // the end of a context is no fault of these two
	must(t, c.Read(short, cfg.Topics.Job, bus.Earliest(), nil))
	if err := c.Write(short, cfg.Topics.Job, numbered(0, 1)...); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("write without a broker: got %v", err)
	}

	written := make(chan error, 1)
	go func() {
		if err := c.EnsureTopics(ctx, cfg.Topics.Job); err != nil {
			written <- err
			return
		}
		written <- c.Write(ctx, cfg.Topics.Job, numbered(0, 3)...)
	}()
	gotten := make(chan []string, 1)
	go func() { gotten <- read(t, c, cfg.Topics.Job, bus.Earliest(), 3) }()

	start()
	must(t, <-written)
	if diff := cmp.Diff([]string{"0", "1", "2"}, <-gotten); diff != "" {
		t.Error(diff)
	}
	must(t, c.Ping(ctx))
}

// TestFailing tells that the topic cannot be read while the broker is away, and that it is read again.
func TestFailing(t *testing.T) {
	t.Parallel()
	cfg, stop, start := restartable(t)
	topic := cfg.Topics.SolvedShare
	c := testkit.Bus(t, cfg, topic)
	said, read := make(chan error, 10), make(chan struct{})
	testkit.Run(t, func(ctx context.Context) error {
		return c.Read(ctx, topic, bus.Earliest(), func(bus.Message) error { return nil },
			bus.CaughtUp(func() { close(read) }), bus.Failing(func(err error) { said <- err }))
	})
	<-read
	for range 2 {
		stop()
		if err := <-said; err == nil || !strings.Contains(err.Error(), "partition 0") {
			t.Errorf("the broker is away: %v", err)
		}
		start()
		if err := <-said; err != nil {
			t.Errorf("it is back: %v", err)
		}
	}
}

// TestTopicMadeAnew reads on after a topic was deleted, made anew and filled beyond where its reader was, which was away
// or, the second time, there.
func TestTopicMadeAnew(t *testing.T) {
	t.Parallel()
	cfg := testkit.Broker(t)
	registry := prometheus.NewRegistry()
	c, err := bus.New(cfg, telemetry.Deps{Log: zerolog.Nop(), Metrics: registry})
	must(t, err)
	defer c.Close()
	ctx := testContext(t)
	topic := cfg.Topics.SolvedShare
	fill := func(from, to int) { // by a client that does not think that the topic is still there
		must(t, testkit.Bus(t, cfg, topic).Write(ctx, topic, numbered(from, to)...))
	}
	rewinds := func() float64 { return testkit.Metric(t, registry, "btcpool_bus_read_rewinds_total") }
	fill(0, 5)
	last := mark(4, "4")
	testkit.DeleteTopic(t, cfg, topic)
	fill(10, 17)

	var got []string
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	arrived := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Read(reading, topic, bus.After(map[int]bus.Mark{0: last}, 0), func(m bus.Message) error {
			arrived <- string(m.Value)
			return nil
		}, bus.Rewound(func(partition int, earliest int64) { arrived <- fmt.Sprintf("%d:%d", partition, earliest) }))
	}()
	take := func(n int) {
		for range n {
			select {
			case value := <-arrived:
				got = append(got, value)
			case <-ctx.Done():
				t.Fatalf("only %v came", got)
			}
		}
	}
	take(1 + 7)
	if n := rewinds(); n != 1 {
		t.Errorf("%v rewinds while the reader was away", n)
	}
	testkit.DeleteTopic(t, cfg, topic)
	testkit.Eventually(t, "the reader knows", func() bool {
		return testkit.Metric(t, registry, "btcpool_bus_read_errors_total") > 0
	})
	fill(20, 28)
	take(1 + 8)
	if n := rewinds(); n != 2 {
		t.Errorf("%v rewinds in all", n)
	}
	fill(28, 29)
	take(1)
	cancel()
	must(t, <-ended)
	want := "0:0 10 11 12 13 14 15 16 0:0 20 21 22 23 24 25 26 27 28"
	if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
		t.Error(diff)
	}
}

// TestEmptyTopicIsNotRewound restarts the broker under the reader of a topic that nothing was written to: nothing is
// lost.
func TestEmptyTopicIsNotRewound(t *testing.T) {
	t.Parallel()
	cfg, stop, start := restartable(t)
	log, registry := make(lines, 100), prometheus.NewRegistry()
	c, err := bus.New(cfg, telemetry.Deps{Log: zerolog.New(log), Metrics: registry})
	must(t, err)
	defer c.Close()
	ctx := testContext(t)
	topic := cfg.Topics.SolvedShare
	must(t, c.EnsureTopics(ctx, topic))

	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	caughtUp, got, ended := make(chan struct{}), make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- c.Read(reading, topic, bus.Earliest(), func(m bus.Message) error {
			got <- string(m.Value)
			return nil
		}, bus.CaughtUp(func() { close(caughtUp) }))
	}()
	<-caughtUp
	stop()
	log.await(ctx, t, "read from topic: will try again")
	start()
	log.await(ctx, t, "read from topic: succeeded")
	must(t, c.Write(ctx, topic, numbered(0, 1)...))
	select {
	case <-got:
	case err := <-ended:
		t.Fatal(err)
	}
	cancel()
	must(t, <-ended)
	if n := testkit.Metric(t, registry, "btcpool_bus_read_rewinds_total"); n != 0 {
		t.Errorf("%v rewinds", n)
	}
}

// TestBrokerRestarts kills the broker again and again under a writer and a reader.
func TestBrokerRestarts(t *testing.T) {
	t.Parallel()
	cfg, stop, start := restartable(t)
	c := testkit.Bus(t, cfg)
	ctx := testContext(t)
	topic := cfg.Topics.SolvedShare
	must(t, c.EnsureTopics(ctx, topic))

	const restarts, perRestart = 3, 200
	progress := make(chan int, restarts*perRestart)
	writer := make(chan error, 1)
	go func() {
		for i := range restarts * perRestart {
			if err := c.Write(ctx, topic, numbered(i, i+1)...); err != nil {
				writer <- err
				return
			}
			progress <- i
		}
		writer <- nil
	}()
	last := fmt.Sprint(restarts*perRestart - 1)
	errDone := errors.New("done")
	read := make(chan []string, 1)
	go func() {
		var got []string
		err := c.Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
			if got = append(got, string(m.Value)); string(m.Value) == last {
				return errDone
			}
			return nil
		})
		if !errors.Is(err, errDone) {
			t.Errorf("reader ended after %d: %v", len(got), err)
		}
		read <- got
	}()
	for i := range progress {
		if i%perRestart == perRestart/2 {
			stop()
			start()
		}
		if i == restarts*perRestart-1 {
			break
		}
	}
	must(t, <-writer)
	// A write whose answer was lost is there twice, one after the other.
	got := <-read
	unique := slices.Compact(slices.Clone(got))
	t.Logf("%d messages, %d repeated", len(unique), len(got)-len(unique))
	want := make([]string, restarts*perRestart)
	for i := range want {
		want[i] = fmt.Sprint(i)
	}
	if diff := cmp.Diff(want, unique); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkWriteOne(b *testing.B) {
	c, cfg := newBus(b, 1)
	must(b, c.EnsureTopics(b.Context(), cfg.Topics.SolvedShare))
	msg := bus.Message{Value: make([]byte, 200)}
	b.ReportAllocs()
	for b.Loop() {
		must(b, c.Write(b.Context(), cfg.Topics.SolvedShare, msg))
	}
}

func BenchmarkWriteBatch(b *testing.B) {
	c, cfg := newBus(b, 1)
	must(b, c.EnsureTopics(b.Context(), cfg.Topics.Share))
	msgs := make([]bus.Message, 1000)
	for i := range msgs {
		msgs[i].Value = bytes.Repeat([]byte{byte(i)}, 96)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(msgs) * 96))
	for b.Loop() {
		must(b, c.Write(b.Context(), cfg.Topics.Share, msgs...))
	}
}

// BenchmarkDelivery measures from before Write to the reader's handle, one message at a time.
func BenchmarkDelivery(b *testing.B) {
	c, cfg := newBus(b, 1)
	topic := cfg.Topics.Job
	must(b, c.EnsureTopics(b.Context(), topic))
	ctx, cancel := context.WithCancel(b.Context())
	arrived, ready, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- c.Read(ctx, topic, bus.Latest(), func(bus.Message) error { arrived <- struct{}{}; return nil },
			bus.CaughtUp(func() { close(ready) }))
	}()
	<-ready
	msg := bus.Message{Value: make([]byte, 2000)}
	for b.Loop() {
		must(b, c.Write(ctx, topic, msg))
		<-arrived
	}
	cancel()
	must(b, <-done)
}

func BenchmarkRead(b *testing.B) {
	c, cfg := newBus(b, 1)
	topic := cfg.Topics.Share
	must(b, c.EnsureTopics(b.Context(), topic))
	msgs := make([]bus.Message, 100_000)
	for i := range msgs {
		msgs[i].Value = bytes.Repeat([]byte{byte(i)}, 96)
	}
	must(b, c.Write(b.Context(), topic, msgs...))
	b.ReportAllocs()
	b.SetBytes(int64(len(msgs) * 96))
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		n := 0
		must(b, c.Read(ctx, topic, bus.Earliest(), func(bus.Message) error { n++; return nil }, bus.CaughtUp(cancel)))
		if n != len(msgs) {
			b.Fatalf("read %d", n)
		}
	}
}
