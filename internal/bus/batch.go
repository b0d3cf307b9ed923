package bus

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
)

// A record set is a u32 with the size of the batches that follow. A record batch of format version 2 (Kafka 0.11 and
// later), big-endian:
//
//	 0 i64 base offset: the broker's to set
//	 8 u32 size of what follows
//	12 i32 partition leader epoch: the broker's to set
//	16 i8  format version
//	17 u32 CRC-32C of what follows
//	21 i16 attributes: the compression
//	23 i32 last record's offset - base offset
//	27 i64 base time, Unix milliseconds
//	35 i64 latest time
//	43 i64 producer id, i16 its epoch, i32 sequence: none
//	57 i32 number of records
//	61     records, compressed together
//
// A record, in zigzag varints unless said otherwise:
//
//	size of what follows
//	i8 attributes: none
//	time - base time
//	offset - base offset
//	size of the key, or -1 for none; key
//	size of the value, or -1; value
//	number of headers: none
const (
	setPrefix     = 4
	batchPrefix   = 12
	batchHead     = 61
	formatAt      = 16
	formatVersion = 2
	snappy        = 2 // among the attributes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encoder makes record sets, as the library does too at three times the price: that allocates for each key and value,
// and gets to each through interfaces.
type encoder struct {
	plain, packed []byte // memory of the latest record set, to be used again
}

// keepBytes is the size up to which an encoder keeps its buffers; a full template is smaller.
const keepBytes = 8 << 20

// noTime is for messages that are to have none, their own neither.
var noTime = time.UnixMilli(-1)

// recordSet returns msgs, of which there is at least one, as one batch. It is valid until the next call and keeps
// nothing of msgs. Size is that of all keys and values.
func (e *encoder) recordSet(msgs []Message, size int, now time.Time, compress bool) []byte {
	const head = setPrefix + batchHead
	base := unixMilli(msgs[0].Time, now)
	latest := base
	set := slices.Grow(e.plain[:0], head+size+len(msgs)*recordBytes)[:head]
	for i := range msgs {
		m := &msgs[i]
		at := unixMilli(m.Time, now)
		latest = max(latest, at)
		set = appendRecord(set, at-base, int64(i), m)
	}
	e.plain = set
	var attributes uint16
	if compress {
		plain := set[head:]
		e.packed = slices.Grow(e.packed[:0], head+s2.MaxEncodedLen(len(plain)))
		packed := e.packed[:cap(e.packed)]
		set = packed[:head+len(s2.EncodeSnappy(packed[head:], plain))]
		attributes = snappy
	}
	binary.BigEndian.PutUint32(set, uint32(len(set)-setPrefix))
	batch := set[setPrefix:]
	binary.BigEndian.PutUint64(batch, 0)
	binary.BigEndian.PutUint32(batch[8:], uint32(len(batch)-batchPrefix))
	binary.BigEndian.PutUint32(batch[12:], ^uint32(0))
	batch[formatAt] = formatVersion
	binary.BigEndian.PutUint16(batch[21:], attributes)
	binary.BigEndian.PutUint32(batch[23:], uint32(len(msgs)-1))
	binary.BigEndian.PutUint64(batch[27:], uint64(base))
	binary.BigEndian.PutUint64(batch[35:], uint64(latest))
	binary.BigEndian.PutUint64(batch[43:], ^uint64(0))
	binary.BigEndian.PutUint16(batch[51:], ^uint16(0))
	binary.BigEndian.PutUint32(batch[53:], ^uint32(0))
	binary.BigEndian.PutUint32(batch[57:], uint32(len(msgs)))
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], castagnoli))
	return set
}

// trim gives up buffers that are rarely needed that large.
func (e *encoder) trim() {
	if cap(e.plain) > keepBytes {
		e.plain = nil
	}
	if cap(e.packed) > keepBytes {
		e.packed = nil
	}
}

func unixMilli(t, now time.Time) int64 {
	if t.IsZero() || now.Equal(noTime) {
		t = now
	}
	return t.UnixMilli()
}

func appendRecord(dst []byte, time, offset int64, m *Message) []byte {
	size := 1 + varintSize(time) + varintSize(offset) + bytesSize(m.Key) + bytesSize(m.Value) + 1
	dst = binary.AppendVarint(dst, int64(size))
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, time)
	dst = binary.AppendVarint(dst, offset)
	dst = appendBytes(dst, m.Key)
	dst = appendBytes(dst, m.Value)
	return append(dst, 0)
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// bytesSize returns how much appendBytes appends.
func bytesSize(b []byte) int {
	if b == nil {
		return varintSize(-1)
	}
	return varintSize(int64(len(b))) + len(b)
}

// varintSize returns how much binary.AppendVarint appends.
func varintSize(v int64) int {
	zigzag := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(zigzag|1) + 6) / 7
}
