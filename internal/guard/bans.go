package guard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/durable"
)

// Ban keeps addresses out until a time.
type Ban struct {
	Prefix netip.Prefix `json:"prefix"`
	Until  time.Time    `json:"until"`
	Reason string       `json:"reason"`
}

const (
	// MaxBans is far more than an attack from rented networks needs: what is counted is addresses that said something.
	MaxBans    = 1_000_000
	maxBanFile = 256 << 20 // bytes
)

var (
	errTooManyBans = errors.New("too many bans")
	errLeft        = errors.New("another process is about to go on with the bans: ask again")
)

// Bans knows who is banned. It is safe for concurrent use.
//
// What changes is appended to a journal before it holds, and gets into the file of all bans later: a process that is
// killed has forgotten nothing that it said.
type Bans struct {
	path    string // "": nowhere
	journal string // lines of Ban since path was written; one that has ended is lifted
	log     zerolog.Logger

	saving sync.Mutex // held while the files are written

	mu    sync.RWMutex
	bans  map[netip.Prefix]Ban
	bits  map[int]int // number of bans by length of their prefix
	dirty bool        // bans differ from the file
	left  bool        // another process has them
}

// NewBans reads the bans of dir, if there are any: dir may be "". Those that cannot be read are no reason not to serve.
func NewBans(dir string, log zerolog.Logger, now time.Time) *Bans {
	l := &Bans{log: log, bans: make(map[netip.Prefix]Ban), bits: make(map[int]int)}
	if dir != "" {
		l.Open(dir, now)
	}
	return l
}

// Open goes on with the bans of dir, which are no other process's any more.
func (l *Bans) Open(dir string, now time.Time) {
	path, journal := filepath.Join(dir, "bans.json"), filepath.Join(dir, "bans-new.jsonl")
	l.mu.Lock()
	l.path, l.journal = path, journal
	durable.Sweep(l.path)
	bans, err := readBans(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn().Err(err).Str("file", l.path).Msg("bans are lost, starting without them")
	}
	added, err := readJournal(l.journal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn().Err(err).Str("file", l.journal).Msg("the latest bans are lost")
	}
	for _, b := range slices.Concat(bans, added) {
		l.drop(b.Prefix)
		if now.Before(b.Until) {
			_ = l.put(b) // one too many is not worth a word here
		}
	}
	info, err := os.Stat(l.journal)
	l.dirty = err == nil && info.Size() > 0 // its end may be half a line
	l.left = false
	l.mu.Unlock()
	l.save(now)
}

// Leave leaves the bans, all of which are on disk, to another process. None can be added or lifted here until Open.
func (l *Bans) Leave() {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.path, l.journal, l.left = "", "", true
}

// readJournal returns the lines up to one that was not written to its end.
func readJournal(path string) (bans []Ban, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := json.NewDecoder(io.LimitReader(f, maxBanFile))
	for {
		var b Ban
		if lines.Decode(&b) != nil || !b.Prefix.IsValid() {
			return bans, nil
		}
		bans = append(bans, b)
	}
}

func readBans(path string) ([]Ban, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxBanFile {
		return nil, fmt.Errorf("%d bytes are too many", info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var bans []Ban
	if err := json.Unmarshal(text, &bans); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(bans, func(b Ban) bool { return !b.Prefix.IsValid() }) {
		return nil, errors.New("a ban has no prefix")
	}
	return bans, nil
}

// Add makes b hold, in place of an earlier ban of the same addresses. It fails when there are MaxBans.
func (l *Bans) Add(b Ban) error {
	b.Prefix = b.Prefix.Masked()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left {
		return errLeft
	}
	l.note(b)
	return l.put(b)
}

// note appends b to the journal. The system has it then, whatever becomes of the process.
func (l *Bans) note(b Ban) {
	if l.journal == "" {
		return
	}
	line, err := json.Marshal(b)
	if err == nil {
		err = appendTo(l.journal, append(line, '\n'))
	}
	if err != nil {
		l.log.Warn().Err(err).Msg("a ban is not on disk yet")
	}
}

func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

func (l *Bans) put(b Ban) error {
	if _, known := l.bans[b.Prefix]; !known {
		if len(l.bans) == MaxBans {
			return errTooManyBans
		}
		l.bits[b.Prefix.Bits()]++
	}
	l.bans[b.Prefix] = b
	l.dirty = true
	return nil
}

// Lift ends the ban of exactly these addresses and reports whether there was one here.
func (l *Bans) Lift(p netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p = p.Masked()
	_, ok := l.bans[p]
	if ok = ok && !l.left; ok {
		l.note(Ban{Prefix: p})
	}
	if ok {
		l.drop(p)
	}
	return ok
}

func (l *Bans) drop(p netip.Prefix) {
	if _, ok := l.bans[p]; !ok {
		return
	}
	delete(l.bans, p)
	if l.bits[p.Bits()]--; l.bits[p.Bits()] == 0 {
		delete(l.bits, p.Bits())
	}
	l.dirty = true
}

func (l *Bans) banned(ip netip.Addr, now time.Time) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for bits := range l.bits {
		p, err := ip.Prefix(bits)
		if err != nil { // longer than the address
			continue
		}
		if b, ok := l.bans[p]; ok && now.Before(b.Until) {
			return true
		}
	}
	return false
}

// Len includes bans that have ended a moment ago.
func (l *Bans) Len() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.bans)
}

// List returns the bans that hold, those that end first first and those of the same end by prefix.
func (l *Bans) List(now time.Time) []Ban {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := make([]Ban, 0, len(l.bans))
	for _, b := range l.bans {
		if now.Before(b.Until) {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b Ban) int {
		return cmp.Or(a.Until.Compare(b.Until), a.Prefix.Compare(b.Prefix))
	})
	return list
}

// sweep forgets bans that have ended.
func (l *Bans) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p, b := range l.bans {
		if !now.Before(b.Until) {
			l.drop(p)
		}
	}
}

func (l *Bans) save(now time.Time) {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	dirty := l.dirty && l.path != ""
	l.dirty = l.dirty && !dirty
	l.mu.Unlock()
	if !dirty {
		return
	}
	text, err := json.Marshal(l.List(now))
	if err == nil {
		err = durable.Replace(l.path, text, 0o600)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && !l.dirty { // else the journal has more than the file
		err = os.Truncate(l.journal, 0)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn().Err(err).Msg("bans not written")
		l.dirty = true
	}
}
