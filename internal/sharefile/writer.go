package sharefile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip" // 2.8 times as fast as the standard library's on shares, at the same size
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/durable"
	"btcpool/internal/share"
)

// daysKept is how many of the newest files recovery looks at for the newest flush, and of how many files a Writer keeps
// the ends in mind between flushes. Whatever lies outside costs looking again, nothing else.
const daysKept = 4

// Writer appends shares to the day files of a chain. It is not safe for concurrent use.
type Writer struct {
	dir, chain string
	log        zerolog.Logger
	lock       *os.File
	fresh      bool // no flush was found in the directory
	foreign    bool // other software was the last to write to the newest file

	flush      uint64               // the number of the last flush tried
	files      int                  // how many files that has members in
	generation uint64               // the topic's, see Checkpoint
	last       map[int]*bus.Message // by partition: the last share taken since the start
	marks      map[int]bus.Mark     // by partition: of the last share taken when collecting for the next flush began
	dedup      *share.Dedup         // the shares that have been seen
	dedupState []byte               // what dedup was when collecting began
	dedupLeft  int                  // sources of shares that had no room in that

	days    map[Day]*dayFile // those with pending shares and those used last
	pending int              // bytes of records that wait for Flush
	gaps    int              // found since the start
	mode    os.FileMode      // of new files; 0: see open
	level   int              // of gz
	gz      *gzip.Writer
}

// dayFile is what the Writer knows about a file, which is open only while it is written.
type dayFile struct {
	info    os.FileInfo // as it was opened last; nil: there was none
	size    int64       // bytes of whole members
	last    *Checkpoint // that of the newest member
	foreign bool        // other software wrote the last member
	torn    int64       // bytes behind the whole members, to be cut off
	lost    *Checkpoint // of the flush to read again because of that
	used    uint64      // the flush that touched it last
	records []byte      // what goes into the next member
	shares  int         // how many shares those are
	member  *member     // made, but not yet known to be on disk
	tried   bool        // some of it may be
	gap     bool        // shares are gone that stood before it
}

type member struct {
	data       []byte
	checkpoint *Checkpoint
	shares     int
}

// A WriterOption changes what a Writer does.
type WriterOption func(*Writer)

// Compression has files be compressed at a level of gzip's, -1 (the default) to 9, 0 being none. Files may have members of
// several levels.
func Compression(level int) WriterOption { return func(w *Writer) { w.level = level } }

// FileMode has new files have exactly these permissions, instead of 0640 less what the process's umask takes.
func FileMode(mode os.FileMode) WriterOption { return func(w *Writer) { w.mode = mode } }

// OpenWriter locks dir, makes it if need be, and recovers what the last Writer left: torn ends are cut off. The
// directory is one Writer's alone.
func OpenWriter(dir, chain string, log zerolog.Logger, opts ...WriterOption) (*Writer, error) {
	if err := CheckChain(chain); err != nil {
		return nil, err
	}
	lock, err := durable.Lock(dir)
	if err != nil {
		return nil, err
	}
	w := &Writer{
		dir: dir, chain: chain, log: log, lock: lock,
		last:  make(map[int]*bus.Message),
		days:  make(map[Day]*dayFile),
		level: gzip.DefaultCompression,
	}
	for _, opt := range opts {
		opt(w)
	}
	if w.gz, err = gzip.NewWriterLevel(nil, w.level); err == nil {
		err = w.recover()
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return w, nil
}

// recover finds the newest flush and goes on behind it, or where it began if not all of its members are there. When a
// flush before it was cut off, because it is damaged, it goes back to where that one began: what other files have of that
// time is left out of them.
func (w *Writer) recover() error {
	days, err := Days(w.dir, w.chain)
	if err != nil {
		return err
	}
	newest := &Checkpoint{From: make(map[int]bus.Mark)}
	for _, day := range days[max(0, len(days)-daysKept):] {
		f := new(dayFile)
		if err := w.openDay(day, f, w.findEnd); err != nil {
			return err
		}
		if f.size > 0 {
			w.foreign = f.foreign
		}
		w.days[day] = f
		if f.last != nil && f.last.Flush > newest.Flush {
			newest = f.last
		}
	}
	back := newest
	for _, f := range w.days {
		if c := f.lost; c != nil && c.Flush < back.Flush && c.Generation == newest.Generation {
			back = c
		}
	}
	w.fresh = newest.Flush == 0
	w.flush, w.generation, w.marks = newest.Flush, newest.Generation, back.From
	if w.dedup, err = share.ParseDedup(back.Dedup); err == nil && back == newest && w.whole(newest) {
		w.marks = newest.Last
		err = w.dedup.Learn(newest.News)
	}
	if err != nil {
		return fmt.Errorf("flush %d: %w", back.Flush, err)
	}
	w.begin()
	if back == newest {
		return w.eachTorn(truncate)
	}
	w.log.Warn().Uint64("flush", back.Flush).Uint64("newest", newest.Flush).
		Msg("share log is damaged before its newest flush: reading the topic from there again")
	w.flush++
	return w.eachTorn(w.goBack)
}

// eachTorn does something to the files that have more than whole members.
func (w *Writer) eachTorn(do func(Day, *dayFile, *os.File) error) error {
	for _, day := range slices.Sorted(maps.Keys(w.days)) {
		f := w.days[day]
		if f.torn == 0 {
			continue
		}
		if err := w.openDay(day, f, func(file *os.File, f *dayFile) error { return do(day, f, file) }); err != nil {
			return err
		}
		f.torn, f.lost = 0, nil
	}
	return nil
}

func truncate(_ Day, f *dayFile, file *os.File) error { return file.Truncate(f.size) }

// goBack replaces a damaged end by a flush without shares, whose checkpoint goes back before the damage. So a crash
// does not make it forgotten.
func (w *Writer) goBack(day Day, f *dayFile, file *os.File) (err error) {
	if f.lost == nil || f.lost.Generation != w.generation { // it is not known what the file had
		return truncate(day, f, file)
	}
	if f.member, err = w.encode(f); err != nil {
		return err
	}
	if _, err = w.flushDay(day, f); err != nil {
		return err
	}
	return errors.Join(file.Truncate(f.size), file.Sync())
}

// whole tells whether each file has its member of the newest flush.
func (w *Writer) whole(newest *Checkpoint) bool {
	found := 0
	for _, f := range w.days {
		if f.last != nil && f.last.Flush == newest.Flush {
			found++
		}
	}
	return found > 0 && found == newest.Files
}

// Close gives the directory free. What was added and not flushed is forgotten.
func (w *Writer) Close() error { return w.lock.Close() }

// Resume returns of each partition the last share that need not be added; partitions that are not named begin with the
// earliest. It returns false when the directory has no flush of ours, so that nothing is known.
func (w *Writer) Resume() (map[int]bus.Mark, bool) { return maps.Clone(w.marks), !w.fresh }

// Foreign tells whether the shares that came last were written by other software, so that Resume does not know of them.
func (w *Writer) Foreign() bool { return w.foreign }

// Begin has shares be added from behind these on, by partition, instead of from behind Resume's: what stands before is
// none of ours to write.
func (w *Writer) Begin(last map[int]bus.Mark) {
	maps.Copy(w.marks, last)
	w.begin()
}

// Next returns the offsets, by partition, below which all is on disk.
func (w *Writer) Next() map[int]int64 { return offsetsBehind(w.marks) }

func offsetsBehind(marks map[int]bus.Mark) map[int]int64 {
	next := make(map[int]int64, len(marks))
	for p, mark := range marks {
		next[p] = mark.Offset + 1
	}
	return next
}

// Gaps is how often a file was found without shares that had been written: somebody cut, replaced or removed it.
func (w *Writer) Gaps() int { return w.gaps }

// Pending is how many bytes of records wait for Flush.
func (w *Writer) Pending() int { return w.pending }

// Add takes a message of the topic, the share in it and body, the share's record. Offsets of a partition rise from call
// to call, from Resume on; when they fall back the topic was made anew, or has lost its end. Add reports whether the
// share is new: neither delivered before nor in its file since before a crash. After an error nothing has changed. The
// last message of each partition is kept.
func (w *Writer) Add(m *bus.Message, s *share.Share, body []byte) (bool, error) {
	f, err := w.day(DayOf(s.Time))
	if err != nil {
		return false, err
	}
	last := w.last[m.Partition]
	if last == nil {
		last = &bus.Message{Offset: -1}
		if mark, ok := w.marks[m.Partition]; ok {
			last.Offset = mark.Offset
		}
		w.last[m.Partition] = last
	}
	if m.Offset <= last.Offset {
		w.generation++
		delete(w.marks, m.Partition)
	}
	*last = *m
	if w.dedup.Seen(m.Partition, s.ID) || f.holds(w.generation, m.Partition, m.Offset) {
		return false, nil
	}
	f.records = appendRecord(f.records, body)
	f.shares++
	w.pending += 4 + len(body)
	return true, nil
}

// holds tells whether the share at an offset is in the file, if it belongs there.
func (f *dayFile) holds(generation uint64, partition int, offset int64) bool {
	return f.last != nil && f.last.Generation == generation && offset < f.last.To[partition]
}

// Flush writes all pending shares to disk and returns how many it wrote. After an error it can be called again, with or
// without more shares added; what could be written stays written once.
func (w *Writer) Flush() (int, error) {
	if w.pending == 0 {
		return 0, nil
	}
	w.flush++
	w.files = 0
	for _, f := range w.days {
		if f.member != nil || f.shares > 0 {
			w.files++
		}
	}
	written := 0
	for _, day := range slices.Sorted(maps.Keys(w.days)) {
		n, err := w.flushDay(day, w.days[day])
		written += n
		if err != nil {
			return written, err
		}
	}
	w.pending = 0
	w.forgetDays()
	w.begin()
	return written, nil
}

// begin starts collecting shares for a flush.
func (w *Writer) begin() {
	w.marks = w.lastMarks()
	state, left := w.dedup.AppendTo(nil, max(0, room(len(w.marks))/2))
	if left > w.dedupLeft {
		w.log.Warn().Int("left_out", left).Msg("too many servers and partitions for a checkpoint: after a crash, " +
			"shares that some of them send again may be logged twice")
	}
	w.dedupState, w.dedupLeft = state, left
	w.dedup.Begin()
}

// lastMarks returns the marks of the last shares taken.
func (w *Writer) lastMarks() map[int]bus.Mark {
	marks := maps.Clone(w.marks)
	for p, m := range w.last {
		marks[p] = m.Mark()
	}
	return marks
}

// forgetDays keeps the days that were used last.
func (w *Writer) forgetDays() {
	byUse := slices.SortedFunc(maps.Keys(w.days), func(a, b Day) int { return cmp.Compare(w.days[b].used, w.days[a].used) })
	for _, day := range byUse[min(daysKept, len(byUse)):] {
		delete(w.days, day)
	}
}

// day returns a day's file. One that is not known is looked at, and its torn end cut off; it need not exist.
func (w *Writer) day(day Day) (*dayFile, error) {
	if f := w.days[day]; f != nil {
		return f, nil
	}
	f := &dayFile{used: w.flush}
	if err := w.openDay(day, f, w.cutEnd); err != nil {
		return nil, err
	}
	w.days[day] = f
	return f, nil
}

// openDay has a day's file open while it does something. The file need not exist.
func (w *Writer) openDay(day Day, f *dayFile, do func(*os.File, *dayFile) error) error {
	file, err := os.OpenFile(Path(w.dir, w.chain, day), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(do(file, f), file.Close())
}

func (w *Writer) findEnd(file *os.File, f *dayFile) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	end, err := recoverFile(file)
	if errors.Is(err, errNoShareLog) {
		f.info, f.size, f.torn, f.last, f.foreign = nil, 0, 0, nil, false
		aside, err := putAside(file.Name(), "unreadable")
		if err != nil {
			return err
		}
		w.log.Error().Str("file", file.Name()).Str("aside", aside).Msg("file is no share log: put aside")
		w.miss(file.Name(), f)
		return errors.Join(os.Remove(file.Name()), durable.SyncDir(w.dir))
	}
	if err != nil {
		return err
	}
	f.info, f.size, f.torn, f.last, f.foreign = info, end.size, end.torn, end.last, end.foreign
	if f.torn > 0 {
		w.log.Warn().Str("file", file.Name()).Int64("offset", f.size).Int64("bytes", f.torn).Msg("torn end of share file cut off")
		if f.lost = end.cut; f.lost == nil {
			f.lost = f.last
		}
	}
	return nil
}

// miss notes that a file lacks shares that it had: a mark of the gap goes before what is written to it next.
func (w *Writer) miss(path string, f *dayFile) {
	w.log.Error().Str("file", path).Msg("shares of the file are gone: -repair takes them from Kafka again")
	f.gap = true
	w.gaps++
}

func (w *Writer) cutEnd(file *os.File, f *dayFile) error {
	if err := w.findEnd(file, f); err != nil || f.torn == 0 {
		return err
	}
	f.torn, f.lost = 0, nil
	return file.Truncate(f.size)
}

// flushDay writes what a file waits for. A member whose writing went wrong is written again as it is, at the same
// place, because somebody may have read it already.
func (w *Writer) flushDay(day Day, f *dayFile) (int, error) {
	written := 0
	for f.member != nil || f.shares > 0 {
		if f.member == nil {
			m, err := w.encode(f)
			if err != nil {
				return written, err
			}
			f.member, f.records, f.shares = m, f.records[:0], 0
		}
		if err := w.write(Path(w.dir, w.chain, day), f); err != nil {
			return written, err
		}
		f.size += int64(len(f.member.data))
		f.last, f.used = f.member.checkpoint, w.flush
		written += f.member.shares
		f.member, f.tried = nil, false
	}
	return written, nil
}

// encode makes a member of f's records.
func (w *Writer) encode(f *dayFile) (*member, error) {
	c := &Checkpoint{
		Flush: w.flush, Generation: w.generation, Files: w.files, From: w.marks, Last: w.lastMarks(),
		Dedup: w.dedupState, News: w.dedup.AppendNews(nil),
	}
	c.To = w.to(f, c.Last)
	if len(c.News)+len(c.Dedup) > room(len(c.To)) {
		c.Files, c.News = 0, nil
	}
	data, err := w.compress(c, f.records)
	if err != nil {
		return nil, err
	}
	return &member{data, c, f.shares}, nil
}

func (w *Writer) compress(c *Checkpoint, records []byte) ([]byte, error) {
	extra, err := c.appendExtra(nil)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w.gz.Reset(&buf)
	w.gz.Header = gzip.Header{Extra: extra, ModTime: time.Unix(0, 0), OS: 255}
	if _, err := w.gz.Write(records); err != nil {
		return nil, err
	}
	if err := w.gz.Close(); err != nil {
		return nil, err
	}
	seal(buf.Bytes())
	return buf.Bytes(), nil
}

// gapMark returns what stands in place of shares that are gone: a member without records or a checkpoint. Readers find
// nothing in it, and Repair a gap.
func (w *Writer) gapMark() ([]byte, error) {
	mark, err := w.compress(new(Checkpoint), nil)
	if err == nil {
		mark[payloadAt] = formatGap
	}
	return mark, err
}

func appendRecord(dst, body []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(body))), body...)
}

// to returns the offsets below which f has all its shares once what is pending is written. After a crash a partition
// may not have come up yet to where the file already was.
func (w *Writer) to(f *dayFile, last map[int]bus.Mark) map[int]int64 {
	to := make(map[int]int64, len(last))
	for p, mark := range last {
		to[p] = mark.Offset + 1
	}
	if f.last != nil && f.last.Generation == w.generation {
		for p, offset := range f.last.To {
			to[p] = max(to[p], offset)
		}
	}
	return to
}

// write appends f's member to its file and waits until it is on disk.
func (w *Writer) write(path string, f *dayFile) (err error) {
	file, err := w.openEnd(path, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if f.last != nil && f.last.Flush == f.member.checkpoint.Flush { // it came with what was put in the place of the file
		f.size -= int64(len(f.member.data))
		return file.Sync()
	}
	if f.gap {
		mark, err := w.gapMark()
		if err != nil {
			return err
		}
		f.member.data, f.gap = append(mark, f.member.data...), false
	}
	return w.append(file, f)
}

// openEnd opens a file that f's member is to be appended to. When somebody did something to it since it was written
// last, its end is looked for again.
func (w *Writer) openEnd(path string, f *dayFile) (*os.File, error) {
	file, err := w.open(path, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if f.isAsLeft(info) {
		f.info = info
		return file, nil
	}
	expected, had := f.size, f.last
	f.tried = false
	if err := errors.Join(w.cutEnd(file, f), file.Close(), durable.SyncDir(w.dir)); err != nil {
		return nil, err
	}
	w.log.Error().Str("file", path).Int64("bytes", info.Size()).Int64("expected", expected).
		Msg("share file was cut, removed or replaced by somebody")
	if !f.gap && had != nil && (f.last == nil || f.last.Flush < had.Flush) {
		w.miss(path, f)
	}
	if file, err = w.open(path, 0); err != nil { // it may be another one now
		return nil, err
	}
	if f.info, err = file.Stat(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// open opens a file, and makes it if need be. One that is empty gets its mode, also when a crash came before that.
func (w *Writer) open(path string, flags int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|flags, 0o640)
	if err != nil || w.mode == 0 {
		return file, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() == 0 {
		err = file.Chmod(w.mode)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// isAsLeft tells whether a file is what was there last, with nothing behind its members but what is known to be torn or
// a part of f's.
func (f *dayFile) isAsLeft(info os.FileInfo) bool {
	same := f.info == nil && f.size == 0 || f.info != nil && os.SameFile(f.info, info)
	return same && (info.Size() == f.size+f.torn || f.tried && info.Size() > f.size)
}

// append writes f's member behind what its file has, and wants it to be there afterwards.
func (w *Writer) append(file *os.File, f *dayFile) error {
	f.tried = true
	if _, err := file.WriteAt(f.member.data, f.size); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if f.size == 0 {
		if err := durable.SyncDir(w.dir); err != nil {
			return err
		}
	}
	now, err := os.Stat(file.Name())
	if err == nil && (!os.SameFile(f.info, now) || now.Size() < f.size+int64(len(f.member.data))) {
		err = fmt.Errorf("%s was cut, removed or replaced by somebody while it was written", file.Name())
	}
	return err
}
