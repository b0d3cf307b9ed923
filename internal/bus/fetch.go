package bus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"
)

const (
	brokersTime  = 1 << 3 // attribute of a batch whose records all have the time when the broker got it
	controlBatch = 1 << 5 // attribute of a transaction's end: it has an offset but is no message
	// maxFetch bounds one answer, and the records of one batch: the largest message, and what comes around it.
	maxFetch = MaxTemplate + fetchBytes + 1<<20
)

var errFetch = errors.New("answer to a fetch is malformed")

// fetchExchange is the library's request whose answer is read into one piece of memory, which messages point into. The
// library would read it into pages and make readers for each key and value, from which they are copied.
type fetchExchange struct {
	*fetchapi.Request
	version int16
}

// Required is told the versions that the connection has agreed on.
func (f *fetchExchange) Required(versions map[protocol.ApiKey]int16) bool {
	f.version = versions[protocol.Fetch]
	return true
}

// RawExchange is the library's way to let a request read its own answer.
func (f *fetchExchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, f.version, 0, clientID, f.Request); err != nil {
		return nil, err
	}
	var prefix [4]byte
	if _, err := io.ReadFull(rw, prefix[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(prefix[:])
	if size > maxFetch {
		return nil, fmt.Errorf("%w: %d bytes", errFetch, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(rw, body); err != nil {
		return nil, err
	}
	return &fetchAnswer{body, f.version}, nil
}

// fetchAnswer is an answer that has not been parsed.
type fetchAnswer struct {
	body    []byte
	version int16
}

// ApiKey makes it a message of the library's.
func (*fetchAnswer) ApiKey() protocol.ApiKey { return protocol.Fetch }

// fields takes big-endian fields off the front of b.
type fields struct {
	b   []byte
	err error
}

func (f *fields) take(n int) []byte {
	if f.err != nil || n < 0 || n > len(f.b) {
		f.err = errFetch
		return make([]byte, min(max(n, 0), 8))
	}
	taken := f.b[:n:n]
	f.b = f.b[n:]
	return taken
}

func (f *fields) int16() int16 { return int16(binary.BigEndian.Uint16(f.take(2))) }
func (f *fields) int32() int32 { return int32(binary.BigEndian.Uint32(f.take(4))) }
func (f *fields) int64() int64 { return int64(binary.BigEndian.Uint64(f.take(8))) }

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b)
	if f.err != nil || n <= 0 {
		f.err = errFetch
		return 0
	}
	f.b = f.b[n:]
	return v
}

// bytes takes a size and as many bytes; nil for -1.
func (f *fields) bytes() []byte {
	n := f.varint()
	if n == -1 {
		return nil
	}
	if n < 0 || n > int64(len(f.b)) {
		f.err = errFetch
		return nil
	}
	return f.take(int(n))
}

// parse returns the record batches of the one partition that was asked for, and the offset behind the partition's last
// record.
func (a *fetchAnswer) parse() (set []byte, highWatermark int64, err error) {
	f := &fields{b: a.body}
	f.int32() // correlation
	if a.version >= 1 {
		f.int32() // throttled, ms
	}
	var code int16
	if a.version >= 7 {
		code = f.int16()
		f.int32() // session
	}
	if f.err == nil && code != 0 {
		return nil, 0, kafka.Error(code)
	}
	if f.int32() != 1 { // topics
		return nil, 0, errFetch
	}
	f.take(int(f.int16()))
	if f.int32() != 1 { // partitions
		return nil, 0, errFetch
	}
	f.int32()
	code = f.int16()
	highWatermark = f.int64()
	if a.version >= 4 {
		f.int64() // last stable offset
	}
	if a.version >= 5 {
		f.int64() // log start offset
	}
	if a.version >= 4 {
		for n := f.int32(); n > 0 && f.err == nil; n-- { // aborted transactions
			f.take(16)
		}
	}
	if a.version >= 11 {
		f.int32() // preferred replica
	}
	if f.err == nil && code != 0 {
		return nil, highWatermark, kafka.Error(code)
	}
	size := f.int32()
	if size <= 0 {
		return nil, highWatermark, f.err
	}
	return f.take(int(size)), highWatermark, f.err
}

// records returns the messages in a record set from offset next on, and the offset behind its last record. They point
// into set. A batch that ends behind set, which brokers may cut there, is left for the next fetch; so is a damaged one
// behind good ones.
func records(set []byte, next int64) (msgs []Message, after int64, err error) {
	start := next
	for len(set) > formatAt {
		size := int64(batchPrefix) + int64(binary.BigEndian.Uint32(set[8:]))
		if size > int64(len(set)) {
			break
		}
		read := batchRecords
		if set[formatAt] < formatVersion {
			read = oldRecords
		}
		found, end, err := read(set[:size:size], next)
		if err != nil && next == start {
			return nil, next, err
		}
		if err != nil {
			break
		}
		if msgs == nil {
			msgs = found
		} else {
			msgs = append(msgs, found...)
		}
		next, set = end, set[size:]
	}
	return msgs, next, nil
}

// batchRecords returns the messages of one batch from offset next on, and the offset behind it.
func batchRecords(batch []byte, next int64) (msgs []Message, after int64, err error) {
	if len(batch) < batchHead || batch[formatAt] != formatVersion {
		return nil, next, errFetch
	}
	if crc32.Checksum(batch[21:], castagnoli) != binary.BigEndian.Uint32(batch[17:]) {
		return nil, next, fmt.Errorf("%w: checksum does not match", errFetch)
	}
	base := int64(binary.BigEndian.Uint64(batch))
	attributes := binary.BigEndian.Uint16(batch[21:])
	end := base + int64(int32(binary.BigEndian.Uint32(batch[23:]))) + 1
	baseTime := int64(binary.BigEndian.Uint64(batch[27:]))
	latest := int64(binary.BigEndian.Uint64(batch[35:]))
	count := int(int32(binary.BigEndian.Uint32(batch[57:])))
	if end <= next || attributes&controlBatch != 0 {
		return nil, max(next, end), nil
	}
	plain, err := decompress(protocol.Attributes(attributes).Compression(), batch[batchHead:])
	if err != nil {
		return nil, next, err
	}
	const leastSize = 7 // bytes of the smallest record
	msgs = make([]Message, 0, min(max(count, 0), len(plain)/leastSize))
	f := &fields{b: plain}
	for range count {
		record := &fields{b: f.bytes(), err: f.err}
		record.take(1) // attributes
		m := Message{Time: timeOf(baseTime + record.varint()), Offset: base + record.varint()}
		if attributes&brokersTime != 0 {
			m.Time = timeOf(latest)
		}
		m.Key, m.Value = record.bytes(), record.bytes()
		if record.err != nil {
			return nil, next, record.err
		}
		if m.Offset >= next { // a batch comes whole, also if only its end was asked for
			msgs = append(msgs, m)
		}
	}
	return msgs, end, nil // compaction may have taken the last records
}

// timeOf is the time that a record gives in Unix milliseconds; -1 says that it has none.
func timeOf(ms int64) time.Time {
	if ms < 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// decompress returns what records are in b.
func decompress(how compress.Compression, b []byte) ([]byte, error) {
	if how == compress.None {
		return b, nil
	}
	codec := how.Codec()
	if codec == nil {
		return nil, fmt.Errorf("%w: compression %d", errFetch, how)
	}
	r := codec.NewReader(bytes.NewReader(b))
	defer r.Close()
	plain := bytes.NewBuffer(make([]byte, 0, 2*len(b)+bytes.MinRead))
	if _, err := plain.ReadFrom(io.LimitReader(r, maxFetch+1)); err != nil {
		return nil, err
	}
	if plain.Len() > maxFetch {
		return nil, fmt.Errorf("%w: a batch of more than %d bytes", errFetch, maxFetch)
	}
	return plain.Bytes(), nil
}
