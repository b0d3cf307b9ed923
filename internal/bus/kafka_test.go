//go:build integration

package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/compress/snappy"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
	"btcpool/test/latency/busynode"
)

// newKafkaBus returns a client on Apache Kafka.
func newKafkaBus(tb testing.TB, version string) (*bus.Client, bus.Config) {
	tb.Helper()
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{rig.StartKafkaVersion(tb, tb.TempDir(), version).Addr}
	c := testkit.Bus(tb, cfg)
	must(tb, c.EnsureTopics(tb.Context(), cfg.Topics.Share, cfg.Topics.RawGBT))
	return c, cfg
}

func cpuTime() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// TestKafka is what differs from the embedded broker, on each version of Apache Kafka.
func TestKafka(t *testing.T) {
	t.Parallel()
	for _, version := range []string{rig.Kafka3, rig.Kafka4} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c, cfg := newKafkaBus(t, version)
			t.Run("batches", func(t *testing.T) { testReadsBatches(t, c, cfg) })
			t.Run("groups", func(t *testing.T) {
				cfg := cfg
				cfg.Topics.Share, cfg.Partitions = "Groups", 3
				testGroups(t, testkit.Bus(t, cfg), cfg.Topics.Share)
			})
			t.Run("without times", func(t *testing.T) {
				testReadSinceWithoutTimes(t, c, "Plain", func(values ...[]byte) { writeWithoutTime(t, c, "Plain", values...) })
			})
			if version != rig.Kafka3 {
				t.Run("refuses times", func(t *testing.T) { testRefusesTimes(t, c, "Times") })
				return // it takes nothing older
			}
			for name, codec := range map[string]compress.Codec{"Old": nil, "OldSnappy": &snappy.Codec{Framing: snappy.Unframed}} {
				t.Run(name, func(t *testing.T) {
					testReadSinceWithoutTimes(t, c, name, func(values ...[]byte) {
						testkit.ProduceV0(t, cfg.Brokers[0], name, testkit.OldSet{Compress: codec}.Encode(t, values...))
					})
				})
			}
		})
	}
}

// testReadsBatches lets the broker check and the client read back what each kind of batch is.
func testReadsBatches(t *testing.T, c *bus.Client, cfg bus.Config) {
	at := time.UnixMilli(time.Now().UnixMilli())
	var want []bus.Message
	for _, msgs := range [][]bus.Message{
		shares(1, at),
		shares(3, at),      // plain
		shares(20_000, at), // compressed, in several batches
		{{Time: at, Value: make([]byte, 5<<20)}},
	} {
		must(t, c.Write(t.Context(), cfg.Topics.RawGBT, msgs...))
		for _, m := range msgs {
			m.Offset = int64(len(want))
			want = append(want, m)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	n := 0
	must(t, c.Read(ctx, cfg.Topics.RawGBT, bus.Earliest(), func(m bus.Message) error {
		if w := want[n]; m.Offset != w.Offset || !m.Time.Equal(w.Time) || !bytes.Equal(m.Key, w.Key) || !bytes.Equal(m.Value, w.Value) {
			t.Errorf("message %d came as %d at %v with %d bytes", n, m.Offset, m.Time, len(m.Value))
		}
		n++
		return nil
	}, bus.CaughtUp(cancel)))
	if n != len(want) {
		t.Errorf("%d of %d messages came", n, len(want))
	}
}

// BenchmarkWriteShares measures this process's part of bringing shares to Apache Kafka.
func BenchmarkWriteShares(b *testing.B) {
	c, cfg := newKafkaBus(b, rig.Kafka4)
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			msgs := shares(n, time.Now())
			b.ReportAllocs()
			begin := cpuTime()
			for b.Loop() {
				must(b, c.Write(b.Context(), cfg.Topics.Share, msgs...))
			}
			b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/float64(b.N*n), "cpu-ns/share")
		})
	}
}

// BenchmarkTemplate measures the way of full templates through Apache Kafka: to the acknowledgement, to a reader's
// handler, and what writer and reader compute.
func BenchmarkTemplate(b *testing.B) {
	c, cfg := newKafkaBus(b, rig.Kafka4)
	template := job.NewRawGBT(busynode.Template(1), time.Now()).AppendTo(nil)
	b.Logf("a template has %d bytes", len(template))
	arrived := make(chan time.Time, 100)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		must(b, c.Read(ctx, cfg.Topics.RawGBT, bus.Latest(), func(bus.Message) error {
			arrived <- time.Now()
			return nil
		}, bus.CaughtUp(func() { arrived <- time.Now() })))
	})
	<-arrived
	var acked, handled []time.Duration
	begin := cpuTime()
	for b.Loop() {
		time.Sleep(200 * time.Millisecond) // templates do not come in a row
		start := time.Now()
		must(b, c.Write(b.Context(), cfg.Topics.RawGBT, bus.Message{Value: template}))
		acked = append(acked, time.Since(start))
		handled = append(handled, (<-arrived).Sub(start))
	}
	b.ReportMetric(float64((cpuTime()-begin).Microseconds())/1000/float64(b.N), "cpu-ms/op")
	cancel()
	wg.Wait()
	slices.Sort(acked)
	slices.Sort(handled)
	b.ReportMetric(float64(acked[len(acked)/2].Microseconds())/1000, "acked-p50-ms")
	b.ReportMetric(float64(handled[len(handled)/2].Microseconds())/1000, "handled-p50-ms")
}

// testRefusesTimes writes what a machine writes whose clock is ahead by more than brokers believe, an hour by
// default: it arrives, without a time.
func testRefusesTimes(t *testing.T, c *bus.Client, topic string) {
	must(t, c.EnsureTopics(t.Context(), topic))
	for _, msgs := range [][]bus.Message{
		shares(1, time.Now().Add(-24*time.Hour)),
		shares(1, time.Now().Add(2*time.Hour)),
		shares(200, time.Now().Add(24*time.Hour)), // compressed
	} {
		must(t, c.Write(t.Context(), topic, msgs...))
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	n := 0
	must(t, c.Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
		if timed := m.Time.Unix() > 0; timed != (n == 0) || len(m.Value) == 0 {
			t.Errorf("message %d of %d bytes has the time %v", n, len(m.Value), m.Time)
		}
		if n++; n == 202 {
			cancel()
		}
		return nil
	}))
}
