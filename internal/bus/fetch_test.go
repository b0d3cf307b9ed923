package bus_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"

	"btcpool/internal/bus"
	"btcpool/internal/testkit"
)

// setPrefix is the size of a record set's size.
const setPrefix = 4

// encodeSet is what the library makes of messages, in a format and compression.
func encodeSet(tb testing.TB, version int8, how compress.Compression, msgs []bus.Message) []byte {
	tb.Helper()
	records := make([]kafka.Record, len(msgs))
	for i, m := range msgs {
		records[i] = kafka.Record{Offset: m.Offset, Time: m.Time, Key: kafka.NewBytes(m.Key), Value: kafka.NewBytes(m.Value)}
	}
	var buf bytes.Buffer
	set := protocol.RecordSet{Version: version, Attributes: protocol.Attributes(how), Records: protocol.NewRecordReader(records...)}
	if _, err := set.WriteTo(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()[setPrefix:]
}

func offsets(msgs []bus.Message, first int64) []bus.Message {
	msgs = slices.Clone(msgs)
	for i := range msgs {
		msgs[i].Offset = first + int64(i)
	}
	return msgs
}

func TestRecords(t *testing.T) {
	t.Parallel()
	msgs := offsets(shares(100, time.UnixMilli(1_700_000_000_000)), 0)
	msgs[7].Key = nil
	for _, how := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		set := encodeSet(t, 2, how, msgs)
		got, after, err := bus.Records(set, 0)
		if diff := cmp.Diff(msgs, got); err != nil || after != 100 || diff != "" {
			t.Errorf("%s: %v, then %d: %s", how, err, after, diff)
		}
		got, after, err = bus.Records(set, 42)
		if diff := cmp.Diff(msgs[42:], got); err != nil || after != 100 || diff != "" {
			t.Errorf("%s from the middle: %v, then %d: %s", how, err, after, diff)
		}
	}
	got, after, err := bus.Records(encodeSet(t, 1, compress.None, msgs), 42)
	if diff := cmp.Diff(msgs[42:], got); err != nil || after != 100 || diff != "" {
		t.Errorf("old format: %v, then %d: %s", err, after, diff)
	}
}

// TestRecordsOfSeveralBatches has a second batch that is cut, damaged or not of messages.
func TestRecordsOfSeveralBatches(t *testing.T) {
	t.Parallel()
	msgs := offsets(shares(20, time.UnixMilli(1_700_000_000_000)), 0)
	first, second := encodeSet(t, 2, compress.None, msgs[:10]), encodeSet(t, 2, compress.None, msgs[10:])
	binary.BigEndian.PutUint64(second, 10) // as the broker does
	damaged := slices.Clone(second)
	damaged[len(damaged)-1] ^= 1
	for _, tc := range []struct {
		name  string
		set   []byte
		n     int
		after int64
	}{
		{"both", slices.Concat(first, second), 20, 20},
		{"cut", slices.Concat(first, second[:len(second)-1]), 10, 10},
		{"cut early", slices.Concat(first, second[:7]), 10, 10},
		{"damaged", slices.Concat(first, damaged), 10, 10},
		{"nothing whole", first[:50], 0, 0},
		{"nothing", nil, 0, 0},
	} {
		got, after, err := bus.Records(tc.set, 0)
		if err != nil || after != tc.after || len(got) != tc.n || cmp.Diff(msgs[:tc.n], got) != "" && tc.n > 0 {
			t.Errorf("%s: %d messages, then %d, %v", tc.name, len(got), after, err)
		}
	}
	if got, after, err := bus.Records(damaged, 10); err == nil || after != 10 || got != nil {
		t.Errorf("damaged: %d messages, then %d", len(got), after)
	}
}

func TestParseFetch(t *testing.T) {
	t.Parallel()
	set := encodeSet(t, 2, compress.None, shares(3, time.UnixMilli(5)))
	answer := &fetchapi.Response{SessionID: 9, ThrottleTimeMs: 9, Topics: []fetchapi.ResponseTopic{{
		Topic: "topic",
		Partitions: []fetchapi.ResponsePartition{{
			Partition:           3,
			HighWatermark:       77,
			LastStableOffset:    76,
			AbortedTransactions: []fetchapi.ResponseTransaction{{ProducerID: 1, FirstOffset: 2}},
		}},
	}}}
	for version := range int16(12) {
		partition := &answer.Topics[0].Partitions[0]
		partition.ErrorCode = 0
		body := encodeAnswer(t, version, answer, set)
		got, highWatermark, err := bus.ParseFetch(body, version)
		if err != nil || highWatermark != 77 || !bytes.Equal(got, set) {
			t.Errorf("version %d: %x up to %d, %v", version, got, highWatermark, err)
		}
		for cut := range body {
			if _, _, err := bus.ParseFetch(body[:cut], version); err == nil {
				t.Errorf("version %d: no error for %d of %d bytes", version, cut, len(body))
			}
		}
		partition.ErrorCode = int16(kafka.OffsetOutOfRange)
		if _, _, err := bus.ParseFetch(encodeAnswer(t, version, answer, nil), version); !errors.Is(err, kafka.OffsetOutOfRange) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

// encodeAnswer returns an answer whose record set is set, without its size.
func encodeAnswer(tb testing.TB, version int16, answer *fetchapi.Response, set []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	partition := &answer.Topics[0].Partitions[0]
	partition.RecordSet = protocol.RecordSet{Version: 2, Records: protocol.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("x"))})}
	must(tb, protocol.WriteResponse(&buf, version, 1, answer))
	var stub bytes.Buffer
	partition.RecordSet = protocol.RecordSet{Version: 2, Records: protocol.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("x"))})}
	n, err := partition.RecordSet.WriteTo(&stub)
	must(tb, err)
	head := buf.Bytes()[4 : buf.Len()-int(n)]
	return slices.Concat(head, binary.BigEndian.AppendUint32(nil, uint32(len(set))), set)
}

func FuzzRecords(f *testing.F) {
	msgs := shares(3, time.UnixMilli(1_700_000_000_000))
	for _, how := range []compress.Compression{compress.None, compress.Snappy} {
		f.Add(encodeSet(f, 2, how, msgs), int64(1))
	}
	for _, codec := range oldCodecs {
		for version := range byte(2) {
			old := testkit.OldSet{Version: version, Compress: codec, First: 5, Time: time.UnixMilli(7), Absolute: version == 0}
			f.Add(old.Encode(f, []byte("a"), []byte("b")), int64(6))
		}
	}
	f.Fuzz(func(t *testing.T, set []byte, next int64) {
		if next < 0 {
			return
		}
		for _, fix := range []bool{false, true} { // or hardly any input has the right checksum
			if fix && !seal(set) {
				return
			}
			msgs, after, err := bus.Records(set, next)
			if err != nil && (msgs != nil || after != next) {
				t.Fatalf("%d messages, then %d, though %v", len(msgs), after, err)
			}
			for _, m := range msgs {
				if m.Offset < next {
					t.Fatalf("message %d from %d on", m.Offset, next)
				}
			}
		}
	})
}

// seal gives a set of one batch its size and checksum.
func seal(set []byte) bool {
	if len(set) > 16 && set[16] < 2 { // the old format
		binary.BigEndian.PutUint32(set[8:], uint32(len(set)-12))
		binary.BigEndian.PutUint32(set[12:], crc32.ChecksumIEEE(set[16:]))
		return true
	}
	if len(set) < 61 {
		return false
	}
	binary.BigEndian.PutUint32(set[8:], uint32(len(set)-12))
	set[16] = 2
	binary.BigEndian.PutUint32(set[17:], crc32.Checksum(set[21:], crc32.MakeTable(crc32.Castagnoli)))
	return true
}

func FuzzParseFetch(f *testing.F) {
	answer := &fetchapi.Response{Topics: []fetchapi.ResponseTopic{{Topic: "t", Partitions: []fetchapi.ResponsePartition{{HighWatermark: 1}}}}}
	for version := range int16(12) {
		f.Add(encodeAnswer(f, version, answer, []byte("records")), version)
	}
	f.Fuzz(func(t *testing.T, body []byte, version int16) {
		set, _, err := bus.ParseFetch(body, version)
		if err == nil && !bytes.Contains(body, set) {
			t.Fatalf("%x is not in %x", set, body)
		}
	})
}

// BenchmarkRecords measures decoding beside the library's: an operation is a batch of 1,000 shares.
func BenchmarkRecords(b *testing.B) {
	set := bus.RecordSet(shares(1000, time.Now()), time.Now(), true)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if msgs, _, err := bus.Records(set[setPrefix:], 0); err != nil || len(msgs) != 1000 {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			libraryMessages(b, set)
		}
	})
}
