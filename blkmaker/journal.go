package blkmaker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/durable"
)

const (
	// maxJournal is the size in bytes from which on the journal is written anew, with what still matters. Should that
	// be half of it or more, the next time is at double the size.
	maxJournal = 16 << 20
	// keepDone is how many solved shares that are done with are remembered: they may come a second time, by the other
	// way.
	keepDone = 10_000
)

// kind is what a solved share solves.
type kind string

const (
	kindBlock kind = "block"
	kindAux   kind = "aux" // blocks of AuxPoW chains
	kindRSK   kind = "rsk"
)

// solvedKey names a solved share: a header may solve several chains.
type solvedKey struct {
	Kind kind           `json:"kind,omitempty"`
	Hash chainhash.Hash `json:"hash,omitzero"` // the header's; its text is in display order
}

// position is where in Kafka a message stands.
type position struct {
	Topic     string `json:"topic,omitempty"`
	Partition int    `json:"partition,omitempty"`
	Offset    int64  `json:"offset,omitempty"`
	Checksum  uint32 `json:"checksum,omitempty"` // of the message; earlier versions had none
}

// The events of a solved share.
const (
	eventTaken  = "taken"  // it is here, by whichever way, and will be worked on until it is done
	eventMade   = "made"   // what was made of it, and is about to be submitted
	eventAnswer = "answer" // what a node said
	eventDone   = "done"   // there is no more to do
	eventRead   = "read"   // Kafka's topic has been read up to here; taken may say so too
)

// event is a line of the journal, in JSON.
type event struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	solvedKey
	position
	Message []byte    `json:"message,omitempty"` // taken: as in its topic
	Sent    time.Time `json:"sent,omitzero"`     // taken: when, by Kafka's clock or ours
	Made    *made     `json:"made,omitempty"`    // made
	Node    string    `json:"node,omitempty"`    // answer
	Verdict string    `json:"verdict,omitempty"` // answer
	Reason  string    `json:"reason,omitempty"`  // answer: the node's words
	Result  string    `json:"result,omitempty"`  // done
}

// taken is a solved share that is not done yet.
type taken struct {
	solvedKey
	message []byte
	sent    time.Time
	durable bool  // on disk
	made    *made // nil: nothing yet
	written bool  // the database has it
}

// made is what the database needs to know of what was submitted, besides the solved share: its job may be forgotten
// when the database is back.
type made struct {
	Size    int          `json:"size,omitempty"`     // of the block in bytes; 0: unknown
	SubPool string       `json:"sub_pool,omitempty"` // as in store.Block
	Merged  []mergedMade `json:"merged,omitempty"`   // blocks of other chains
}

// mergedMade is a block of another chain.
type mergedMade struct {
	Chain    string `json:"chain"`
	Hash     string `json:"hash"`            // in display order
	Proof    string `json:"proof,omitempty"` // as in store.MergedBlock
	Verdict  string `json:"verdict,omitempty"`
	Response string `json:"response,omitempty"` // the node's last words
}

// journal makes a solved share ours: from the moment take returns, a process that is killed works on it again when it
// is back. It also knows how far the topics of solved shares have been read: the line that says so is the one that has
// the share, so neither can be there without the other.
type journal struct {
	path    string
	log     zerolog.Logger
	metrics *metrics

	mu     sync.Mutex
	file   *os.File
	size   int64
	limit  int64 // size from which on to compact
	torn   bool  // the last line may not be whole
	frozen bool  // a share that came through Kafka is not on disk: it has to be read again
	open   map[solvedKey]*taken
	done   map[solvedKey]bool
	order  []solvedKey                 // the keys of done, oldest first
	last   map[string]map[int]bus.Mark // what was read last, by topic and partition
}

// openJournal reads the journal in dir or begins one.
func openJournal(dir string, log zerolog.Logger, m *metrics) (*journal, error) {
	j := &journal{
		path:    filepath.Join(dir, "journal"),
		log:     log,
		metrics: m,
		limit:   maxJournal,
		open:    make(map[solvedKey]*taken),
		done:    make(map[solvedKey]bool),
		last:    make(map[string]map[int]bus.Mark),
	}
	durable.Sweep(j.path)
	content, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for e := range events(content, log) {
		j.apply(e, true)
	}
	j.torn = len(content) > 0 && content[len(content)-1] != '\n'
	j.size = int64(len(content))
	if j.file, err = os.OpenFile(j.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640); err != nil {
		return nil, err
	}
	if err := durable.SyncDir(dir); err != nil {
		return nil, errors.Join(err, j.file.Close())
	}
	return j, nil
}

// events are those of a journal's content.
func events(content []byte, log zerolog.Logger) iter.Seq[*event] {
	return func(yield func(*event) bool) {
		for line := range bytes.Lines(content) {
			var e event
			if len(line) == 1 {
				continue
			}
			if err := json.Unmarshal(line, &e); err != nil {
				// Unless it is the last one, the disk was full or is damaged.
				log.Warn().Err(err).Bytes("line", line[:min(len(line), 200)]).Msg("a line of the journal cannot be read")
				continue
			}
			if !yield(&e) {
				return
			}
		}
	}
}

// apply changes the state as a line says.
func (j *journal) apply(e *event, durable bool) {
	switch e.Event {
	case eventTaken:
		if !j.done[e.solvedKey] {
			j.open[e.solvedKey] = &taken{solvedKey: e.solvedKey, message: e.Message, sent: e.Sent, durable: durable}
		}
	case eventMade, eventAnswer:
		if t := j.open[e.solvedKey]; t != nil {
			t.made = e.update(t.made)
		}
	case eventDone:
		delete(j.open, e.solvedKey)
		if !j.done[e.solvedKey] {
			j.done[e.solvedKey] = true
			j.order = append(j.order, e.solvedKey)
		}
		if len(j.order) > keepDone {
			delete(j.done, j.order[0])
			j.order = j.order[1:]
		}
	}
	if e.Topic != "" && durable {
		if j.last[e.Topic] == nil {
			j.last[e.Topic] = make(map[int]bus.Mark)
		}
		j.last[e.Topic][e.Partition] = bus.Mark{Offset: e.Offset, Checksum: e.Checksum}
	}
}

// update returns what is known of what was made, m so far, after e.
func (e *event) update(m *made) *made {
	switch {
	case e.Event == eventMade && e.Made != nil:
		return e.Made
	case e.Event != eventAnswer:
		return m
	case m == nil && e.Kind == kindBlock: // answers imply that there was something to submit
		return new(made)
	case m == nil:
		return nil
	}
	chain := e.Node[:max(strings.LastIndexByte(e.Node, '/'), 0)]
	m = &made{m.Size, m.SubPool, slices.Clone(m.Merged)}
	for i := range m.Merged {
		if b := &m.Merged[i]; b.Chain == chain && b.Verdict != resultAccepted {
			b.Verdict, b.Response = e.Verdict, e.Reason
		}
	}
	return m
}

// take makes a solved share ours; from is where it came from in Kafka, if it did. First says that nobody works on it
// yet: the caller has to, even when err says that it is not on disk.
func (j *journal) take(key solvedKey, message []byte, sent time.Time, from position) (first bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.open[key]
	if j.done[key] || t != nil && t.durable {
		if from.Topic != "" && j.ahead(from) {
			j.note(event{Event: eventRead, position: from})
		}
		return false, nil
	}
	e := event{Event: eventTaken, solvedKey: key, Message: message, Sent: sent, position: from}
	if err = j.append(&e); err == nil {
		err = j.file.Sync()
	}
	j.frozen = j.frozen || err != nil && from.Topic != ""
	j.apply(&e, err == nil)
	return t == nil, err
}

// read says that a message of a topic needs nothing to be done. It returns false for one that was read before.
func (j *journal) read(from position) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	ahead := j.ahead(from)
	if ahead {
		j.note(event{Event: eventRead, position: from})
	}
	return ahead
}

// rewound says that a partition holds none of the messages that were read, and is read again from its earliest one.
func (j *journal) rewound(topic string, partition int, earliest int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note(event{Event: eventRead, position: position{Topic: topic, Partition: partition, Offset: earliest - 1}})
}

// ahead tells whether a message stands behind the one that was read last.
func (j *journal) ahead(of position) bool {
	last, ok := j.last[of.Topic][of.Partition]
	return !ok || of.Offset > last.Offset
}

// knows tells whether a solved share was taken before.
func (j *journal) knows(key solvedKey) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.done[key] || j.open[key] != nil
}

// make keeps what was made of a solved share. It is called before that is submitted.
func (j *journal) make(key solvedKey, m *made) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note(event{Event: eventMade, solvedKey: key, Made: m})
}

// madeOf returns what was made of a solved share, nil if nothing was.
func (j *journal) madeOf(key solvedKey) *made {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.open[key]; t != nil {
		return t.made
	}
	return nil
}

// wrote notes that the database has what was made of a solved share.
func (j *journal) wrote(key solvedKey) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t := j.open[key]; t != nil {
		t.written = true
	}
}

// unwritten returns of how many solved shares something was made that the database does not have.
func (j *journal) unwritten() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, t := range j.open {
		if t.made != nil && !t.written {
			n++
		}
	}
	return n
}

// answer keeps what a node said.
func (j *journal) answer(key solvedKey, node, verdict, reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note(event{Event: eventAnswer, solvedKey: key, Node: node, Verdict: verdict, Reason: reason})
}

// finish says that there is no more to do for a solved share.
func (j *journal) finish(key solvedKey, result string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note(event{Event: eventDone, solvedKey: key, Result: result})
}

// pending returns what is to be worked on, the oldest first.
func (j *journal) pending() []*taken {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.SortedFunc(maps.Values(j.open), func(a, b *taken) int { return a.sent.Compare(b.sent) })
}

// lastRead returns what was read last of a topic; nothing when it was never read.
func (j *journal) lastRead(topic string) map[int]bus.Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.last[topic])
}

// note is append for what is not needed after a power failure, nor after a failure to write it: work is done twice
// then, and that changes nothing.
func (j *journal) note(e event) {
	if j.frozen {
		e.position = position{}
	}
	j.apply(&e, true)
	_ = j.append(&e) // it has told
}

// append writes a line.
func (j *journal) append(e *event) (err error) {
	defer func() {
		if err != nil {
			j.metrics.diskErrors.Inc()
			j.log.Error().Err(err).Str("event", e.Event).Msg("journal not written: check data_dir")
		}
	}()
	if j.frozen {
		e.position = position{}
	}
	if j.size > j.limit {
		if err := j.compact(); err != nil {
			j.log.Error().Err(err).Msg("journal not made smaller: check data_dir")
		}
	}
	e.Time = time.Now()
	line, err := e.line()
	if err != nil {
		return err
	}
	if j.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := j.file.Write(line)
	j.size += int64(n)
	j.torn = err != nil
	return err
}

func (e *event) line() ([]byte, error) {
	line, err := json.Marshal(e)
	return append(line, '\n'), err
}

// compact replaces the file by what still matters.
func (j *journal) compact() error {
	var content []byte
	now := time.Now()
	add := func(e event) error {
		e.Time = now
		line, err := e.line()
		content = append(content, line...)
		return err
	}
	for topic, partitions := range j.last {
		for partition, last := range partitions {
			if err := add(event{Event: eventRead, position: position{topic, partition, last.Offset, last.Checksum}}); err != nil {
				return err
			}
		}
	}
	for _, key := range j.order {
		if err := add(event{Event: eventDone, solvedKey: key}); err != nil {
			return err
		}
	}
	for _, t := range j.open {
		if err := add(event{Event: eventTaken, solvedKey: t.solvedKey, Message: t.message, Sent: t.sent}); err != nil {
			return err
		}
		if t.made == nil {
			continue
		}
		if err := add(event{Event: eventMade, solvedKey: t.solvedKey, Made: t.made}); err != nil {
			return err
		}
	}
	err := durable.Replace(j.path, content, 0o640)
	j.file.Close() // even if that failed: the name may be another file's now
	file, openErr := os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0)
	j.file = file
	if err = errors.Join(err, openErr); err != nil {
		return err
	}
	j.size, j.torn = int64(len(content)), false
	j.limit = max(maxJournal, 2*j.size)
	return nil
}

func (j *journal) close() error { return j.file.Close() }
