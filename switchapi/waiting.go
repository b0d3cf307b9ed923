package switchapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/durable"
	"btcpool/internal/retry"
)

const (
	maxRecord = 4 << 10 // bytes of a change in the journal: names are bounded
	// minJournal is the size in bytes from which on the journal is written anew when most of it is done with.
	minJournal = 1 << 20
)

// change is what a user's node is to say.
type change struct {
	User    string  `json:"user"`
	Chain   string  `json:"chain,omitempty"`   // "": as it is
	SubPool *string `json:"subpool,omitempty"` // nil: as it is
	PUID    int32   `json:"puid,omitempty"`    // the user's id on Chain; 0: not said
	// At is when it was accepted, Due when it may be written. Since is the first Due of all whose place it has taken.
	At    time.Time `json:"at"`
	Due   time.Time `json:"due"`
	Since time.Time `json:"since"`

	// outcome tells what clients have asked for from chores: it is in the journal, and written even if the node says so
	// already, because writing has servers look again. Chores come again after a restart, and nobody waits for them.
	outcome *outcome
	// first is the chain that a chore gives a user who has no node yet; "": none is made.
	first string
}

// outcome is what becomes of a change, and of those that take its place before it is written.
type outcome struct {
	known   chan struct{} // closed when it is
	nothing bool          // the user has no chain, so there was nothing to write; read it after known
}

func newOutcome() *outcome { return &outcome{known: make(chan struct{})} }

// accepted reports whether a client was told that c will be written.
func (c change) accepted() bool { return c.outcome != nil }

// over returns what is left to do when c comes after an earlier change of the same user.
func (c change) over(earlier change) change {
	if c.Chain == "" && earlier.Chain != "" {
		c.Chain, c.PUID, c.Due = earlier.Chain, earlier.PUID, earlier.Due
	}
	if c.SubPool == nil {
		c.SubPool = earlier.SubPool
	}
	if earlier.first != "" {
		c.first = earlier.first
	}
	return c
}

// without returns what is left of a chore beside what a client has asked for.
func (c change) without(asked change) change {
	if asked.Chain != "" {
		c.Chain, c.PUID = "", 0
	}
	if asked.SubPool != nil {
		c.SubPool = nil
	}
	return c
}

// record is a record of the journal: a change that was accepted, or that one was written.
type record struct {
	Accepted *change `json:"accepted,omitempty"`
	Written  *change `json:"written,omitempty"` // user and at only
}

var (
	errCrowded = errors.New("too many switches wait already")
	errJournal = errors.New("the journal cannot be written")
)

// waiting are the changes that are not in ZooKeeper yet, one a user: the last counts. Those of clients are on disk
// before anybody is told that they are accepted, in a journal of durable frames.
type waiting struct {
	path string
	most int
	bell retry.Bell // there is something new

	mu       sync.Mutex
	file     *os.File
	size     int64 // of the records that are whole
	limit    int64 // size above which the journal is written anew; spoilt: before anything else is
	accepted map[string]change
	chores   map[string]change
	// asked are the users whom clients have had changed since the reading of the map began; nil: it is not being read.
	asked map[string]bool
}

// spoilt is the limit of a journal of which nobody knows what the disk has, because writing or syncing it has failed.
const spoilt = -1

// openWaiting reads the journal in dir, of at most so many users. It calls damaged if there are records that cannot be
// read.
func openWaiting(dir string, most int, log zerolog.Logger, damaged func()) (*waiting, error) {
	w := &waiting{
		path: filepath.Join(dir, "journal"), most: most, bell: retry.NewBell(),
		accepted: make(map[string]change), chores: make(map[string]change),
	}
	durable.Sweep(w.path)
	content, err := os.ReadFile(w.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if rest := w.replay(content); rest > 0 {
		damaged()
		aside := fmt.Sprintf("%s.damaged-%d", w.path, time.Now().Unix())
		log.Error().Int("bytes", rest).Str("kept_as", aside).Msg("the journal is damaged: switches that were accepted may be lost")
		// A copy: until there is a new journal, this one has what could be read.
		if err := durable.Replace(aside, content, 0o640); err != nil {
			return nil, err
		}
	}
	if len(w.accepted) > 0 {
		log.Info().Int("users", len(w.accepted)).Msg("switches of an earlier run are still to be written")
	}
	return w, w.rewrite()
}

// replay takes in a journal and returns how many bytes at its end are damaged; a record that is cut off was never
// accepted.
func (w *waiting) replay(content []byte) (damaged int) {
	for len(content) > 0 {
		body, size, err := durable.CutFrame(content, 2, maxRecord)
		if errors.Is(err, durable.ErrShort) {
			return 0
		}
		var r record
		if err != nil || json.Unmarshal(body, &r) != nil {
			return len(content)
		}
		switch {
		case r.Accepted != nil:
			c := *r.Accepted
			c.outcome = newOutcome()
			if c.Since.IsZero() {
				c.Since = c.Due
			}
			w.accepted[c.User] = c
		case r.Written != nil && w.accepted[r.Written.User].At.Equal(r.Written.At):
			delete(w.accepted, r.Written.User)
		}
		content = content[size:]
	}
	return 0
}

func appendRecord(dst []byte, r record) []byte {
	text, _ := json.Marshal(r) // texts and times only
	at := len(dst)
	dst = append(append(dst, make([]byte, durable.FrameHead)...), text...)
	durable.SealFrame(dst[at:])
	return dst
}

// rewrite makes a journal of what is left to do. The caller holds w.mu, but for the first time.
func (w *waiting) rewrite() error {
	w.limit = spoilt // unless it works
	var content []byte
	for _, c := range w.accepted {
		content = appendRecord(content, record{Accepted: &c})
	}
	if err := durable.Replace(w.path, content, 0o640); err != nil {
		return err
	}
	file, err := os.OpenFile(w.path, os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if w.file != nil {
		_ = w.file.Close() // whose content is of no use any more
	}
	w.file, w.size = file, int64(len(content))
	w.limit = max(minJournal, 2*w.size)
	return nil
}

// append writes records behind those that are whole.
func (w *waiting) append(records []byte, sync bool) error {
	if w.size > w.limit {
		if err := w.rewrite(); err != nil {
			return err
		}
	}
	_, err := w.file.WriteAt(records, w.size)
	if err == nil && sync {
		err = w.file.Sync()
	}
	if err != nil {
		_ = w.file.Truncate(w.size) // what is there of them was not accepted
		w.limit = spoilt
		return err
	}
	w.size += int64(len(records))
	return nil
}

// mend makes a new journal if there has to be one. It returns why nothing can be accepted.
func (w *waiting) mend() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.limit != spoilt {
		return nil
	}
	return w.rewrite()
}

// accept takes in changes that clients ask for, all or none, and gives them outcomes. When it returns nil they will be
// written, come what may.
func (w *waiting) accept(changes []change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	merged := make(map[string]change, len(changes))
	fresh := 0
	for i, c := range changes {
		earlier, ok := merged[c.User]
		if !ok {
			earlier, ok = w.accepted[c.User]
		}
		c.Since = c.Due
		if ok {
			c = c.over(earlier)
			c.outcome = earlier.outcome
			if earlier.Since.Before(c.Since) {
				c.Since = earlier.Since
			}
			if !c.At.After(earlier.At) { // by which they are told apart
				c.At = earlier.At.Add(1)
			}
		} else {
			c.outcome = newOutcome()
			fresh++
		}
		merged[c.User] = c
		changes[i].outcome = c.outcome
	}
	if len(w.accepted)+fresh > w.most {
		return errCrowded
	}
	var records []byte
	for _, c := range merged {
		records = appendRecord(records, record{Accepted: &c})
	}
	if err := w.append(records, true); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	for user, c := range merged {
		w.accepted[user] = c
		if chore, ok := w.chores[user]; ok { // what the map said before
			w.chores[user] = chore.without(c)
		}
		if w.asked != nil {
			w.asked[user] = true
		}
	}
	w.bell.Ring()
	return nil
}

// add takes in chores. What a client has asked for and is not written yet comes before them.
func (w *waiting) add(chores ...change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range chores {
		c = c.without(w.accepted[c.User])
		if w.asked[c.User] {
			c.Chain, c.SubPool = "", nil
		}
		if earlier, ok := w.chores[c.User]; ok {
			c = c.over(earlier)
		}
		w.chores[c.User] = c
	}
	if len(chores) > 0 {
		w.bell.Ring()
	}
}

// reading begins or ends the reading of a map: what it says of a user counts unless a client says otherwise meanwhile.
func (w *waiting) reading(begins bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = nil
	if begins {
		w.asked = make(map[string]bool)
	}
}

// due returns changes that may be written now, those of clients first, and when the next one may.
func (w *waiting) due(now time.Time, most int) (due []change, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range []map[string]change{w.accepted, w.chores} {
		for _, c := range of {
			switch {
			case len(due) == most:
				return due, now
			case !c.Due.After(now):
				due = append(due, c)
			case next.IsZero() || c.Due.Before(next):
				next = c.Due
			}
		}
	}
	return due, next
}

// done says that a change is in ZooKeeper, or that there is nothing to write. If there is a newer one of the user, that
// stays.
func (w *waiting) done(c change, nothing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.accepted() {
		if now := w.chores[c.User]; now == c {
			delete(w.chores, c.User)
		}
		return
	}
	if !w.accepted[c.User].At.Equal(c.At) {
		return
	}
	delete(w.accepted, c.User)
	c.outcome.nothing = nothing
	close(c.outcome.known)
	// Should it not get there, a restart writes the same once more.
	_ = w.append(appendRecord(nil, record{Written: &change{User: c.User, At: c.At}}), false)
}

// counts returns how many changes wait, and since when the user does whose change has been due for the longest.
func (w *waiting) counts(now time.Time) (accepted, chores int, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.accepted {
		if !c.Since.After(now) && (since.IsZero() || c.Since.Before(since)) {
			since = c.Since
		}
	}
	return len(w.accepted), len(w.chores), since
}

// Close closes the journal.
func (w *waiting) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.Close()
}
