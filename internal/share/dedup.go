package share

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// EpochsKept is how many boot epochs of one server a Dedup remembers in each partition.
const EpochsKept = 8

// ErrDedupState says that bytes are no state of a Dedup.
var ErrDedupState = errors.New("bad dedup state")

// Dedup recognizes shares that were delivered before. A server numbers its shares and sends them in order, again from
// an earlier one if it must; so within one partition and epoch whatever is not above the highest number seen is a
// repetition. The zero value is ready. It is not safe for concurrent use.
type Dedup struct {
	sources map[source][]mark // most recently used mark last
}

// source is one server's stream of shares within a partition.
type source struct {
	partition int
	server    uint8
}

// mark is the highest sequence seen of one epoch.
type mark struct {
	epoch uint32
	seq   uint64
}

// Seen tells whether the share with this id was seen in this partition, and remembers it. Shares without an id are
// never seen. Of each server and partition the epochs used last are remembered: see EpochsKept.
func (d *Dedup) Seen(partition int, id ID) bool {
	if id.Epoch == 0 {
		return false
	}
	if d.sources == nil {
		d.sources = make(map[source][]mark)
	}
	src := source{partition, id.Server}
	marks := d.sources[src]
	i := slices.IndexFunc(marks, func(m mark) bool { return m.epoch == id.Epoch })
	if i < 0 {
		if len(marks) == EpochsKept {
			marks = slices.Delete(marks, 0, 1)
		}
		d.sources[src] = append(marks, mark{id.Epoch, id.Seq})
		return false
	}
	if id.Seq <= marks[i].seq {
		return true
	}
	marks[i].seq = id.Seq
	if last := len(marks) - 1; i != last {
		m := marks[i]
		copy(marks[i:], marks[i+1:])
		marks[last] = m
	}
	return false
}

// AppendTo appends d's state, at most limit bytes of it. When that is too little, the epochs that were used longest ago
// are left out first.
func (d *Dedup) AppendTo(dst []byte, limit int) []byte {
	sources := slices.SortedFunc(maps.Keys(d.sources), func(a, b source) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.server, b.server))
	})
	end := len(dst) + limit
	for age := range EpochsKept {
		for _, src := range sources {
			marks := d.sources[src]
			if age >= len(marks) {
				continue
			}
			m := marks[len(marks)-1-age]
			start := len(dst)
			dst = binary.AppendUvarint(dst, uint64(src.partition))
			dst = append(dst, src.server)
			dst = binary.LittleEndian.AppendUint32(dst, m.epoch)
			dst = binary.AppendUvarint(dst, m.seq)
			if len(dst) > end {
				return dst[:start]
			}
		}
	}
	return dst
}

// ParseDedup restores what AppendTo wrote.
func ParseDedup(src []byte) (*Dedup, error) {
	d := &Dedup{sources: make(map[source][]mark)}
	for len(src) > 0 {
		partition, n := binary.Uvarint(src)
		if n <= 0 || partition > 1<<31 || len(src) < n+5 {
			return nil, ErrDedupState
		}
		key := source{int(partition), src[n]}
		m := mark{epoch: binary.LittleEndian.Uint32(src[n+1:])}
		src = src[n+5:]
		if m.seq, n = binary.Uvarint(src); n <= 0 || m.epoch == 0 {
			return nil, ErrDedupState
		}
		src = src[n:]
		marks := d.sources[key]
		if len(marks) == EpochsKept || slices.ContainsFunc(marks, func(k mark) bool { return k.epoch == m.epoch }) {
			return nil, ErrDedupState
		}
		d.sources[key] = slices.Insert(marks, 0, m)
	}
	return d, nil
}
