package regnode

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newJournal returns a journal in a directory of its own.
func newJournal(t testing.TB) *journal {
	t.Helper()
	dir := t.TempDir()
	j := &journal{newer: filepath.Join(dir, "newer"), older: filepath.Join(dir, "older"), since: time.Now()}
	var err error
	if j.file, err = os.Create(j.newer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.file.Close() })
	return j
}

func journalOf(t testing.TB, blocks ...[]byte) []byte {
	t.Helper()
	j := newJournal(t)
	for _, raw := range blocks {
		if err := j.append(raw); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(j.newer)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReadJournal cuts a journal at every byte: whole records are read, the torn one is not.
func TestReadJournal(t *testing.T) {
	t.Parallel()
	first, second := []byte("first"), []byte("second block")
	whole := journalOf(t, first, second)
	for cut := range len(whole) + 1 {
		var want [][]byte
		var wantEnd int64
		if cut >= 8+len(first) {
			want, wantEnd = append(want, first), int64(8+len(first))
		}
		if cut == len(whole) {
			want, wantEnd = append(want, second), int64(len(whole))
		}
		got, end := readJournal(whole[:cut])
		if diff := cmp.Diff(want, got); end != wantEnd || diff != "" {
			t.Errorf("cut at %d: ends at %d, want %d\n%s", cut, end, wantEnd, diff)
		}
	}
}

func TestJournalRotation(t *testing.T) {
	t.Parallel()
	j := newJournal(t)
	for _, raw := range []string{"a", "b", "c"} {
		j.since = time.Now().Add(-journalPeriod - time.Second)
		if err := j.append([]byte(raw)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.append([]byte("d")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][][]byte{
		j.older: {[]byte("b")},
		j.newer: {[]byte("c"), []byte("d")},
	} {
		text, err := os.ReadFile(path)
		got, _ := readJournal(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", filepath.Base(path), err, diff)
		}
	}
}

// FuzzReadJournal: what was read is what the file says up to its end.
func FuzzReadJournal(f *testing.F) {
	f.Add(journalOf(f, []byte("first"), []byte("second block")))
	f.Add(journalOf(f, []byte{0})[:8])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		blocks, end := readJournal(in)
		if again := journalOf(t, blocks...); !bytes.Equal(again, in[:end]) {
			t.Errorf("%x is read as the journal %x", in[:end], again)
		}
	})
}
