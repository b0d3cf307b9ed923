package sharefile_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/sharefile"
)

// TestTampered has somebody do something to a day's file between two flushes: the shares of the second are there, with
// what the file had left, for readers and for the next writer, and a repair brings back the others.
func TestTampered(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, path string) []byte {
		t.Helper()
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	foreign := foreignMember(t, records(newShare(101, monday)))
	var topic []topicShare
	for seq := uint64(1); seq <= 5; seq++ {
		topic = append(topic, topicShare{0, int64(seq), newShare(seq, monday)})
	}
	for name, tc := range map[string]struct {
		tamper func(t *testing.T, path string)
		left   []uint32
		aside  string // a file beside it
	}{
		"overwritten by garbage": {
			func(t *testing.T, path string) { write(t, path, make([]byte, 6)) }, nil, ".unreadable-1",
		},
		"overwritten by garbage again": {
			func(t *testing.T, path string) {
				write(t, path+".unreadable-1", []byte("the first"))
				write(t, path, make([]byte, 6))
			}, nil, ".unreadable-2",
		},
		"overwritten by much garbage": {
			func(t *testing.T, path string) { write(t, path, bytes.Repeat([]byte("garbage"), 10_000)) }, nil, ".unreadable-1",
		},
		"removed": {
			func(t *testing.T, path string) {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}, nil, "",
		},
		"moved away": {
			func(t *testing.T, path string) { move(t, path, path+".moved") }, nil, ".moved",
		},
		"emptied": {
			func(t *testing.T, path string) { write(t, path, nil) }, nil, "",
		},
		"cut within a flush": {
			func(t *testing.T, path string) { write(t, path, read(t, path)[:len(read(t, path))-5]) }, []uint32{1}, "",
		},
		"cut between flushes": {
			func(t *testing.T, path string) {
				file := read(t, path)
				size, _ := memberSize(file)
				write(t, path, file[:size])
			}, []uint32{1}, "",
		},
		"replaced by a copy": {
			func(t *testing.T, path string) {
				write(t, path+".copy", read(t, path))
				move(t, path+".copy", path)
			}, []uint32{1, 2}, "",
		},
		"replaced by a longer file": {
			func(t *testing.T, path string) {
				write(t, path+".copy", bytes.Repeat(foreign, 9))
				move(t, path+".copy", path)
			}, slices.Repeat([]uint32{101}, 9), "",
		},
		"overwritten by a longer file": {
			func(t *testing.T, path string) { write(t, path, bytes.Repeat(foreign, 9)) }, slices.Repeat([]uint32{101}, 9), "",
		},
		"appended to": {
			func(t *testing.T, path string) { write(t, path, append(read(t, path), foreign...)) }, []uint32{1, 2, 101}, "",
		},
		"appended to in part": {
			func(t *testing.T, path string) { write(t, path, append(read(t, path), foreign[:20]...)) }, []uint32{1, 2}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := sharefile.Path(dir, "BTC", 20231120)
			w := openWriter(t, dir)
			for seq := uint64(1); seq <= 2; seq++ {
				add(t, w, 0, int64(seq), newShare(seq, monday))
				flush(t, w)
			}
			tc.tamper(t, path)
			for seq := uint64(3); seq <= 4; seq++ {
				add(t, w, 0, int64(seq), newShare(seq, monday))
				if n := flush(t, w); n != 1 {
					t.Errorf("wrote %d shares", n)
				}
			}
			if gone := !slices.Contains(tc.left, 2); w.Gaps() > 0 != gone {
				t.Errorf("%d gaps, shares are gone: %t", w.Gaps(), gone)
			}
			w.Close()
			w = openWriter(t, dir)
			defer w.Close()
			next, ok := resume(w)
			if !ok || next[0] != 5 {
				t.Errorf("resumes at %v, %t", next, ok)
			}
			add(t, w, 0, 5, newShare(5, monday))
			flush(t, w)
			if diff := cmp.Diff(append(slices.Clone(tc.left), 3, 4, 5), readDay(t, dir, 20231120)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tc.aside != "" {
				if _, err := os.Stat(path + tc.aside); err != nil {
					t.Error(err)
				}
			}
			if !slices.Contains(tc.left, 101) { // where other software's shares stood in the topic is not known
				if _, err := w.Repair(20231120, func(g *sharefile.Gap) error { return refill(g, topic) }); err != nil {
					t.Error(err)
				}
				repaired := slices.Sorted(slices.Values(readDay(t, dir, 20231120)))
				if diff := cmp.Diff([]uint32{1, 2, 3, 4, 5}, repaired); diff != "" {
					t.Errorf("repaired (-want +got):\n%s", diff)
				}
			}
			if first, err := os.ReadFile(path + ".unreadable-1"); tc.aside == ".unreadable-2" && string(first) != "the first" {
				t.Errorf("what was put aside first: %q, %v", first, err)
			}
		})
	}
}

// TestTamperedWhileWritten has somebody do something to a day's file while a flush is written to it: the flush fails,
// and succeeds when it is tried again, with each share there once.
func TestTamperedWhileWritten(t *testing.T) {
	t.Parallel()
	nothing := func(string) error { return nil }
	move := func(path string) error { return os.Rename(path, path+".moved") }
	swap := func(path string) error {
		file, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(path+".copy", file, 0o640), os.Rename(path+".copy", path))
	}
	for name, tc := range map[string]struct {
		before, after func(path string) error
		left          []uint32
	}{
		"moved away":       {move, nothing, nil},
		"removed":          {os.Remove, nothing, nil},
		"replaced":         {swap, nothing, []uint32{1}},
		"moved away, late": {nothing, move, nil},
		"replaced, late":   {nothing, swap, []uint32{1}},
		"replaced and added": {nothing, func(path string) error {
			file, err := os.ReadFile(path)
			file = append(file, foreignMember(t, records(newShare(101, monday)))...)
			return errors.Join(err, os.WriteFile(path+".copy", file, 0o640), os.Rename(path+".copy", path))
		}, []uint32{1, 101}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := sharefile.Path(dir, "BTC", 20231120)
			w := openWriter(t, dir)
			defer w.Close()
			add(t, w, 0, 1, newShare(1, monday))
			flush(t, w)
			add(t, w, 0, 2, newShare(2, monday))
			do := func(what func(string) error) func() {
				return func() {
					if err := what(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.WriteWhile(20231120, do(tc.before), do(tc.after)); err == nil {
				t.Error("nothing was noticed")
			}
			add(t, w, 0, 3, newShare(3, monday))
			if n := flush(t, w); n != 2 {
				t.Errorf("wrote %d shares", n)
			}
			got := readDay(t, dir, 20231120)
			slices.Sort(got)
			want := append(slices.Clone(tc.left), 2, 3)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestUnreadableAtStart has a file overwritten while no writer runs, whose shares another one's newer flushes have left
// behind: a repair brings them back.
func TestUnreadableAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var topic []topicShare
	for seq := uint64(1); seq <= 5; seq++ {
		topic = append(topic, topicShare{0, int64(seq), newShare(seq, monday+int64(seq%2)*86400)})
	}
	w := openWriter(t, dir)
	for _, m := range topic[:4] {
		add(t, w, m.partition, m.offset, m.share)
		flush(t, w)
	}
	w.Close()
	write(t, sharefile.Path(dir, "BTC", 20231121), make([]byte, 6))
	w = openWriter(t, dir)
	defer w.Close()
	add(t, w, 0, 5, topic[4].share)
	flush(t, w)
	if diff := cmp.Diff([]uint32{5}, readDay(t, dir, 20231121)); diff != "" || w.Gaps() != 1 {
		t.Errorf("%d gaps (-want +got):\n%s", w.Gaps(), diff)
	}
	if _, err := w.Repair(20231121, func(g *sharefile.Gap) error { return refill(g, topic) }); err != nil {
		t.Error(err)
	}
	got := [][]uint32{readDay(t, dir, 20231120), readDay(t, dir, 20231121)}
	if diff := cmp.Diff([][]uint32{{2, 4}, {1, 3, 5}}, got); diff != "" {
		t.Errorf("repaired (-want +got):\n%s", diff)
	}
}

// TestOverwrittenUncompressed has a file overwritten by one that shares cannot be appended to: flushes fail until it is
// moved away.
func TestOverwrittenUncompressed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := sharefile.Path(dir, "BTC", 20231120)
	w := openWriter(t, dir)
	defer w.Close()
	add(t, w, 0, 1, newShare(1, monday))
	flush(t, w)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plain := slices.Concat(records(newShare(7, monday)), make([]byte, len(file)))[:len(file)] // as long as what was there
	write(t, path+".plain", plain)
	if err := os.Rename(path+".plain", path); err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 2, newShare(2, monday))
	for range 3 {
		if _, err := w.Flush(); err == nil {
			t.Error("a flush went to a file that is not compressed")
		}
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	flush(t, w)
	if diff := cmp.Diff([]uint32{2}, readDay(t, dir, 20231120)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if now, err := os.ReadFile(path + ".moved"); err != nil || !slices.Equal(now, plain) {
		t.Errorf("the file that was moved away has changed: %v", err)
	}
}
