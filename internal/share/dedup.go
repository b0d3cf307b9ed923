package share

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// EpochsKept is of how many epochs of one server a Dedup remembers in each partition what it has seen.
const EpochsKept = 32

// ErrDedupState says that bytes are no state of a Dedup.
var ErrDedupState = errors.New("bad dedup state")

// Dedup recognizes shares that were delivered before. A server numbers its shares and sends them in order, again from
// an earlier one if it must; so within one partition and epoch whatever is not above the highest number seen is a
// repetition. A server's epochs grow; so an epoch from before all that are remembered is not news but was let go, and
// its shares are repetitions. The zero value is ready. It is not safe for concurrent use.
type Dedup struct {
	sources map[source]*epochs
}

// source is one server's stream of shares within a partition.
type source struct {
	partition int
	server    uint8
}

// epochs is what is known of a source.
type epochs struct {
	marks []mark // EpochsKept at most, oldest first
	gone  uint32 // epochs up to this one, but for those of marks, were let go; 0: none
}

// mark is the highest sequence seen of one epoch.
type mark struct {
	epoch uint32
	news  bool // seen since News
	seq   uint64
}

// Seen tells whether the share with this id was seen in this partition, and remembers it. Shares without an id are
// never seen.
func (d *Dedup) Seen(partition int, id ID) bool {
	if id.Epoch == 0 || id.Seq == 0 {
		return false
	}
	src := source{partition, id.Server}
	e := d.sources[src]
	if e == nil {
		if d.sources == nil {
			d.sources = make(map[source]*epochs)
		}
		e = new(epochs)
		d.sources[src] = e
	}
	return e.seen(id)
}

func (e *epochs) seen(id ID) bool {
	at := len(e.marks) // where the epoch belongs
	for at > 0 && e.marks[at-1].epoch > id.Epoch {
		at--
	}
	full := len(e.marks) == EpochsKept
	switch {
	case at > 0 && e.marks[at-1].epoch == id.Epoch:
		m := &e.marks[at-1]
		if id.Seq <= m.seq {
			return true
		}
		m.seq, m.news = id.Seq, true
		return false
	case id.Epoch <= e.gone, at == 0 && full:
		return true
	case full:
		e.gone = max(e.gone, e.marks[0].epoch)
		e.marks = slices.Delete(e.marks, 0, 1)
		at--
	}
	e.marks = slices.Insert(e.marks, at, mark{id.Epoch, true, id.Seq})
	return false
}

// AppendTo appends d's state, at most limit bytes of it. When that is too little, the oldest epochs are let go; when it
// is too little for the newest one of each source, the last sources are left out: it returns how many, whose shares
// are news again to who restores the state.
func (d *Dedup) AppendTo(dst []byte, limit int) (state []byte, left int) {
	sources, start := d.sorted(), len(dst)
	for keep := EpochsKept; ; keep /= 2 {
		dst = dst[:start]
		whole, fit := start, 0 // the end of the last source that fits, and how many do
		for _, src := range sources {
			if dst = d.sources[src].appendTo(dst, src, keep); len(dst) <= start+limit {
				whole, fit = len(dst), fit+1
			}
		}
		if left = len(sources) - fit; left == 0 || keep == 1 {
			return dst[:whole], left
		}
	}
}

func (d *Dedup) sorted() []source {
	return slices.SortedFunc(maps.Keys(d.sources), func(a, b source) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.server, b.server))
	})
}

// Begin forgets what is news.
func (d *Dedup) Begin() {
	for _, e := range d.sources {
		for i := range e.marks {
			e.marks[i].news = false
		}
	}
}

// AppendNews appends what was seen since Begin, for Learn to add to the state of then.
func (d *Dedup) AppendNews(dst []byte) []byte {
	for _, src := range d.sorted() {
		for _, m := range d.sources[src].marks {
			if m.news {
				dst = m.appendTo(dst, src)
			}
		}
	}
	return dst
}

// Learn has d see what AppendNews has appended.
func (d *Dedup) Learn(news []byte) error {
	for len(news) > 0 {
		src, m, n := cutMark(news)
		if n == 0 || m.seq == 0 {
			return ErrDedupState
		}
		news = news[n:]
		d.Seen(src.partition, ID{Server: src.server, Epoch: m.epoch, Seq: m.seq})
	}
	return nil
}

// appendTo appends the newest epochs, and which was let go last as one without a sequence.
func (e *epochs) appendTo(dst []byte, src source, keep int) []byte {
	old := max(len(e.marks)-keep, 0)
	gone := e.gone
	if old > 0 {
		gone = max(gone, e.marks[old-1].epoch)
	}
	if gone > 0 {
		dst = mark{epoch: gone}.appendTo(dst, src)
	}
	for _, m := range e.marks[old:] {
		dst = m.appendTo(dst, src)
	}
	return dst
}

func (m mark) appendTo(dst []byte, src source) []byte {
	dst = binary.AppendUvarint(dst, uint64(src.partition))
	dst = append(dst, src.server)
	dst = binary.LittleEndian.AppendUint32(dst, m.epoch)
	return binary.AppendUvarint(dst, m.seq)
}

// cutMark reads what appendTo has appended, and returns its size; 0 if b does not begin with that.
func cutMark(b []byte) (src source, m mark, size int) {
	partition, p := binary.Uvarint(b)
	if p <= 0 || partition > 1<<31 || len(b) < p+5 {
		return src, m, 0
	}
	src = source{int(partition), b[p]}
	m.epoch = binary.LittleEndian.Uint32(b[p+1:])
	seq, n := binary.Uvarint(b[p+5:])
	if m.seq = seq; n <= 0 || m.epoch == 0 {
		return src, m, 0
	}
	return src, m, p + 5 + n
}

// ParseDedup restores what AppendTo wrote.
func ParseDedup(src []byte) (*Dedup, error) {
	d := &Dedup{sources: make(map[source]*epochs)}
	for len(src) > 0 {
		key, m, n := cutMark(src)
		if n == 0 {
			return nil, ErrDedupState
		}
		src = src[n:]
		if d.sources[key] == nil {
			d.sources[key] = new(epochs)
		}
		if !d.sources[key].restore(m) {
			return nil, ErrDedupState
		}
	}
	return d, nil
}

// restore adds what appendTo wrote, in any order. It returns false for what that cannot have written.
func (e *epochs) restore(m mark) bool {
	if m.seq == 0 {
		known := e.gone > 0
		e.gone = m.epoch
		return !known
	}
	at, known := slices.BinarySearchFunc(e.marks, m.epoch, func(m mark, epoch uint32) int { return cmp.Compare(m.epoch, epoch) })
	if known || len(e.marks) == EpochsKept {
		return false
	}
	e.marks = slices.Insert(e.marks, at, m)
	return true
}
