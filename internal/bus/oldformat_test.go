package bus_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/s2"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/compress/gzip"
	"github.com/segmentio/kafka-go/compress/lz4"
	"github.com/segmentio/kafka-go/compress/snappy"

	"btcpool/internal/bus"
	"btcpool/internal/testkit"
)

// oldCodecs are how a message of the old format may be compressed. librdkafka does not frame what it compresses with
// snappy, Java's client does.
var oldCodecs = map[string]compress.Codec{
	"plain":         nil,
	"gzip":          &gzip.Codec{},
	"snappy":        &snappy.Codec{Framing: snappy.Unframed},
	"framed snappy": &snappy.Codec{Framing: snappy.Framed},
	"lz4":           &lz4.Codec{},
}

func TestOldRecords(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_500_000_000_000)
	values := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	for name, codec := range oldCodecs {
		for _, set := range []testkit.OldSet{
			{Version: 0, Compress: codec, First: 100, Absolute: true},
			{Version: 0, Compress: codec, First: 0, Absolute: true},
			{Version: 1, Compress: codec, First: 100, Time: at},
			{Version: 1, Compress: codec, First: 100, Time: time.UnixMilli(-1)},
		} {
			var want []bus.Message
			for i, value := range values {
				m := bus.Message{Offset: set.First + int64(i), Value: value}
				if set.Time.Equal(at) {
					m.Time = at
				}
				want = append(want, m)
			}
			encoded := set.Encode(t, values...)
			for from := range len(values) + 1 {
				next := set.First + int64(from)
				got, after, err := bus.Records(encoded, next)
				if diff := cmp.Diff(want[from:], got, cmpopts.EquateEmpty()); err != nil || after != want[2].Offset+1 || diff != "" {
					t.Errorf("%s, version %d, from %d of %d: %v, then %d: %s", name, set.Version, next, set.First, err, after, diff)
				}
			}
			message := len(encoded)
			if codec == nil {
				message /= len(values)
			}
			for i := 12; i < message; i++ { // offset and size have no checksum
				damaged := slices.Clone(encoded)
				damaged[i] ^= 0x10
				if got, _, err := bus.Records(damaged, set.First); err == nil || got != nil {
					t.Errorf("%s, version %d: byte %d damaged: %d messages", name, set.Version, i, len(got))
				}
			}
		}
	}
}

// TestOldRecordsOutOfPlace has a compressed message that holds what it cannot.
func TestOldRecordsOutOfPlace(t *testing.T) {
	t.Parallel()
	var set testkit.OldSet
	late := set.Append(nil, 6, 0, []byte("a"))
	for name, inner := range map[string][]byte{
		"an offset behind its own": late,
		"a compressed message":     set.Append(nil, 5, byte(compress.Snappy), []byte("a")),
		"half a message":           late[:len(late)-1],
	} {
		if got, after, err := bus.Records(set.Append(nil, 5, byte(compress.Snappy), s2.EncodeSnappy(nil, inner)), 0); err == nil {
			t.Errorf("%s: %d messages, then %d", name, len(got), after)
		}
	}
	if got, after, err := bus.Records(set.Append(nil, 5, byte(compress.Snappy), s2.EncodeSnappy(nil, nil)), 0); err != nil || got != nil || after != 6 {
		t.Errorf("nothing: %d messages, then %d, %v", len(got), after, err)
	}
}
