package testkit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

// An OldSet encodes messages as Kafka did before version 0.11.
type OldSet struct {
	Version  byte // 0 has no time
	Compress compress.Codec
	Time     time.Time
	First    int64 // offset of the first message
	// Absolute gives compressed messages their offsets in the topic, as brokers do in version 0.
	Absolute bool
}

// Encode returns the set.
func (s OldSet) Encode(tb testing.TB, values ...[]byte) []byte {
	tb.Helper()
	if s.Compress == nil {
		var set []byte
		for i, value := range values {
			set = s.Append(set, s.First+int64(i), 0, value)
		}
		return set
	}
	var inner []byte
	for i, value := range values {
		offset := int64(i)
		if s.Absolute {
			offset += s.First
		}
		inner = s.Append(inner, offset, 0, value)
	}
	var packed bytes.Buffer
	w := s.Compress.NewWriter(&packed)
	if _, err := w.Write(inner); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return s.Append(nil, s.First+int64(len(values))-1, byte(s.Compress.Code()), packed.Bytes())
}

// Append appends one message.
func (s OldSet) Append(dst []byte, offset int64, attributes byte, value []byte) []byte {
	body := []byte{s.Version, attributes}
	if s.Version > 0 {
		body = binary.BigEndian.AppendUint64(body, uint64(s.Time.UnixMilli()))
	}
	body = binary.BigEndian.AppendUint32(body, ^uint32(0)) // no key
	body = binary.BigEndian.AppendUint32(body, uint32(len(value)))
	body = append(body, value...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(body)))
	dst = binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(body))
	return append(dst, body...)
}

// ProduceV0 has a broker append a set to partition 0 of a topic by the oldest version of the request, which is
// btcpool's: its records get no time. Kafka 3 is the last to take it.
func ProduceV0(tb testing.TB, broker, topic string, set []byte) {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", broker, Patience)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		tb.Fatal(err)
	}
	text := func(dst []byte, s string) []byte {
		return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
	}
	request := []byte{0, 0, 0, 0, 0, 0, 0, 1} // produce, version 0, correlation 1
	request = text(request, "rdkafka")
	request = binary.BigEndian.AppendUint16(request, 1)    // acks
	request = binary.BigEndian.AppendUint32(request, 5000) // ms
	request = binary.BigEndian.AppendUint32(request, 1)    // topics
	request = text(request, topic)
	request = binary.BigEndian.AppendUint32(request, 1) // partitions
	request = binary.BigEndian.AppendUint32(request, 0)
	request = append(binary.BigEndian.AppendUint32(request, uint32(len(set))), set...)
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...)); err != nil {
		tb.Fatal(err)
	}
	if err := producedV0(conn, len(topic)); err != nil {
		tb.Fatalf("produce to %s by version 0: %v", topic, err)
	}
}

// producedV0 reads the answer for one partition of a topic whose name has that size.
func producedV0(r io.Reader, topic int) error {
	answer := make([]byte, 4+4+4+2+topic+4+4+2+8)
	if _, err := io.ReadFull(r, answer); err != nil {
		return err
	}
	if size := binary.BigEndian.Uint32(answer); int(size) != len(answer)-4 {
		return fmt.Errorf("answer of %d bytes", size)
	}
	if code := kafka.Error(binary.BigEndian.Uint16(answer[len(answer)-10:])); !errors.Is(code, kafka.Error(0)) {
		return code
	}
	return nil
}
