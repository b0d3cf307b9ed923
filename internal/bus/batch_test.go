package bus_test

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/test/latency/busynode"
)

// librarySet is what the library makes of messages.
func librarySet(tb testing.TB, msgs []bus.Message) []byte {
	tb.Helper()
	records := make([]kafka.Record, len(msgs))
	for i, m := range msgs {
		records[i] = kafka.Record{Time: m.Time, Key: kafka.NewBytes(m.Key), Value: kafka.NewBytes(m.Value)}
	}
	var buf bytes.Buffer
	set := protocol.RecordSet{Version: 2, Records: protocol.NewRecordReader(records...)}
	if _, err := set.WriteTo(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// libraryMessages is what the library reads in a record set.
func libraryMessages(tb testing.TB, encoded []byte) (attributes protocol.Attributes, msgs []bus.Message) {
	tb.Helper()
	var set protocol.RecordSet
	if _, err := set.ReadFrom(bytes.NewReader(encoded)); err != nil {
		tb.Fatal(err)
	}
	for {
		r, err := set.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return set.Attributes, msgs
		}
		if err != nil {
			tb.Fatal(err)
		}
		key, err := protocol.ReadAll(r.Key)
		must(tb, err)
		value, err := protocol.ReadAll(r.Value)
		must(tb, err)
		msgs = append(msgs, bus.Message{Offset: r.Offset, Time: r.Time, Key: key, Value: value})
	}
}

func TestRecordSet(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_700_000_000_000)
	for _, tc := range []struct {
		name string
		msgs []bus.Message
	}{
		{"one", []bus.Message{{Time: at, Value: []byte("value")}}},
		{"empty", []bus.Message{{Time: at, Key: []byte{}, Value: []byte{}}, {Time: at}}},
		{"times", []bus.Message{{Time: at}, {Time: at.Add(time.Hour)}, {Time: at.Add(-time.Hour)}, {Time: time.UnixMilli(1)}}},
		{"large", []bus.Message{{Time: at, Key: make([]byte, 100), Value: make([]byte, 200<<10)}}},
		{"many", shares(2000, at)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			plain := bus.RecordSet(tc.msgs, time.Time{}, false)
			if want := librarySet(t, tc.msgs); !bytes.Equal(plain, want) {
				t.Errorf("%d bytes begin with %x, not %d with %x", len(plain), plain[:min(100, len(plain))], len(want), want[:min(100, len(want))])
			}
			attributes, got := libraryMessages(t, bus.RecordSet(tc.msgs, time.Time{}, true))
			_, want := libraryMessages(t, plain)
			if diff := cmp.Diff(want, got); diff != "" || attributes.Compression() != compress.Snappy {
				t.Errorf("compressed with %s: %s", attributes.Compression(), diff)
			}
		})
	}
	now := time.UnixMilli(5)
	_, got := libraryMessages(t, bus.RecordSet([]bus.Message{{Value: []byte("v")}}, now, false))
	if diff := cmp.Diff([]bus.Message{{Time: now, Value: []byte("v")}}, got); diff != "" {
		t.Error("zero time: ", diff)
	}
}

func FuzzRecordSet(f *testing.F) {
	f.Add([]byte("key value another"), int64(1), uint8(3))
	f.Add(make([]byte, 300), int64(1<<40), uint8(130))
	f.Fuzz(func(t *testing.T, text []byte, milli int64, step uint8) {
		if milli <= 0 || milli > 1<<50 {
			return // no time that the library can say
		}
		var msgs []bus.Message
		for rest, i := text, int64(0); len(rest) > 0 && i < 1000; i++ {
			n := min(len(rest), 1+int(step))
			m := bus.Message{Time: time.UnixMilli(milli + i*int64(step)), Key: rest[:n/3], Value: rest[n/3 : n]}
			if n%2 == 0 {
				m.Key = nil
			}
			msgs, rest = append(msgs, m), rest[n:]
		}
		if len(msgs) == 0 {
			return
		}
		plain := bus.RecordSet(msgs, time.Time{}, false)
		if diff := cmp.Diff(librarySet(t, msgs), plain); diff != "" {
			t.Fatal(diff)
		}
		_, want := libraryMessages(t, plain)
		_, got := libraryMessages(t, bus.RecordSet(msgs, time.Time{}, true))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// shares returns n messages about as long and as repetitive as shares.
func shares(n int, at time.Time) []bus.Message {
	rng := rand.New(rand.NewPCG(1, 2))
	msgs := make([]bus.Message, n)
	for i := range msgs {
		value := bytes.Repeat([]byte("a field that says much the same "), 4)[:110]
		for j := 0; j < len(value); j += 3 {
			value[j] = byte(rng.Uint32())
		}
		msgs[i] = bus.Message{Time: at, Key: value[:8], Value: value}
	}
	return msgs
}

// BenchmarkRecordSet measures encoding beside the library's and beside a copy and a checksum of the same bytes; an
// operation is a batch of 1,000 shares, or a full template.
func BenchmarkRecordSet(b *testing.B) {
	at := time.Now()
	template := []bus.Message{{Time: at, Value: job.NewRawGBT(busynode.Template(1), at).AppendTo(nil)}}
	for _, tc := range []struct {
		name     string
		msgs     []bus.Message
		compress bool
	}{
		{"shares", shares(1000, at), true},
		{"template", template, false},
		{"template compressed", template, true},
	} {
		encode := bus.RecordSetEncoder(tc.msgs, tc.compress)
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				size = len(encode())
			}
			b.ReportMetric(float64(size)/float64(len(bus.RecordSet(tc.msgs, at, false))), "size/plain")
		})
		b.Run(tc.name+"/library", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				librarySet(b, tc.msgs)
			}
		})
		b.Run(tc.name+"/limit", func(b *testing.B) {
			table := crc32.MakeTable(crc32.Castagnoli)
			dst := make([]byte, len(bus.RecordSet(tc.msgs, at, false)))
			for b.Loop() {
				n := 0
				for i := range tc.msgs {
					n += copy(dst[n:], tc.msgs[i].Key)
					n += copy(dst[n:], tc.msgs[i].Value)
				}
				_ = crc32.Checksum(dst[:n], table)
			}
		})
	}
}
