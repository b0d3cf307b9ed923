package sharefile

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math"
	"slices"
)

// Checkpoint is what a member's header says about its flush.
type Checkpoint struct {
	Flush      uint64        // counts the flushes; the highest is the newest
	Generation uint64        // counts how often the topic was made anew; offsets compare within a generation only
	From, To   map[int]int64 // partition → offset: the flush holds what is new in [from, to); no From: from the earliest
	Dedup      []byte        // state of the share.Dedup before the flush
}

// The gzip header of a member, RFC 1952: magic, deflate, FEXTRA, no time, flags of the compressor, unknown system,
// length of the extra field, then one subfield with its own id and length. The subfield holds, little-endian:
//
//	u8 format, u32 CRC-32 of what follows, u32 length of the whole member,
//	uvarints: flush, generation, number of partitions, for each: partition, from+1 or 0, to,
//	and the Dedup state to the end.
const (
	memberMagic = gzipMagic + "\x04\x00\x00\x00\x00"
	subfieldID  = "sl"
	format      = 1

	extraAt   = 12          // behind the length of the extra field
	payloadAt = extraAt + 4 // behind the subfield's id and length
	crcAt     = payloadAt + 1
	sizeAt    = crcAt + 4
	bodyAt    = sizeAt + 4
	trailer   = 8 // CRC-32 and length behind the deflated data

	maxPayload          = math.MaxUint16 - 4
	checkpointRest      = 64 // bytes at most, without partitions and Dedup state
	checkpointPartition = 25 // bytes at most, for each partition

	maxHeader = extraAt + math.MaxUint16
	maxMember = 256 << 20
)

var errPartitions = errors.New("too many partitions for a checkpoint")

// appendExtra appends c as the extra field of a gzip header, its CRC and the member's size still to be filled in.
func (c *Checkpoint) appendExtra(dst []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, subfieldID...)
	dst = append(dst, 0, 0, format, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, c.Flush)
	dst = binary.AppendUvarint(dst, c.Generation)
	dst = binary.AppendUvarint(dst, uint64(len(c.To)))
	for _, p := range slices.Sorted(maps.Keys(c.To)) {
		from, ok := c.From[p]
		if !ok {
			from = -1
		}
		dst = binary.AppendUvarint(dst, uint64(p))
		dst = binary.AppendUvarint(dst, uint64(from+1))
		dst = binary.AppendUvarint(dst, uint64(c.To[p]))
	}
	dst = append(dst, c.Dedup...)
	size := len(dst) - start - 4
	if size > maxPayload {
		return nil, errPartitions
	}
	binary.LittleEndian.PutUint16(dst[start+2:], uint16(size))
	return dst, nil
}

// seal fills in the size and CRC that stand in a finished member's header.
func seal(member []byte) {
	payload := member[payloadAt : extraAt+int(binary.LittleEndian.Uint16(member[10:]))]
	binary.LittleEndian.PutUint32(member[sizeAt:], uint32(len(member)))
	binary.LittleEndian.PutUint32(member[crcAt:], crc32.ChecksumIEEE(payload[sizeAt-payloadAt:]))
}

// parseHeader reads a member's header and returns its checkpoint and the size of the whole member. It returns false for
// a header that is torn or was written by other software.
func parseHeader(b []byte) (*Checkpoint, int64, bool) {
	if len(b) < bodyAt || string(b[:len(memberMagic)]) != memberMagic {
		return nil, 0, false
	}
	end := extraAt + int(binary.LittleEndian.Uint16(b[10:]))
	if len(b) < end || end < bodyAt || string(b[extraAt:extraAt+2]) != subfieldID || b[payloadAt] != format ||
		int(binary.LittleEndian.Uint16(b[extraAt+2:])) != end-payloadAt ||
		binary.LittleEndian.Uint32(b[crcAt:]) != crc32.ChecksumIEEE(b[sizeAt:end]) {
		return nil, 0, false
	}
	size := int64(binary.LittleEndian.Uint32(b[sizeAt:]))
	if size < int64(end+trailer) || size > maxMember {
		return nil, 0, false
	}
	c := &Checkpoint{From: make(map[int]int64), To: make(map[int]int64)}
	r := uvarints{b: b[bodyAt:end]}
	c.Flush, c.Generation = r.next(math.MaxUint64), r.next(math.MaxUint64)
	for n := r.next(math.MaxUint16); n > 0 && !r.bad; n-- {
		p := int(r.next(math.MaxInt32))
		if from := r.next(math.MaxInt64); from > 0 {
			c.From[p] = int64(from - 1)
		}
		c.To[p] = int64(r.next(math.MaxInt64))
	}
	c.Dedup = slices.Clone(r.b)
	return c, size, !r.bad
}

// uvarints reads numbers until one does not fit.
type uvarints struct {
	b   []byte
	bad bool
}

func (r *uvarints) next(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}
