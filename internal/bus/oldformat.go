package bus

import (
	"fmt"
	"hash/crc32"

	"github.com/segmentio/kafka-go/compress"
)

// Before Kafka 0.11 a record set was one of messages, which topics still hold that were written then, or by a broker
// that was held to the format of then. A message, big-endian:
//
//	 0 i64 offset
//	 8 u32 size of what follows
//	12 u32 CRC-32 of what follows
//	16 i8  format version: 0 or 1
//	17 i8  attributes: the compression, and whether the time is the broker's
//	18 i64 time, Unix milliseconds; not in version 0
//	   i32 size of the key, or -1 for none; key
//	   i32 size of the value, or -1; value
//
// The value of a compressed message is a set of messages, and its offset the last one's. Their own offsets count from
// the first of them in version 1, and are what they say in version 0.
const oldCompression = 7 // among the attributes

// oldMessage is a message as it stands in a set.
type oldMessage struct {
	Message
	version    byte
	attributes byte
}

// takeOld takes a message off the front of a set.
func (f *fields) takeOld() oldMessage {
	m := oldMessage{Message: Message{Offset: f.int64()}}
	body := f.take(int(f.int32()))
	if f.err != nil {
		return m
	}
	b := &fields{b: body}
	sum := uint32(b.int32())
	if b.err == nil && sum != crc32.ChecksumIEEE(b.b) {
		f.err = fmt.Errorf("%w: checksum does not match", errFetch)
		return m
	}
	m.version, m.attributes = b.take(1)[0], b.take(1)[0]
	if m.version == 1 {
		m.Time = timeOf(b.int64())
	}
	m.Key, m.Value = b.bytes32(), b.bytes32()
	if f.err = b.err; f.err == nil && m.version > 1 {
		f.err = errFetch
	}
	return m
}

// bytes32 takes a size in 4 bytes and as many bytes; nil for -1.
func (f *fields) bytes32() []byte {
	n := f.int32()
	if n == -1 {
		return nil
	}
	return f.take(int(n))
}

// oldRecords is batchRecords for a message of the format before Kafka 0.11.
func oldRecords(message []byte, next int64) (msgs []Message, after int64, err error) {
	f := &fields{b: message}
	outer := f.takeOld()
	if f.err != nil {
		return nil, next, f.err
	}
	if outer.Offset < next {
		return nil, next, nil
	}
	after = outer.Offset + 1
	how := compress.Compression(outer.attributes & oldCompression)
	if how == compress.None {
		return []Message{outer.Message}, after, nil
	}
	plain, err := decompress(how, outer.Value)
	if err != nil {
		return nil, next, err
	}
	for f := (&fields{b: plain}); len(f.b) > 0; {
		m := f.takeOld()
		if f.err == nil && m.attributes&oldCompression != 0 {
			f.err = errFetch
		}
		if f.err != nil {
			return nil, next, f.err
		}
		if outer.attributes&brokersTime != 0 {
			m.Time = outer.Time
		}
		msgs = append(msgs, m.Message)
	}
	if len(msgs) == 0 {
		return nil, after, nil
	}
	first := int64(0)
	if outer.version == 1 {
		first = outer.Offset - msgs[len(msgs)-1].Offset
	}
	wanted := msgs[:0]
	for _, m := range msgs {
		if m.Offset += first; m.Offset > outer.Offset {
			return nil, next, fmt.Errorf("%w: offset %d in a message that ends with %d", errFetch, m.Offset, outer.Offset)
		}
		if m.Offset >= next {
			wanted = append(wanted, m)
		}
	}
	return wanted, after, nil
}
