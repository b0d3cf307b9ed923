package switchapi

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t *testing.T, dir string) (w *waiting, damaged func() int) {
	t.Helper()
	n := 0
	w, err := openWaiting(dir, 1000, zerolog.Nop(), func() { n++ })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w, func() int { return n }
}

func accept(t *testing.T, w *waiting, changes ...change) {
	t.Helper()
	if err := w.accept(changes); err != nil {
		t.Fatal(err)
	}
}

// TestAcceptedSurvives reopens the journal as a process does that was killed.
func TestAcceptedSurvives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := open(t, dir)
	farm := "farm"
	accept(t, w, change{User: "alice", Chain: "btc", At: at, Due: at}, change{User: "bob", Chain: "bch", At: at, Due: at.Add(time.Hour)})
	accept(t, w, change{User: "alice", Chain: "bch", PUID: 7, At: at.Add(1), Due: at.Add(1)})
	accept(t, w, change{User: "alice", SubPool: &farm, At: at.Add(2), Due: at.Add(2)})
	accept(t, w, change{User: "carol", Chain: "btc", At: at, Due: at})
	w.add(change{User: "dave", Chain: "btc", Due: at})
	due, _ := w.due(at.Add(time.Minute), 10)
	for _, c := range due {
		if c.User == "carol" {
			w.done(c)
		}
	}

	w, damaged := open(t, dir)
	due, next := w.due(at.Add(time.Minute), 10)
	if len(due) != 1 || damaged() != 0 {
		t.Fatalf("%+v, %d damaged", due, damaged())
	}
	if c := due[0]; c.User != "alice" || c.Chain != "bch" || c.PUID != 7 || *c.SubPool != "farm" || !c.accepted {
		t.Errorf("%+v: the last of each counts", c)
	}
	if !next.Equal(at.Add(time.Hour)) {
		t.Errorf("bob is due at %s", next)
	}
}

// TestNewerThanWritten has a change come while the one before is being written.
func TestNewerThanWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := open(t, dir)
	accept(t, w, change{User: "alice", Chain: "btc", At: at, Due: at})
	due, _ := w.due(at, 10)
	accept(t, w, change{User: "alice", Chain: "bch", At: at.Add(1), Due: at})
	w.done(due[0])
	if w.written("alice", at.Add(1)) || !w.written("alice", at) {
		t.Error("the newer one is not waiting")
	}
	w, _ = open(t, dir)
	if due, _ := w.due(at, 10); len(due) != 1 || due[0].Chain != "bch" {
		t.Errorf("%+v", due)
	}
}

// TestJournalCutAnywhere cuts the journal after each byte: what was written before is there, and nothing is damaged.
func TestJournalCutAnywhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := open(t, dir)
	accept(t, w, change{User: "alice", Chain: "btc", At: at, Due: at})
	one := w.size
	accept(t, w, change{User: "bob", Chain: "bch", At: at, Due: at})
	content, err := os.ReadFile(w.path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(content) {
		want := 0
		if int64(cut) >= one {
			want = 1
		}
		w := &waiting{accepted: make(map[string]change)}
		if damaged := w.replay(content[:cut]); len(w.accepted) != want || damaged != 0 {
			t.Fatalf("cut at %d: %d, %d bytes damaged", cut, len(w.accepted), damaged)
		}
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal"), content[:len(content)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	w, _ = open(t, dir)
	accept(t, w, change{User: "carol", Chain: "btc", At: at, Due: at})
	w, damaged := open(t, dir)
	if len(w.accepted) != 2 || damaged() != 0 {
		t.Fatalf("%d after one more than what was cut", len(w.accepted))
	}
	content[one+12] ^= 1
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	w, damaged = open(t, dir)
	if kept, _ := filepath.Glob(filepath.Join(dir, "journal.damaged-*")); len(w.accepted) != 1 || damaged() != 1 || len(kept) != 1 {
		t.Errorf("a damaged record: %d are there, %d damaged, kept as %q", len(w.accepted), damaged(), kept)
	}
}

// TestJournalStaysSmall writes far more than is ever waiting.
func TestJournalStaysSmall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := open(t, dir)
	w.limit = 4 << 10
	accept(t, w, change{User: "bob", Chain: "bch", At: at, Due: at})
	for i := range 2000 {
		c := change{User: "user" + strconv.Itoa(i%10), Chain: "btc", At: at.Add(time.Duration(i)), Due: at}
		w.limit = min(w.limit, 4<<10)
		accept(t, w, c)
		c.accepted = true
		w.done(c)
	}
	if info, err := os.Stat(w.path); err != nil || info.Size() > 8<<10 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	if w, _ := open(t, dir); len(w.accepted) != 1 {
		t.Errorf("%d are waiting", len(w.accepted))
	}
}

// TestFailedWriteIsNotAccepted has the file fail.
func TestFailedWriteIsNotAccepted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := open(t, dir)
	good := w.file
	readOnly, err := os.Open(w.path)
	if err != nil {
		t.Fatal(err)
	}
	w.file = readOnly
	if err := w.accept([]change{{User: "alice", Chain: "btc", At: at, Due: at}}); !errors.Is(err, errJournal) {
		t.Error(err)
	}
	readOnly.Close()
	w.file = good
	if due, _ := w.due(at, 10); len(due) != 0 {
		t.Errorf("%+v is waiting, and its client was told that it is not", due)
	}
	accept(t, w, change{User: "bob", Chain: "btc", At: at, Due: at})
	if w, damaged := open(t, dir); len(w.accepted) != 1 || damaged() != 0 {
		t.Errorf("%d are waiting", len(w.accepted))
	}
}

func TestCrowded(t *testing.T) {
	t.Parallel()
	w, _ := open(t, t.TempDir())
	w.most = 2
	accept(t, w, change{User: "alice", Chain: "btc", At: at}, change{User: "bob", Chain: "btc", At: at})
	accept(t, w, change{User: "alice", Chain: "bch", At: at.Add(1)})
	if err := w.accept([]change{{User: "alice", Chain: "btc", At: at.Add(2)}, {User: "carol", Chain: "btc", At: at}}); !errors.Is(err, errCrowded) {
		t.Error(err)
	}
	if w.accepted["alice"].Chain != "bch" {
		t.Error("a part of it is accepted")
	}
}

// TestClientsBeforeTheMap has what a map says come late.
func TestClientsBeforeTheMap(t *testing.T) {
	t.Parallel()
	w, _ := open(t, t.TempDir())
	chore := func(user, chain string) change { return change{User: user, Chain: chain, At: at, Due: at} }
	chain := func(user string) string { return w.chores[user].Chain }

	w.add(chore("alice", "btc")) // read before, and not written yet
	accept(t, w, change{User: "alice", Chain: "bch", At: at, Due: at})
	if got := chain("alice"); got != "" {
		t.Errorf("the map's %s goes over what a client asked for later", got)
	}
	w.reading(true)
	accept(t, w, change{User: "bob", Chain: "bch", At: at, Due: at})
	for _, user := range []string{"alice", "bob"} {
		w.done(w.accepted[user])
	}
	w.add(chore("bob", "btc"), chore("carol", "btc")) // the map was made before bob was switched
	if chain("bob") != "" || chain("carol") != "btc" {
		t.Errorf("bob %q, carol %q", chain("bob"), chain("carol"))
	}
	w.reading(false)
	w.add(chore("bob", "btc"))
	if chain("bob") != "btc" {
		t.Error("the next map says nothing of bob")
	}
	accept(t, w, change{User: "dave", Chain: "bch", At: at, Due: at.Add(time.Hour)})
	w.add(chore("dave", "btc"), change{User: "dave", first: "btc", Due: at})
	if c := w.chores["dave"]; c.Chain != "" || c.first != "btc" {
		t.Errorf("%+v: a switch waits that a client asked for", c)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(appendRecord(appendRecord(nil, record{Accepted: &change{User: "alice", Chain: "btc", At: at, Due: at}}), record{Written: &change{User: "alice", At: at}}), 5)
	f.Fuzz(func(t *testing.T, content []byte, cut int) {
		w := &waiting{accepted: make(map[string]change)}
		damaged := w.replay(content)
		if damaged < 0 || damaged > len(content) {
			t.Fatal(damaged)
		}
		for user, c := range w.accepted {
			if user != c.User || !c.accepted {
				t.Fatalf("%+v", c)
			}
		}
		if cut >= 0 && cut < len(content) { // what is cut off is less, and never damage that was not there
			if got := (&waiting{accepted: make(map[string]change)}).replay(content[:cut]); got > 0 && damaged == 0 {
				t.Fatalf("cut at %d: %d bytes are damaged", cut, got)
			}
		}
	})
}
