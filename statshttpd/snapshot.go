package statshttpd

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/store"
)

// snapshotVersion is of the bytes of a snapshot, the widths and sizes of rings included.
const snapshotVersion = 1

// errSnapshot says that bytes are no snapshot.
var errSnapshot = errors.New("bad snapshot")

// origin says of which shares figures are, and how they were counted: figures of another origin are of no use.
type origin struct {
	Topic       string
	AcceptStale bool
	SingleUser  int32
}

// snapshot is all that shares have made of the board up to some messages of their topic. What events and the database
// tell is not in it: they are read at every start.
type snapshot struct {
	origin
	At           int64            // unix time at which it was taken
	CountedSince int64            // unix time from which on all shares are counted
	RoundFrom    int64            // board.roundFrom
	Read         map[int]bus.Mark // of the last message counted, by partition
	Dedup        []byte           // what is recognized, see share.Dedup
	Recent       ring
	Pool         window
	Servers      map[uint8]window
	Users        map[int32]window
	Workers      []keptWorker
}

type keptWorker struct {
	workerKey
	window
	server         uint8
	lastDifficulty bitcoin.Difficulty
}

// appendSnapshot appends what s has but for its figures, which are the board's. Shares must not be counted meanwhile.
// Who had no share for so long that the rings are over is left out: the database knows as much.
func (b *board) appendSnapshot(dst []byte, s *snapshot) []byte {
	now := time.Unix(s.At, 0)
	dst = append(dst, snapshotVersion)
	dst = appendBytes(dst, []byte(s.Topic))
	dst = append(dst, flagOf(s.AcceptStale))
	dst = binary.AppendVarint(dst, int64(s.SingleUser))
	dst = binary.AppendVarint(dst, s.At)
	dst = binary.AppendVarint(dst, s.CountedSince)
	dst = binary.AppendUvarint(dst, uint64(len(s.Read)))
	for _, p := range slices.Sorted(maps.Keys(s.Read)) {
		dst = binary.AppendUvarint(dst, uint64(p))
		dst = binary.AppendVarint(dst, s.Read[p].Offset)
		dst = binary.LittleEndian.AppendUint32(dst, s.Read[p].Checksum)
	}
	dst = appendBytes(dst, s.Dedup)

	b.mu.RLock()
	dst = binary.AppendVarint(dst, b.roundFrom)
	dst = b.recent.appendTo(dst)
	dst = b.pool.appendTo(dst)
	dst = binary.AppendUvarint(dst, uint64(len(b.servers)))
	for _, id := range slices.Sorted(maps.Keys(b.servers)) {
		dst = b.servers[id].appendTo(append(dst, id))
	}
	var users []int32
	for id, u := range b.users {
		if u.last != 0 && !u.over(now) {
			users = append(users, id)
		}
	}
	slices.Sort(users)
	dst = binary.AppendUvarint(dst, uint64(len(users)))
	for _, id := range users {
		dst = b.users[id].appendTo(binary.AppendVarint(dst, int64(id)))
	}
	var workers []workerKey
	for k, w := range b.workers {
		if w.waits == nil && !w.over(now) {
			workers = append(workers, k)
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(workers, func(x, y workerKey) int {
		return cmp.Or(cmp.Compare(x.UserID, y.UserID), cmp.Compare(x.WorkerID, y.WorkerID))
	})
	for chunk := range slices.Chunk(workers, orderChunk) { // events are not kept waiting
		b.mu.RLock()
		for _, k := range chunk {
			if w := b.workers[k]; w != nil {
				dst = binary.AppendVarint(append(dst, 1), int64(k.UserID))
				dst = binary.LittleEndian.AppendUint64(dst, uint64(k.WorkerID))
				dst = w.appendTo(append(dst, w.server, byte(w.lastDifficulty)))
			}
		}
		b.mu.RUnlock()
	}
	return append(dst, 0)
}

// parseSnapshot reads what appendSnapshot has appended.
func parseSnapshot(src []byte) (*snapshot, error) {
	r := &snapshotReader{rest: src}
	if r.byte() != snapshotVersion {
		return nil, errSnapshot
	}
	s := &snapshot{Read: make(map[int]bus.Mark), Servers: make(map[uint8]window), Users: make(map[int32]window)}
	s.Topic = string(r.bytes())
	s.AcceptStale = r.byte() == 1
	s.SingleUser = int32(r.varint())
	s.At, s.CountedSince = r.varint(), r.varint()
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		p := r.uvarint()
		r.bad = r.bad || p > math.MaxInt32
		s.Read[int(p)] = bus.Mark{Offset: r.varint(), Checksum: r.uint32()}
	}
	s.Dedup = r.bytes()
	r.newest = s.At
	s.RoundFrom = r.varint()
	s.Recent = r.ring(recentRing)
	r.bad = r.bad || s.Recent.size() == 0
	s.Pool = r.window()
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		id := r.byte()
		s.Servers[id] = r.window()
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		id := r.varint()
		s.Users[int32(id)] = r.window()
	}
	for r.byte() == 1 && !r.bad {
		w := keptWorker{workerKey: workerKey{UserID: int32(r.varint()), WorkerID: int64(r.uint64())}}
		w.server, w.lastDifficulty = r.byte(), bitcoin.Difficulty(r.byte())
		w.window = r.window()
		s.Workers = append(s.Workers, w)
	}
	if r.bad || len(r.rest) > 0 {
		return nil, errSnapshot
	}
	return s, nil
}

// restore takes in the figures of s. No share may have been counted before.
func (b *board) restore(s *snapshot) {
	at := time.Unix(s.At, 0)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = s.At
	b.roundFrom = max(b.roundFrom, s.RoundFrom)
	b.recent = s.Recent
	for i := range s.Workers {
		kept := &s.Workers[i]
		w := b.proven(at, kept.workerKey)
		if w == nil {
			continue // no room any more
		}
		w.adopt(kept.window, b.roundFrom)
		w.server, w.lastDifficulty, w.cleared = kept.server, kept.lastDifficulty, false
		w.seen = max(w.seen, w.last)
	}
	for id, kept := range s.Users {
		if b.users[id] == nil {
			b.users[id] = &user{workers: make(map[int64]*worker)}
			b.unread[workerKey{UserID: id}] = true
		}
		b.users[id].adopt(kept, b.roundFrom)
		b.users[id].cleared = false
	}
	for id, kept := range s.Servers {
		b.server(id).adopt(kept, b.roundFrom)
	}
	b.pool.adopt(s.Pool, b.roundFrom)
}

// adopt makes kept the figures of w; what the database has told meanwhile stays.
func (w *window) adopt(kept window, round int64) {
	told := store.Worker{
		LastShareIP: ipText(w.lastIP), FirstShare: w.first, Best: store.Record(w.best), RoundBest: store.Record(w.round),
	}
	if w.last != 0 {
		told.LastShareTime = time.Unix(w.last, 0)
	}
	kept.hours = w.hours
	*w = kept
	w.remember(told, round)
}

func (w *window) appendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, w.accepted)
	dst = binary.AppendVarint(dst, w.began)
	dst = binary.AppendUvarint(dst, w.opening.Work.Hi)
	dst = binary.AppendUvarint(dst, w.opening.Work.Lo)
	dst = binary.AppendUvarint(dst, w.opening.Shares)
	dst = binary.AppendVarint(dst, w.first)
	dst = binary.AppendVarint(dst, w.last)
	ip, _ := w.lastIP.MarshalBinary() // never fails
	dst = appendBytes(dst, ip)
	for _, r := range []record{w.best, w.round} {
		dst = binary.AppendVarint(binary.LittleEndian.AppendUint32(dst, r.Bits), r.At)
	}
	dst = w.coarse.appendTo(w.fine.appendTo(dst))
	held := slices.DeleteFunc(slices.Clone(w.refused), func(r refusal) bool { return r.minute <= w.last/coarseWidth-int64(coarseBuckets) })
	dst = binary.AppendUvarint(dst, uint64(len(held)))
	for _, r := range held {
		dst = binary.AppendVarint(dst, r.minute)
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(r.work))
		dst = binary.AppendUvarint(dst, uint64(r.shares))
		dst = binary.AppendVarint(dst, int64(r.status))
	}
	return dst
}

func (r *snapshotReader) window() (w window) {
	w.accepted, w.began = r.uvarint(), r.varint()
	w.opening = amount{bitcoin.Work{Hi: r.uvarint(), Lo: r.uvarint()}, r.uvarint()}
	w.first, w.last = r.varint(), r.varint()
	r.bad = r.bad || w.lastIP.UnmarshalBinary(r.bytes()) != nil
	w.best = record{Bits: r.uint32(), At: r.varint()}
	w.round = record{Bits: r.uint32(), At: r.varint()}
	w.fine, w.coarse = r.ring(fineRing), r.ring(coarseRing)
	if (w.fine.size() == 0) != (w.coarse.size() == 0) {
		r.bad = true
	}
	const smallest = 1 + 8 + 1 + 1
	n := r.uvarint()
	if n > uint64(len(r.rest)/smallest) {
		r.bad = true
	}
	if n > 0 && !r.bad {
		w.refused = make([]refusal, n)
	}
	for i := range w.refused {
		w.refused[i] = refusal{r.varint(), r.float(), uint32(r.uvarint()), share.Status(r.varint())}
	}
	return w
}

// How the buckets of a ring are written.
const (
	noBuckets byte = iota
	narrowBuckets
	wideOnes
)

func (r *ring) appendTo(dst []byte) []byte {
	switch {
	case r.size() == 0:
		return append(dst, noBuckets)
	case r.wide == nil:
		dst = binary.AppendVarint(append(dst, narrowBuckets), r.newest)
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(r.unit))
		return appendNumbers(dst, r.narrow)
	}
	dst = binary.AppendVarint(append(dst, wideOnes), r.newest)
	for _, work := range r.wide.work {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(work))
	}
	return appendNumbers(dst, r.wide.shares)
}

// ring reads one that is made by fresh, unless it has no buckets.
func (r *snapshotReader) ring(fresh func() ring) ring {
	kind := r.byte()
	if kind == noBuckets || r.bad {
		return ring{}
	}
	of := fresh()
	of.newest = r.varint()
	if of.newest < 0 || of.newest > (r.newest+int64(maxAhead.Seconds()))/of.width {
		r.bad = true
	}
	switch kind {
	case narrowBuckets:
		of.unit = r.float()
		readNumbers(r, of.narrow)
	case wideOnes:
		of.widen()
		for i := range of.wide.work {
			of.wide.work[i] = r.float()
		}
		readNumbers(r, of.wide.shares)
	default:
		r.bad = true
	}
	return of
}

// appendNumbers appends varints; behind a 0 stands how many more there are.
func appendNumbers[N uint16 | uint32](dst []byte, all []N) []byte {
	for i := 0; i < len(all); i++ {
		dst = binary.AppendUvarint(dst, uint64(all[i]))
		if all[i] != 0 {
			continue
		}
		more := 0
		for i+1 < len(all) && all[i+1] == 0 {
			more++
			i++
		}
		dst = binary.AppendUvarint(dst, uint64(more))
	}
	return dst
}

func readNumbers[N uint16 | uint32](r *snapshotReader, into []N) {
	for i := 0; i < len(into) && !r.bad; i++ {
		n := r.uvarint()
		into[i] = N(n)
		if uint64(into[i]) != n {
			r.bad = true
		}
		if n == 0 {
			more := r.uvarint()
			if more >= uint64(len(into)-i) {
				r.bad = true
				return
			}
			i += int(more)
		}
	}
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func flagOf(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// snapshotReader reads numbers until some are missing.
type snapshotReader struct {
	rest   []byte
	newest int64 // unix time that buckets do not go beyond
	bad    bool
}

func (r *snapshotReader) take(n int) []byte {
	if n > len(r.rest) {
		r.bad = true
	}
	if r.bad {
		r.rest = nil
		return make([]byte, min(n, 8))
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *snapshotReader) byte() byte     { return r.take(1)[0] }
func (r *snapshotReader) uint32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *snapshotReader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// float reads one that is an amount.
func (r *snapshotReader) float() float64 {
	f := math.Float64frombits(r.uint64())
	if !(f >= 0) || math.IsInf(f, 1) {
		r.bad = true
	}
	return f
}

func (r *snapshotReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.skip(n)
	return v
}

func (r *snapshotReader) varint() int64 {
	v, n := binary.Varint(r.rest)
	r.skip(n)
	return v
}

func (r *snapshotReader) skip(n int) {
	if n <= 0 {
		r.bad = true
		return
	}
	r.rest = r.rest[n:]
}

// bytes returns a copy.
func (r *snapshotReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.bad = true
		return nil
	}
	return slices.Clone(r.take(int(n)))
}
