package blkmaker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
)

func testJournal(t testing.TB, dir string) *journal {
	t.Helper()
	j, err := openJournal(dir, zerolog.Nop(), newMetrics(nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.close() })
	return j
}

func numbered(n int) solvedKey {
	return solvedKey{kindBlock, chainhash.Hash{byte(n), byte(n >> 8)}}
}

func messages(j *journal) (all []string) {
	for _, t := range j.pending() {
		all = append(all, string(t.message))
	}
	return all
}

func (j *journal) mustTake(t testing.TB, n int, wantFirst bool, from position) {
	t.Helper()
	first, err := j.take(numbered(n), fmt.Append(nil, n), time.Unix(int64(n), 0), from)
	if first != wantFirst || err != nil {
		t.Fatalf("%d taken: first %t, %v", n, first, err)
	}
}

func kafka(partition int, offset int64) position { return position{"Solved", partition, offset, 7} }

// A restart finds what was taken and not done, and where Kafka's topics were.
func TestJournalSurvives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := testJournal(t, dir)
	if j.lastRead("Solved") != nil {
		t.Error("a new journal knows positions")
	}
	j.mustTake(t, 3, true, kafka(0, 0))
	j.mustTake(t, 1, true, position{})
	j.mustTake(t, 2, true, position{})
	j.mustTake(t, 2, false, kafka(1, 7)) // by the other way
	j.read(kafka(0, 5))
	j.answer(numbered(1), "0", verdictAccepted, "")
	j.finish(numbered(2), resultAccepted)
	for range 2 {
		j.mustTake(t, 2, false, position{})
		if diff := cmp.Diff([]string{"1", "3"}, messages(j)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[int]bus.Mark{0: {Offset: 5, Checksum: 7}, 1: {Offset: 7, Checksum: 7}}, j.lastRead("Solved")); diff != "" {
			t.Error(diff)
		}
		if sent := j.pending()[1].sent; !sent.Equal(time.Unix(3, 0)) {
			t.Errorf("sent at %s", sent)
		}
		must(t, j.close())
		j = testJournal(t, dir)
	}
	// The same header for another chain is another share.
	if first, err := j.take(solvedKey{kindAux, numbered(1).Hash}, nil, time.Now(), position{}); !first || err != nil {
		t.Errorf("first %t, %v", first, err)
	}
}

// However the last line ends, those before it are read and those after it too.
func TestJournalTornLine(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	j := testJournal(t, origin)
	j.mustTake(t, 1, true, position{})
	good, err := os.ReadFile(j.path)
	must(t, err)
	j.mustTake(t, 2, true, position{})
	whole, err := os.ReadFile(j.path)
	must(t, err)
	for cut := len(good); cut < len(whole); cut++ {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "journal"), whole[:cut], 0o600))
		j := testJournal(t, dir)
		j.mustTake(t, 3, true, position{})
		must(t, j.close())
		want := []string{"1", "3"}
		if cut == len(whole)-1 { // all but the line's end
			want = []string{"1", "2", "3"}
		}
		if diff := cmp.Diff(want, messages(testJournal(t, dir))); diff != "" {
			t.Fatalf("cut at %d of %d: %s", cut, len(whole), diff)
		}
	}
}

func TestJournalCompacts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := testJournal(t, dir)
	j.limit = 20_000
	for n := range 1000 {
		j.mustTake(t, n, true, kafka(0, int64(n)))
		if n%100 > 0 {
			j.finish(numbered(n), resultAccepted)
		}
	}
	if j.limit != maxJournal {
		t.Error("never compacted")
	}
	j.limit = 0
	j.answer(numbered(0), "0", verdictError, "") // compacts
	must(t, j.close())
	before, err := os.ReadFile(j.path)
	must(t, err)
	if lines := bytes.Count(before, []byte("\n")); lines != 1+1000+2 {
		t.Errorf("%d lines, want one a share, one position, the answer, and what it implies", lines)
	}
	j = testJournal(t, dir)
	var want []string
	for n := 0; n < 1000; n += 100 {
		want = append(want, fmt.Sprint(n))
	}
	if diff := cmp.Diff(want, messages(j)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[int]bus.Mark{0: {Offset: 999, Checksum: 7}}, j.lastRead("Solved")); diff != "" {
		t.Error(diff)
	}
	for n := range 1000 {
		j.mustTake(t, n, false, position{})
	}
}

// What is done with is remembered for a while only.
func TestJournalForgets(t *testing.T) {
	t.Parallel()
	j := testJournal(t, t.TempDir())
	for n := range keepDone + 2 {
		j.finish(numbered(n), resultAccepted)
	}
	j.mustTake(t, 1, true, position{})
	j.mustTake(t, 2, false, position{})
}

// A share that could not be written is worked on all the same, is not acknowledged, and comes again from Kafka after a
// restart.
func TestJournalDiskFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := testJournal(t, dir)
	j.mustTake(t, 1, true, kafka(0, 1))
	must(t, j.file.Close())
	for _, wantFirst := range []bool{true, false} {
		if first, err := j.take(numbered(2), []byte("2"), time.Unix(2, 0), kafka(0, 2)); first != wantFirst || err == nil {
			t.Fatalf("first %t, %v", first, err)
		}
	}
	if n := testutil.ToFloat64(j.metrics.diskErrors); n != 2 {
		t.Errorf("%v failures counted, want 2", n)
	}
	var err error
	j.file, err = os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	j.mustTake(t, 3, true, kafka(0, 3))
	must(t, j.close())
	j = testJournal(t, dir)
	if diff := cmp.Diff(map[int]bus.Mark{0: {Offset: 1, Checksum: 7}}, j.lastRead("Solved")); diff != "" {
		t.Error(diff)
	}
	if got := messages(j); !slices.Contains(got, "3") || slices.Contains(got, "2") {
		t.Errorf("%v", got)
	}
}

// A journal that could not be replaced is replaced the next time, and what it takes until then is not acknowledged.
func TestJournalCompactionFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "folder")
	must(t, os.Mkdir(dir, 0o750))
	j := testJournal(t, dir)
	j.mustTake(t, 1, true, position{})
	must(t, os.Rename(dir, dir+".away"))
	j.limit = 0
	for _, wantFirst := range []bool{true, false} {
		if first, err := j.take(numbered(2), []byte("2"), time.Unix(2, 0), position{}); first != wantFirst || err == nil {
			t.Fatalf("first %t, %v", first, err)
		}
	}
	must(t, os.Mkdir(dir, 0o750))
	j.mustTake(t, 3, true, position{})
	must(t, j.close())
	if diff := cmp.Diff([]string{"1", "2", "3"}, messages(testJournal(t, dir))); diff != "" {
		t.Error(diff)
	}
}

// A journal that can be read at all can be read again after it was compacted, with the same content.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	j := testJournal(f, dir)
	j.mustTake(f, 1, true, kafka(0, 1))
	j.mustTake(f, 2, true, position{})
	j.finish(numbered(1), resultAccepted)
	content, err := os.ReadFile(j.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(content[:len(content)-10])
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "journal"), content, 0o600))
		j := testJournal(t, dir)
		want := j.lastRead("Solved")
		must(t, j.compact())
		again := testJournal(t, dir)
		if diff := cmp.Diff(want, again.lastRead("Solved")); diff != "" {
			t.Fatal(diff)
		}
		if len(j.open) != len(again.open) || !slices.Equal(j.order, again.order) {
			t.Fatalf("%d open and %d done, then %d and %d", len(j.open), len(j.order), len(again.open), len(again.order))
		}
	})
}
