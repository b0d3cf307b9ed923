package switchapi

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/service"
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
			w.done(c, false)
		}
	}

	w, damaged := open(t, dir)
	due, next := w.due(at.Add(time.Minute), 10)
	if len(due) != 1 || damaged() != 0 {
		t.Fatalf("%+v, %d damaged", due, damaged())
	}
	if c := due[0]; c.User != "alice" || c.Chain != "bch" || c.PUID != 7 || *c.SubPool != "farm" || !c.accepted() {
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
	accept(t, w, change{User: "alice", Chain: "bch", At: at, Due: at}) // by a clock that stands
	w.done(due[0], false)
	select {
	case <-due[0].outcome.known:
		t.Error("the older one is told to be in ZooKeeper, where the newer one belongs")
	default:
	}
	again, _ := open(t, dir)
	if due, _ := again.due(at, 10); len(due) != 1 || due[0].Chain != "bch" {
		t.Errorf("%+v", due)
	}
	w.done(w.accepted["alice"], false)
	<-due[0].outcome.known
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
		w.done(w.accepted[c.User], false)
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
	readOnly, err := os.Open(w.path)
	if err != nil {
		t.Fatal(err)
	}
	w.file = readOnly
	if err := w.accept([]change{{User: "alice", Chain: "btc", At: at, Due: at}}); !errors.Is(err, errJournal) {
		t.Error(err)
	}
	if due, _ := w.due(at, 10); len(due) != 0 {
		t.Errorf("%+v is waiting, and its client was told that it is not", due)
	}
	// Nobody knows what the disk has of that file: there is another from now on.
	accept(t, w, change{User: "bob", Chain: "btc", At: at, Due: at})
	if w, damaged := open(t, dir); len(w.accepted) != 1 || damaged() != 0 {
		t.Errorf("%d are waiting", len(w.accepted))
	}
}

// TestReadyAgain has the disk fail and recover: a service that is not ready is asked by nobody, and sees it for itself.
func TestReadyAgain(t *testing.T) {
	t.Parallel()
	s := &Service{journal: service.NewFault(zerolog.Nop(), zerolog.ErrorLevel, "", "")}
	s.waiting, _ = open(t, t.TempDir())
	one := func(user string) []change { return []change{{User: user, Chain: "btc", At: at, Due: at}} }
	s.waiting.file.Close()
	if err := s.accept(one("alice")); !errors.Is(err, errJournal) || s.Ready() == nil {
		t.Errorf("%v, ready %v", err, s.Ready())
	}
	s.waiting.most = 0
	if err := s.accept(one("bob")); !errors.Is(err, errCrowded) || s.Ready() == nil {
		t.Errorf("%v, ready %v: too many users say nothing of the disk", err, s.Ready())
	}
	s.mend()
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
	s.waiting.most = 1
	if err := s.accept(one("alice")); err != nil {
		t.Error(err)
	}
}

// TestWaitsSince has a client ask again and again while ZooKeeper is away: that does not make it wait for less.
func TestWaitsSince(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := open(t, dir)
	for i := range 5 {
		now := at.Add(time.Duration(i) * time.Minute)
		accept(t, w, change{User: "alice", Chain: "btc", At: now, Due: now})
	}
	again, _ := open(t, dir)
	for _, w := range []*waiting{w, again} {
		if _, _, since := w.counts(at.Add(5 * time.Minute)); !since.Equal(at) {
			t.Errorf("since %s", since)
		}
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
		w.done(w.accepted[user], false)
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
	w.add(chore("dave", "btc"), change{User: "dave", first: "btc", Due: at}, change{User: "dave", first: "bch", Due: at})
	if c := w.chores["dave"]; c.Chain != "" || c.first != "btc" {
		t.Errorf("%+v: a switch waits that a client asked for, and the first list with dave is that of btc", c)
	}
}

// TestClientsBeforeTheMapOfSubPools is the same for sub-pools, which say nothing of chains.
func TestClientsBeforeTheMapOfSubPools(t *testing.T) {
	t.Parallel()
	w, _ := open(t, t.TempDir())
	old := change{User: "alice", Chain: "btc", SubPool: new("old"), At: at, Due: at}
	left := func(when string) {
		t.Helper()
		if c := w.chores["alice"]; c.SubPool != nil || c.Chain != "btc" {
			t.Errorf("%s: %+v", when, c)
		}
	}
	w.add(old)
	accept(t, w, change{User: "alice", SubPool: new("new"), At: at, Due: at})
	left("read before the client asked")
	w.add(old)
	left("read after the client asked, and before that is written")
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
			if user != c.User || !c.accepted() {
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
