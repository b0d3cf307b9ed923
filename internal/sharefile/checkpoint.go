package sharefile

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"btcpool/internal/bus"
)

// Checkpoint is what a member's header says about its flush.
type Checkpoint struct {
	Flush      uint64           // counts the flushes; the highest is the newest
	Generation uint64           // counts how often the topic was made anew; offsets compare within a generation only
	Files      int              // how many day files the flush has members in; 0: not known
	From, Last map[int]bus.Mark // by partition: what was read last before the flush, and with it; none: nothing was
	To         map[int]int64    // by partition: the file has all its shares from before this offset
	Dedup      []byte           // state of the share.Dedup before the flush
	News       []byte           // what that has seen with it
}

// The gzip header of a member, RFC 1952: magic, deflate, FEXTRA, no time, flags of the compressor, unknown system,
// length of the extra field, then one subfield with its own id and length. The subfield holds, little-endian:
//
//	u8 format, u32 CRC-32 of what follows, u32 length of the whole member,
//	uvarints: flush, generation, files, number of partitions,
//	for each partition uvarints: partition, from+2 or 0 for none, last+2 or 0, to; u32 checksums of from and last,
//	uvarint length of the news, these, and the Dedup state to the end.
//
// Format 1 had neither files, last, checksums nor news.
const (
	memberMagic = gzipMagic + "\x04\x00\x00\x00\x00"
	subfieldID  = "sl"
	format      = 2
	formatOld   = 1
	formatGap   = 0 // no checkpoint

	extraAt   = 12          // behind the length of the extra field
	payloadAt = extraAt + 4 // behind the subfield's id and length
	crcAt     = payloadAt + 1
	sizeAt    = crcAt + 4
	bodyAt    = sizeAt + 4
	trailer   = 8 // CRC-32 and length behind the deflated data

	maxPayload          = math.MaxUint16 - 4
	checkpointRest      = 64 // bytes at most, without partitions, news and Dedup state
	checkpointPartition = 43 // bytes at most, for each partition

	maxHeader = extraAt + math.MaxUint16
	maxMember = 256 << 20
)

// room is how much of a header is left for the Dedup state and news.
func room(partitions int) int { return maxPayload - checkpointRest - checkpointPartition*partitions }

var errPartitions = errors.New("too many partitions for a checkpoint")

// appendExtra appends c as the extra field of a gzip header, its CRC and the member's size still to be filled in.
func (c *Checkpoint) appendExtra(dst []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, subfieldID...)
	dst = append(dst, 0, 0, format, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, c.Flush)
	dst = binary.AppendUvarint(dst, c.Generation)
	dst = binary.AppendUvarint(dst, uint64(c.Files))
	dst = binary.AppendUvarint(dst, uint64(len(c.To)))
	for _, p := range slices.Sorted(maps.Keys(c.To)) {
		from, last := encodeMark(c.From, p), encodeMark(c.Last, p)
		dst = binary.AppendUvarint(dst, uint64(p))
		dst = binary.AppendUvarint(dst, uint64(from.Offset))
		dst = binary.AppendUvarint(dst, uint64(last.Offset))
		dst = binary.AppendUvarint(dst, uint64(c.To[p]))
		dst = binary.LittleEndian.AppendUint32(dst, from.Checksum)
		dst = binary.LittleEndian.AppendUint32(dst, last.Checksum)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.News)))
	dst = append(dst, c.News...)
	dst = append(dst, c.Dedup...)
	size := len(dst) - start - 4
	if size > maxPayload {
		return nil, errPartitions
	}
	binary.LittleEndian.PutUint16(dst[start+2:], uint16(size))
	return dst, nil
}

// encodeMark returns the mark of a partition with its offset + 2, 0 if there is none.
func encodeMark(marks map[int]bus.Mark, partition int) bus.Mark {
	mark, ok := marks[partition]
	if ok {
		mark.Offset += 2
	}
	return mark
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
	if len(b) < end || end < bodyAt || string(b[extraAt:extraAt+2]) != subfieldID ||
		b[payloadAt] != format && b[payloadAt] != formatOld ||
		int(binary.LittleEndian.Uint16(b[extraAt+2:])) != end-payloadAt ||
		binary.LittleEndian.Uint32(b[crcAt:]) != crc32.ChecksumIEEE(b[sizeAt:end]) {
		return nil, 0, false
	}
	size := int64(binary.LittleEndian.Uint32(b[sizeAt:]))
	if size < int64(end+trailer) || size > maxMember {
		return nil, 0, false
	}
	c := &Checkpoint{From: make(map[int]bus.Mark), Last: make(map[int]bus.Mark), To: make(map[int]int64)}
	r := numbers{b: b[bodyAt:end]}
	c.Flush, c.Generation = r.uvarint(math.MaxUint64), r.uvarint(math.MaxUint64)
	old := b[payloadAt] == formatOld
	if !old {
		c.Files = int(r.uvarint(math.MaxInt32))
	}
	for n := r.uvarint(math.MaxUint16); n > 0 && !r.bad; n-- {
		p := int(r.uvarint(math.MaxInt32))
		from := bus.Mark{Offset: int64(r.uvarint(math.MaxInt64))}
		var last bus.Mark
		if !old {
			last.Offset = int64(r.uvarint(math.MaxInt64))
		}
		c.To[p] = int64(r.uvarint(math.MaxInt64))
		if !old {
			from.Checksum, last.Checksum = r.uint32(), r.uint32()
		}
		decodeMark(c.From, p, from)
		decodeMark(c.Last, p, last)
	}
	if !old {
		c.News = slices.Clone(r.bytes(r.uvarint(maxPayload)))
	}
	c.Dedup = slices.Clone(r.b)
	return c, size, !r.bad
}

// decodeMark is the reverse of encodeMark.
func decodeMark(marks map[int]bus.Mark, partition int, mark bus.Mark) {
	if mark.Offset > 0 {
		mark.Offset -= 2
		marks[partition] = mark
	}
}

// numbers are read until one does not fit.
type numbers struct {
	b   []byte
	bad bool
}

func (r *numbers) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *numbers) uint32() uint32 {
	b := r.bytes(4)
	if len(b) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

func (r *numbers) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) || r.bad {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}
