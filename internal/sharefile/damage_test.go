package sharefile_test

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/sharefile"
)

// TestDamage flips bits, writes garbage and cuts anywhere in the files, between flushes and between writers, while
// readers follow. What is lost was in a damaged member, nothing is there twice, and a reader that follows has all that
// one has who comes later.
func TestDamage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		topic, want := drawTopic(t)
		dir := tempDir(t)
		days := slices.Sorted(maps.Keys(want))
		damaged := make(map[uint32]bool)
		followers := make(map[sharefile.Day]*follower)
		for _, day := range days {
			followers[day] = &follower{path: sharefile.Path(dir, "BTC", day)}
		}
		defer func() {
			for _, f := range followers {
				f.close()
			}
		}()
		for writers := rapid.IntRange(0, 3).Draw(t, "writers"); writers >= 0; writers-- {
			w := openWriter(t, dir)
			next, _ := resume(w)
			for range rapid.IntRange(0, 3).Draw(t, "flushes") {
				consume(t, w, topic, next, rapid.IntRange(0, 15).Draw(t, "shares"))
				flush(t, w)
				for _, day := range days {
					if rapid.Bool().Draw(t, "read") {
						followers[day].read(t)
					}
				}
			}
			if writers == 0 {
				consume(t, w, topic, next, len(topic))
				flush(t, w)
			}
			w.Close()
			for _, day := range days {
				if rapid.IntRange(0, 2).Draw(t, "damage") == 0 {
					damage(t, sharefile.Path(dir, "BTC", day), damaged)
				}
			}
		}
		w := openWriter(t, dir)
		next, _ := resume(w)
		consume(t, w, topic, next, len(topic))
		flush(t, w)
		w.Close()
		for _, day := range days {
			nonces := want[day]
			late := &follower{path: sharefile.Path(dir, "BTC", day)}
			late.read(t)
			late.close()
			got := slices.Sorted(slices.Values(late.nonces))
			if twice := slices.Compact(slices.Clone(got)); len(twice) != len(got) {
				t.Fatalf("%d: shares doubled: %v", day, got)
			}
			for _, nonce := range got {
				if !slices.Contains(nonces, nonce) {
					t.Fatalf("%d: share %d is not of this day", day, nonce)
				}
			}
			for _, nonce := range nonces {
				if !slices.Contains(got, nonce) && !damaged[nonce] {
					t.Fatalf("%d: share %d was lost, whose member was not damaged (%v): %v", day, nonce, late.damages, got)
				}
			}
			followers[day].read(t)
			seen := slices.Sorted(slices.Values(followers[day].nonces))
			if once := slices.Compact(slices.Clone(seen)); len(once) != len(seen) {
				t.Fatalf("%d: shares doubled for who followed: %v", day, seen)
			}
			for _, nonce := range got {
				if !slices.Contains(seen, nonce) {
					t.Fatalf("%d: who followed lacks share %d: %v", day, nonce, seen)
				}
			}
		}
	})
}

// follower reads a file as it grows.
type follower struct {
	path    string
	reader  *sharefile.Reader
	nonces  []uint32
	damages []*sharefile.Damage
}

func (f *follower) read(t *rapid.T) {
	t.Helper()
	if f.reader != nil {
		had, err := f.reader.Stat()
		if now, gone := os.Stat(f.path); err != nil || gone != nil || !os.SameFile(had, now) { // put aside
			f.close()
		}
	}
	for {
		if f.reader == nil {
			r, err := sharefile.Open(f.path)
			if errors.Is(err, fs.ErrNotExist) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.reader, f.nonces, f.damages = r, nil, nil
		}
		more, err := nonces(t, f.reader)
		f.nonces = append(f.nonces, more...)
		var damage *sharefile.Damage
		switch {
		case errors.As(err, &damage):
			f.damages = append(f.damages, damage)
		case errors.Is(err, sharefile.ErrReplaced):
			f.close()
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, sharefile.ErrCorrupt):
			return
		default:
			t.Fatal(err)
		}
	}
}

func (f *follower) close() {
	if f.reader != nil {
		f.reader.Close()
		f.reader = nil
	}
}

// damage does something to a file, and notes the shares of the members it hits.
func damage(t *rapid.T, path string, hit map[uint32]bool) {
	t.Helper()
	file, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || len(file) == 0 {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	from := rapid.IntRange(0, len(file)-1).Draw(t, "at")
	to := from + 1
	spoiled := slices.Clone(file)
	switch rapid.SampledFrom([]string{"flip", "flip", "garbage", "cut"}).Draw(t, "kind") {
	case "flip":
		spoiled[from] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	case "garbage": // a file that begins like one that is not compressed is left to the operator
		from = min(max(from, 4), len(file)-1)
		to = min(len(file), from+rapid.IntRange(1, 300).Draw(t, "bytes"))
		copy(spoiled[from:], rapid.SliceOfN(rapid.Byte(), to-from, to-from).Draw(t, "garbage"))
	case "cut":
		spoiled, to = spoiled[:from], len(file)
	}
	if err := os.WriteFile(path, spoiled, 0o640); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(file); {
		end := len(file)
		// What was damaged before and still stands there hides where members begin: all behind it counts as hit.
		if size, ok := memberSize(file[at:]); ok && at+size <= len(file) {
			end = at + size
		}
		if at < to && end > from {
			for _, nonce := range noncesOf(t, file[at:end]) {
				hit[nonce] = true
			}
		}
		at = end
	}
}

// memberSize is what a member's header says.
func memberSize(b []byte) (int, bool) {
	const sizeAt = 21
	if len(b) < sizeAt+4 || string(b[:4]) != "\x1f\x8b\x08\x04" {
		return 0, false
	}
	size := int(binary.LittleEndian.Uint32(b[sizeAt:]))
	return size, size > sizeAt
}

// noncesOf reads what can be read of a piece of a file.
func noncesOf(t *rapid.T, piece []byte) []uint32 {
	t.Helper()
	f := &follower{path: filepath.Join(tempDir(t), "piece")}
	if err := os.WriteFile(f.path, piece, 0o640); err != nil {
		t.Fatal(err)
	}
	f.read(t)
	f.close()
	return f.nonces
}

// spoil flips a bit of a file.
func spoil(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[at] ^= 4
	write(t, path, file)
}

// readAll reads a file up to its end, past what is damaged.
func readAll(t *testing.T, path string) (all []uint32, damages []*sharefile.Damage, end error) {
	t.Helper()
	r, err := sharefile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		more, err := nonces(t, r)
		all = append(all, more...)
		var damage *sharefile.Damage
		if !errors.As(err, &damage) {
			return all, damages, err
		}
		damages = append(damages, damage)
	}
}

// TestSkipsDamage flips each bit-carrying byte of the middle one of three members: the others can be read, and it too
// when only its checkpoint is hit.
func TestSkipsDamage(t *testing.T) {
	t.Parallel()
	own := ownFile(t)
	first, _ := memberSize(own)
	second, _ := memberSize(own[first:])
	path := filepath.Join(t.TempDir(), "file")
	kept := 0
	for at := first; at < first+second; at++ {
		write(t, path, own)
		spoil(t, path, int64(at))
		got, damages, err := readAll(t, path)
		if !errors.Is(err, io.EOF) {
			t.Fatalf("byte %d: ends with %v", at, err)
		}
		want := []uint32{1, 2, 5, 6}
		if len(damages) == 0 {
			want = []uint32{1, 2, 3, 4, 5, 6}
			kept++
		} else if d := damages[0]; len(damages) != 1 || d.At != int64(first) || d.Bytes != int64(second) || !errors.Is(d, sharefile.ErrCorrupt) {
			t.Fatalf("byte %d: damages %v, want %d bytes at %d", at, damages, second, first)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("byte %d (-want +got):\n%s", at, diff)
		}
	}
	if kept == 0 || kept == second {
		t.Errorf("%d of %d flips did not matter", kept, second)
	}
}

// TestDamagedCheckpoint flips every byte of the header of the file's last member: the shares of that flush are written
// anew in its place, once.
func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	own := ownFile(t)
	at := 0
	for range 2 {
		size, _ := memberSize(own[at:])
		at += size
	}
	for i := at; i < len(own); i++ {
		dir := t.TempDir()
		path := sharefile.Path(dir, "BTC", 20231120)
		write(t, path, own)
		spoil(t, path, int64(i))
		w := openWriter(t, dir)
		for nonce := uint64(1); nonce <= 7; nonce++ {
			if next, _ := resume(w); int64(nonce) >= next[int(nonce%2)] {
				add(t, w, int(nonce%2), int64(nonce), newShare(nonce, monday))
			}
		}
		flush(t, w)
		w.Close()
		got := readDay(t, dir, 20231120)
		if diff := cmp.Diff([]uint32{1, 2, 3, 4, 5, 6, 7}, slices.Sorted(slices.Values(got))); diff != "" {
			t.Fatalf("byte %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestOldDayDamaged damages the end of a file that newer flushes followed in the next day's: the topic is read from
// there again, also when the writer ends before it has done so.
func TestOldDayDamaged(t *testing.T) {
	t.Parallel()
	topic := []topicShare{}
	for seq := uint64(1); seq <= 8; seq++ {
		s := newShare(seq, monday)
		if seq > 4 {
			s.Time += 86400
		}
		topic = append(topic, topicShare{0, int64(seq), s})
	}
	resume := func(w *sharefile.Writer, upTo int64) {
		next, _ := resume(w)
		for _, m := range topic {
			if m.offset >= next[0] && m.offset <= upTo {
				add(t, w, 0, m.offset, m.share)
				if m.offset%2 == 0 {
					flush(t, w)
				}
			}
		}
	}
	for name, at := range map[string]int64{"data": -12, "checkpoint": -0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := openWriter(t, dir)
			resume(w, 8)
			w.Close()
			path := sharefile.Path(dir, "BTC", 20231120)
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if at += int64(len(file)); name == "checkpoint" {
				size, _ := memberSize(file)
				at = int64(size) + 40
			}
			spoil(t, path, at)
			for _, upTo := range []int64{0, 3, 8} {
				w := openWriter(t, dir)
				resume(w, upTo)
				w.Close()
			}
			if diff := cmp.Diff([]uint32{1, 2, 3, 4}, readDay(t, dir, 20231120)); diff != "" {
				t.Errorf("monday (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]uint32{5, 6, 7, 8}, readDay(t, dir, 20231121)); diff != "" {
				t.Errorf("tuesday (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReplacedUnderReader has a flush cut off that was read already, because it is damaged meanwhile, and others
// written in its place.
func TestReplacedUnderReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := sharefile.Path(dir, "BTC", 20231120)
	write(t, path, ownFile(t))
	r, err := sharefile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := nonces(t, r); len(got) != 6 || !errors.Is(err, io.EOF) {
		t.Fatalf("%v, %v", got, err)
	}
	spoil(t, path, r.Position()-10)
	w := openWriter(t, dir)
	defer w.Close()
	if _, err := r.Next(); !errors.Is(err, sharefile.ErrReplaced) {
		t.Errorf("cut back: %v", err)
	}
	for nonce := uint64(5); nonce <= 50; nonce++ {
		add(t, w, int(nonce%2), int64(nonce), newShare(nonce, monday))
	}
	flush(t, w)
	if _, err := r.Next(); !errors.Is(err, sharefile.ErrReplaced) {
		t.Errorf("grown again: %v", err)
	}
}

// TestRepair damages files at random, some of whose days are over, and takes what was lost from the topic again: each
// day has every share, once, and readers and writers go on with it.
func TestRepair(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		topic, want := drawTopic(t)
		dir := tempDir(t)
		w := openWriter(t, dir)
		next, _ := resume(w)
		for range rapid.IntRange(1, 8).Draw(t, "flushes") {
			consume(t, w, topic, next, rapid.IntRange(1, 15).Draw(t, "shares"))
			flush(t, w)
		}
		w.Close()
		days := slices.Sorted(maps.Keys(want))
		hit := make(map[uint32]bool)
		for _, day := range days {
			for range rapid.IntRange(0, 2).Draw(t, "damages") {
				damage(t, sharefile.Path(dir, "BTC", day), hit)
			}
		}
		for _, day := range days {
			w := openWriter(t, dir)
			if _, ok := w.Resume(); ok {
				done, err := w.Repair(day, func(g *sharefile.Gap) error { return refill(g, topic) })
				if err != nil {
					t.Fatalf("%d: %v", day, err)
				}
				if _, again := os.Stat(done.Aside); done.Aside != "" && again != nil {
					t.Error(again)
				}
			}
			w.Close()
		}
		w = openWriter(t, dir)
		next, _ = resume(w)
		consume(t, w, topic, next, len(topic))
		flush(t, w)
		w.Close()
		for _, day := range days {
			got := slices.Sorted(slices.Values(readDay(t, dir, day)))
			if diff := cmp.Diff(want[day], got); diff != "" {
				t.Fatalf("%d (-want +got):\n%s", day, diff)
			}
		}
	})
}

// refill adds a gap's shares, as who reads the topic.
func refill(g *sharefile.Gap, topic []topicShare) error {
	for _, m := range topic {
		if m.offset >= g.From[m.partition] && m.offset < g.To[m.partition] {
			if err := g.Add(m.partition, m.offset, &m.share, m.share.AppendBody(nil)); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestRepairRefuses leaves a damaged file as it is when the topic is another one.
func TestRepairRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := sharefile.Path(dir, "BTC", 20231120)
	file := ownFile(t)
	file[len(file)/2] ^= 1
	write(t, path, file)
	var other []topicShare
	for nonce := uint64(1); nonce <= 6; nonce++ {
		other = append(other, topicShare{int(nonce % 2), int64(nonce), newShare(nonce+10, monday)})
	}
	w := openWriter(t, dir)
	defer w.Close()
	if _, err := w.Repair(20231120, func(g *sharefile.Gap) error { return refill(g, other) }); !errors.Is(err, sharefile.ErrOtherTopic) {
		t.Error(err)
	}
	if now, err := os.ReadFile(path); err != nil || !slices.Equal(now, file) {
		t.Errorf("the file has changed: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 { // and the lock
		t.Errorf("%v, %v", entries, err)
	}
}
