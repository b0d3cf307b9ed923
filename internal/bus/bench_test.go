package bus_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"

	"btcpool/internal/job"
	"btcpool/test/latency/busynode"
)

// BenchmarkSnappy measures what compression adds to the way of a full template
// beside a copy of it.
func BenchmarkSnappy(b *testing.B) {
	template := job.NewRawGBT(busynode.Template(1), time.Now()).AppendTo(nil)
	var compressed bytes.Buffer
	b.Run("copy", func(b *testing.B) {
		b.SetBytes(int64(len(template)))
		dst := make([]byte, len(template))
		for b.Loop() {
			copy(dst, template)
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(template)))
		for b.Loop() {
			compressed.Reset()
			w := compress.SnappyCodec.NewWriter(&compressed)
			if _, err := w.Write(template); err != nil {
				b.Fatal(err)
			}
			must(b, w.Close())
		}
		b.ReportMetric(float64(compressed.Len())/float64(len(template)), "size/plain")
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(template)))
		for b.Loop() {
			r := compress.SnappyCodec.NewReader(bytes.NewReader(compressed.Bytes()))
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
			must(b, r.Close())
		}
	})
}
