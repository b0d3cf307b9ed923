package notify

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/durable"
)

// Block is a found block. State is as store.BlockState has it.
type Block struct {
	Hash      string    `json:"hash"`
	Height    int32     `json:"height"`
	User      string    `json:"user,omitempty"`
	Worker    string    `json:"worker,omitempty"`
	RewardSat int64     `json:"reward_sat"`
	Time      time.Time `json:"time"`
	State     string    `json:"state"`
}

const submitted, accepted = "submitted", "accepted" // states that a block does not stay in

func (b *Block) open() bool { return b.State == submitted || b.State == accepted }

// knownBlock is a block with what each target knows of it: the state that it was told.
type knownBlock struct {
	Block
	Told map[string]string `json:"told,omitempty"`
}

// queued is a message on its way.
type queued struct {
	Target  string   `json:"target"`
	Message *Message `json:"message"`
	Tries   int      `json:"tries,omitempty"`
	Next    int64    `json:"next,omitempty"` // unix time of the next try
}

// state is all that must not be forgotten. It is one file, replaced whole, so that what was told and what is to be sent
// always fit each other.
type state struct {
	Looked int64            `json:"looked"`         // unix time of the last complete look, 0 before the first
	Blocks []*knownBlock    `json:"blocks"`         // nil before the first look
	Queue  []*queued        `json:"queue"`          // at most one of a target and an event
	Last   map[string]int64 `json:"last,omitempty"` // unix times of the last messages by target/event
	Names  []string         `json:"targets"`        // that everything was told to

	conditions map[conditionKey]*condition
	untracked  uint64 // conditions of the last look for which there was no room
	dirty      bool   // not on disk
	written    int64  // Looked as it is on disk
}

// onDisk is the file.
type onDisk struct {
	Format int `json:"format"`
	*state
	Conditions []*condition `json:"conditions"`
}

const (
	stateFile   = "notify.json"
	stateFormat = 1
	stateMost   = 256 << 20 // bytes
	lookedEvery = 600       // seconds between writes of nothing but Looked
)

func newState() *state {
	return &state{Last: make(map[string]int64), conditions: make(map[conditionKey]*condition)}
}

// readState reads what a process before has left. A file that cannot be understood is put aside: what is told then
// begins anew.
func readState(dir string, log zerolog.Logger) (*state, error) {
	path := filepath.Join(dir, stateFile)
	durable.Sweep(path)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newState(), nil
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, stateMost+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	s, err := parseState(text)
	if err == nil {
		return s, nil
	}
	aside := path + ".unreadable"
	log.Error().Err(err).Str("file", path).Str("aside", aside).Msg("what was told is not known: the file is damaged, put aside, and begun anew")
	return newState(), os.Rename(path, aside)
}

func parseState(text []byte) (*state, error) {
	file := onDisk{state: newState()}
	if len(text) > stateMost {
		return nil, errors.New("is too long")
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	if file.Format != stateFormat {
		return nil, fmt.Errorf("format %d is not known", file.Format)
	}
	s := file.state
	if s.Last == nil {
		s.Last = make(map[string]int64)
	}
	if slices.Contains(s.Blocks, nil) || slices.Contains(file.Conditions, nil) ||
		slices.ContainsFunc(s.Queue, func(q *queued) bool { return q == nil || q.Message == nil }) {
		return nil, errors.New("has nothing where something should be")
	}
	for _, c := range file.Conditions {
		s.conditions[c.key()] = c
	}
	s.written = s.Looked
	return s, nil
}

// write puts s on disk if something has changed.
func (s *state) write(dir string) error {
	if !s.dirty && s.Looked-s.written < lookedEvery && s.written != 0 {
		return nil
	}
	file := onDisk{Format: stateFormat, state: s, Conditions: []*condition{}}
	for _, c := range s.conditions {
		file.Conditions = append(file.Conditions, c)
	}
	slices.SortFunc(file.Conditions, compareConditions)
	text, err := json.Marshal(file)
	if err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(dir, stateFile), text, 0o640); err != nil {
		s.dirty = true
		return err
	}
	s.dirty, s.written = false, s.Looked
	return nil
}

func compareConditions(a, b *condition) int {
	return cmp.Or(strings.Compare(a.User, b.User), strings.Compare(a.Worker, b.Worker), strings.Compare(string(a.Event), string(b.Event)),
		cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.WorkerID, b.WorkerID))
}

// take fits s to the targets: a new one knows all that is now, one that is gone is forgotten.
func (s *state) take(targets []*target) {
	var names []string
	for _, t := range targets {
		names = append(names, t.Name)
	}
	gone := func(name string) bool { return !slices.Contains(names, name) }
	for _, c := range s.conditions {
		c.Told = slices.DeleteFunc(c.Told, gone)
	}
	for _, b := range s.Blocks {
		for name := range b.Told {
			if gone(name) {
				delete(b.Told, name)
			}
		}
	}
	s.Queue = slices.DeleteFunc(s.Queue, func(q *queued) bool { return gone(q.Target) })
	for _, name := range names {
		if slices.Contains(s.Names, name) {
			continue
		}
		for _, c := range s.conditions {
			if c.Raised {
				c.Told = append(c.Told, name)
			}
		}
		for _, b := range s.Blocks {
			b.tell(name)
		}
	}
	s.Names, s.dirty = names, true
}

// tell notes that a target knows of b.
func (b *knownBlock) tell(name string) {
	if b.Told == nil {
		b.Told = make(map[string]string)
	}
	b.Told[name] = b.State
}

// endLook is to be called when all sights of one moment are judged.
func (s *state) endLook(now time.Time) { s.Looked = now.Unix() }

// takeBlocks replaces the blocks that are known. All of the first look are known to everybody.
func (s *state) takeBlocks(blocks []Block, targets []*target) {
	known := make(map[string]*knownBlock, len(s.Blocks))
	for _, b := range s.Blocks {
		known[b.Hash] = b
	}
	first := s.Blocks == nil
	next := make([]*knownBlock, 0, len(blocks))
	seen := make(map[string]bool, len(blocks))
	for _, b := range blocks {
		if seen[b.Hash] { // pages shift when a block is found between them
			continue
		}
		seen[b.Hash] = true
		k := known[b.Hash]
		delete(known, b.Hash)
		if k == nil {
			k = &knownBlock{Block: b}
			s.dirty = true
		}
		if k.State != b.State {
			s.dirty = true
		}
		k.Block = b
		if first {
			for _, t := range targets {
				k.tell(t.Name)
			}
		}
		next = append(next, k)
	}
	for _, k := range s.Blocks { // what is not told yet stays
		if known[k.Hash] == nil {
			continue
		}
		if slices.ContainsFunc(targets, func(t *target) bool { return k.news(t) }) {
			next = append(next, k)
		} else {
			s.dirty = true
		}
	}
	s.dirty = s.dirty || first
	s.Blocks = next
}

// covered tells whether the newest blocks reach back to one that is known, and to all that may change.
func (s *state) covered(blocks []Block) bool {
	if s.Blocks == nil || len(blocks) == 0 {
		return true
	}
	open := make(map[string]bool)
	known := false
	for _, b := range s.Blocks {
		if b.open() {
			open[b.Hash] = true
		}
		known = known || b.Hash == blocks[len(blocks)-1].Hash
	}
	for _, b := range blocks {
		delete(open, b.Hash)
	}
	return known && len(open) == 0
}

// news tells whether there is something of b to tell t. Of a block that no node has answered for there is not.
func (b *knownBlock) news(t *target) bool {
	return b.State != submitted && b.Told[t.Name] != b.State && t.wants(BlockFound) && t.concerns(b.User)
}

// mayTell tells whether a message of e may be made for t.
func (s *state) mayTell(t *target, e Event, now time.Time, pause time.Duration) bool {
	if now.Unix()-s.Last[t.Name+"/"+string(e)] < int64(pause/time.Second) {
		return false
	}
	return !slices.ContainsFunc(s.Queue, func(q *queued) bool { return q.Target == t.Name && q.Message.Type == e })
}

// compose makes a message of all that t does not know, which it knows from then on; nil when there is nothing.
func (s *state) compose(t *target, e Event, now time.Time) *Message {
	m := newMessage(e, now)
	if e == BlockFound {
		for _, b := range slices.Backward(s.Blocks) { // the oldest first
			if b.news(t) {
				m.add(b.item(b.Told[t.Name] == ""))
				b.tell(t.Name)
			}
		}
	} else {
		var changed []*condition
		for _, c := range s.conditions {
			if c.Event == e && t.concerns(c.User) && c.Raised != slices.Contains(c.Told, t.Name) {
				changed = append(changed, c)
			}
		}
		slices.SortFunc(changed, func(a, b *condition) int {
			if a.Raised != b.Raised { // what is bad goes first
				if a.Raised {
					return -1
				}
				return 1
			}
			return compareConditions(a, b)
		})
		for _, c := range changed {
			m.add(c.item())
			if c.Raised {
				c.Told = append(c.Told, t.Name)
			} else {
				c.Told = slices.DeleteFunc(c.Told, func(name string) bool { return name == t.Name })
			}
		}
	}
	if m.Count == 0 {
		return nil
	}
	return m
}

// put has m sent.
func (s *state) put(t *target, e Event, now time.Time, m *Message) {
	s.Queue = append(s.Queue, &queued{Target: t.Name, Message: m})
	s.Last[t.Name+"/"+string(e)] = now.Unix()
	s.dirty = true
}

// drop forgets a message.
func (s *state) drop(q *queued) {
	s.Queue = slices.DeleteFunc(s.Queue, func(other *queued) bool { return other == q })
	s.dirty = true
}

// forget lets go of conditions that are over and told, and of those that do not end.
func (s *state) forget(now time.Time) {
	for key, c := range s.conditions {
		over := !c.Raised && c.Turned == 0 && len(c.Told) == 0
		if over || now.Unix()-max(c.Since, c.Turned) > int64(forgetAfter/time.Second) {
			delete(s.conditions, key)
			s.dirty = true
		}
	}
}
