package guard

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
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
	// MaxBans is far more than an attack from rented networks needs: what is
	// counted is addresses that said something.
	MaxBans    = 1_000_000
	maxBanFile = 256 << 20 // bytes
)

var errTooManyBans = errors.New("too many bans")

// Bans knows who is banned. It is safe for concurrent use.
type Bans struct {
	path string // "": nowhere
	log  zerolog.Logger

	mu    sync.RWMutex
	bans  map[netip.Prefix]Ban
	bits  map[int]int // number of bans by length of their prefix
	dirty bool        // bans differ from the file
}

// NewBans reads the bans of dir, if there are any: dir may be "". Those that
// cannot be read are no reason not to serve.
func NewBans(dir string, log zerolog.Logger, now time.Time) *Bans {
	l := &Bans{log: log, bans: make(map[netip.Prefix]Ban), bits: make(map[int]int)}
	if dir == "" {
		return l
	}
	l.path = filepath.Join(dir, "bans.json")
	bans, err := readBans(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn().Err(err).Str("file", l.path).Msg("bans are lost, starting without them")
	}
	for _, b := range bans {
		if now.Before(b.Until) {
			_ = l.Add(b) // one too many is not worth a word here
		}
	}
	l.dirty = false
	return l
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

// Add makes b hold, in place of an earlier ban of the same addresses. It fails
// when there are MaxBans.
func (l *Bans) Add(b Ban) error {
	b.Prefix = b.Prefix.Masked()
	l.mu.Lock()
	defer l.mu.Unlock()
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

// Lift ends the ban of exactly these addresses and reports whether there was
// one.
func (l *Bans) Lift(p netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.bans[p.Masked()]
	l.drop(p.Masked())
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

// List returns the bans that hold, those that end first first and those of the
// same end by prefix.
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
	l.mu.Lock()
	dirty := l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty || l.path == "" {
		return
	}
	text, err := json.Marshal(l.List(now))
	if err == nil {
		err = durable.Replace(l.path, text, 0o600)
	}
	if err != nil {
		l.log.Warn().Err(err).Msg("bans not written")
		l.mu.Lock()
		l.dirty = true
		l.mu.Unlock()
	}
}
