package sharefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"

	"btcpool/internal/durable"
	"btcpool/internal/share"
)

// Why a Gap cannot be filled.
var (
	ErrOtherTopic = errors.New("the topic is not the one that the file was made of")
	errNeighbour  = errors.New("other software wrote the shares beside it: where in the topic they stood is not known")
)

// Gap is a stretch of a day's file whose shares are to be taken from the topic again: damaged bytes, or what may be
// missing at the end. The shares of the topic from From on and before To are added in the order of their offsets.
type Gap struct {
	At, Bytes int64
	From, To  map[int]int64 // by partition; no From: from the earliest; no To: none
	Added     int           // shares that were added

	day     Day
	base    *Checkpoint    // of the flush before, or of the first of the gap; zero: nothing is known
	held    map[int]int64  // offsets before which the file has all shares
	behind  map[int]int64  // offsets from which on it has them
	witness map[string]int // the records of the flush before that have not been met in the topic
	dedup   *share.Dedup

	records []byte
	emit    func(c *Checkpoint, records []byte) error
}

// Whole tells whether From says where the gap begins: if not, shares may be missing that the topic does not hold any
// more.
func (g *Gap) Whole() bool { return g.base.Flush != 0 }

// Add takes the share that stands in the topic at an offset, and body, its record.
func (g *Gap) Add(partition int, offset int64, s *share.Share, body []byte) error {
	if g.dedup.Seen(partition, s.ID) || DayOf(s.Time) != g.day {
		return nil
	}
	if offset < g.held[partition] {
		if n := g.witness[string(body)]; n > 1 {
			g.witness[string(body)] = n - 1
		} else {
			delete(g.witness, string(body))
		}
		return nil
	}
	if offset >= g.behind[partition] {
		return nil
	}
	g.records = appendRecord(g.records, body)
	g.Added++
	if len(g.records) < repairedMember {
		return nil
	}
	return g.flush(g.held)
}

const repairedMember = 8 << 20 // bytes of records

func (g *Gap) flush(to map[int]int64) error {
	c := &Checkpoint{Flush: g.base.Flush, Generation: g.base.Generation, From: g.base.From, To: to, Dedup: g.base.Dedup}
	err := g.emit(c, g.records)
	g.records = g.records[:0]
	return err
}

// finish wants the flush before the gap to have been met, so that the offsets mean what they meant.
func (g *Gap) finish() error {
	if len(g.witness) > 0 {
		return fmt.Errorf("%w: %d shares of the flush before are not where they stood", ErrOtherTopic, len(g.witness))
	}
	if len(g.records) == 0 {
		return nil
	}
	return g.flush(g.To)
}

// Repaired is what Repair did.
type Repaired struct {
	Gaps  []*Gap
	Aside string // the name that the file has now which was replaced; "" if there was none
}

// Repair takes from the topic again what is damaged in a day's file, or missing at its end. fill adds the shares of a
// gap; when it cannot, the gap stays as it was, and the error tells. The file is replaced at once, when it has become
// better, and the one before is kept beside it. Nothing may be pending.
func (w *Writer) Repair(day Day, fill func(*Gap) error) (done Repaired, err error) {
	path := Path(w.dir, w.chain, day)
	next, ok := w.Resume()
	if !ok {
		return done, errors.New("nothing in the folder says how far the topic was read")
	}
	old, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = nil, nil
	}
	if err != nil {
		return done, err
	}
	repaired, err := w.open(path+".repaired", os.O_TRUNC)
	if err != nil {
		return done, err
	}
	defer func() {
		err = errors.Join(err, repaired.Close())
		if e := os.Remove(repaired.Name()); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		if old != nil {
			err = errors.Join(err, old.Close())
		}
	}()
	parts := []part{gapAt(0, 0)}
	var in members
	if old != nil {
		if parts, err = in.parts(old); err != nil {
			return done, err
		}
	}
	end := &Checkpoint{Generation: w.generation, From: next}
	var unfilled error
	for i, p := range parts {
		if !p.gap {
			if _, err := io.Copy(repaired, io.NewSectionReader(old, p.at, p.size)); err != nil {
				return done, err
			}
			continue
		}
		g, err := in.gap(old, parts, i, day, end)
		if err == nil && g.Bytes == 0 && maps.Equal(g.To, g.held) {
			continue
		}
		if err == nil {
			g.emit = func(c *Checkpoint, records []byte) error { return w.appendMember(repaired, c, records) }
			err = w.fill(g, repaired, fill)
		}
		if err == nil {
			done.Gaps = append(done.Gaps, g)
			continue
		}
		if p.size == 0 && old != nil { // nothing is known to be missing
			w.log.Warn().Err(err).Int64("offset", p.at).Msg("not known whether shares are missing at the end")
			continue
		}
		unfilled = errors.Join(unfilled, fmt.Errorf("%d bytes at %d: %w", p.size, p.at, err))
		if _, err := io.Copy(repaired, io.NewSectionReader(old, p.at, p.size)); err != nil {
			return done, err
		}
	}
	better := false
	for _, g := range done.Gaps {
		better = better || g.Added > 0 || g.Bytes > 0
	}
	if !better {
		return done, unfilled
	}
	if err := repaired.Sync(); err != nil {
		return done, err
	}
	if unfilled == nil {
		if err := in.allSound(repaired); err != nil {
			return done, err
		}
	}
	if old != nil {
		if done.Aside, err = putAside(path, "damaged"); err != nil {
			return done, err
		}
	}
	if err := os.Rename(repaired.Name(), path); err != nil {
		return done, err
	}
	delete(w.days, day)
	return done, errors.Join(unfilled, durable.SyncDir(w.dir))
}

// fill has a gap filled, or leaves the file as it is.
func (w *Writer) fill(g *Gap, repaired *os.File, fill func(*Gap) error) error {
	start, err := repaired.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if err = fill(g); err == nil {
		err = g.finish()
	}
	if err == nil {
		return nil
	}
	_, errSeek := repaired.Seek(start, io.SeekStart)
	return errors.Join(err, repaired.Truncate(start), errSeek)
}

func (w *Writer) appendMember(file *os.File, c *Checkpoint, records []byte) error {
	member, err := w.compress(c, records)
	if err != nil {
		return err
	}
	_, err = file.Write(member)
	return err
}

// putAside gives a file a second name that no other has and that says why.
func putAside(path, why string) (string, error) {
	for n := 1; ; n++ {
		aside := fmt.Sprintf("%s.%s-%d", path, why, n)
		if err := os.Link(path, aside); !errors.Is(err, fs.ErrExist) {
			return aside, err
		}
	}
}

// part is a stretch of a file: a sound member, or a gap between such.
type part struct {
	place
	gap bool
}

func gapAt(at, size int64) part { return part{place{at: at, size: size}, true} }

// parts goes through a file from its beginning. Its end counts as a gap.
func (m *members) parts(f *os.File) (parts []part, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for at := int64(0); ; {
		next, err := m.next(f, at, info.Size())
		if err != nil {
			return nil, err
		}
		if next.size == 0 {
			return append(parts, gapAt(at, info.Size()-at)), nil
		}
		if next.at > at {
			parts = append(parts, gapAt(at, next.at-at))
		}
		parts = append(parts, part{place: next})
		at = next.at + next.size
	}
}

// gap tells where in the topic the shares of parts[i] stand: after the member before it, and before the member behind
// it or the end of all that was written.
func (m *members) gap(f *os.File, parts []part, i int, day Day, end *Checkpoint) (*Gap, error) {
	g := &Gap{At: parts[i].at, Bytes: parts[i].size, day: day, base: &Checkpoint{Generation: end.Generation}}
	behind := end
	if i+1 < len(parts) {
		if behind = parts[i+1].checkpoint; behind == nil {
			return nil, errNeighbour
		}
		g.base.Generation = behind.Generation
	}
	switch {
	case i > 0:
		before := parts[i-1]
		if before.checkpoint == nil {
			return nil, errNeighbour
		}
		g.base, g.held = before.checkpoint, before.checkpoint.To
		if err := m.inflate(f, before.at, before.size); err != nil {
			return nil, err
		}
		g.witness = records(m.data)
	case g.Bytes > 0:
		header, err := m.readHeader(f, g.At, g.At+g.Bytes)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		if c, _, ok := parseHeader(header); ok {
			g.base = c
		}
	}
	if g.base.Generation != behind.Generation {
		return nil, fmt.Errorf("%w: it was made anew since", ErrOtherTopic)
	}
	g.From, g.To, g.behind = offsetsBehind(g.base.From), offsetsBehind(behind.From), offsetsBehind(behind.From)
	for p, offset := range g.held {
		g.To[p] = max(g.To[p], offset)
	}
	var err error
	g.dedup, err = share.ParseDedup(g.base.Dedup)
	return g, err
}

// records counts the records of a member's data.
func records(data []byte) map[string]int {
	all := make(map[string]int)
	for len(data) >= 4 {
		size := int(binary.LittleEndian.Uint32(data))
		if size > len(data)-4 {
			break
		}
		all[string(data[4:4+size])]++
		data = data[4+size:]
	}
	return all
}

// allSound wants a file to consist of sound members.
func (m *members) allSound(f *os.File) error {
	parts, err := m.parts(f)
	for _, p := range parts {
		if p.gap && p.size > 0 {
			err = errors.Join(err, corrupt(f, p.at, errors.New("not written as it should be")))
		}
	}
	return err
}
