package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/durable"
	"btcpool/internal/retry"
	"btcpool/internal/telemetry"
)

const (
	segmentSuffix = ".seg"
	damagedSuffix = ".bad"
)

// Open opens or makes the spool in cfg.Dir, which no other process may have open. What is left there from before is
// checked, counted and sent first by Run. From now on until Close a goroutine writes to disk what is appended. The name
// labels the metrics.
func Open(cfg Config, deps telemetry.Deps, name string) (*Spool, error) {
	s, err := New(cfg, deps, name)
	if err != nil {
		return nil, err
	}
	if err := s.Reopen(Baton{}); err != nil {
		return nil, err
	}
	s.GoOnSending()
	return s, nil
}

// New returns a closed spool, which Reopen opens. Run may be called before: it waits for GoOnSending.
func New(cfg Config, deps telemetry.Deps, name string) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	cfg.SyncGap = cmp.Or(cfg.SyncGap, config.Duration(defaultSyncGap))
	cfg.SendGap = cmp.Or(cfg.SendGap, config.Duration(defaultSendGap))
	s := &Spool{
		cfg:     cfg,
		log:     deps.Log.With().Str("spool", name).Logger(),
		began:   time.Now(),
		sync:    fdatasync,
		pending: retry.NewBell(),
		urgent:  retry.NewBell(),
		durable: retry.NewBell(),
		turn:    make(chan struct{}, 1),
		closed:  true,
		gather:  newGroup(),
		flush:   newGroup(),
		tell:    func(uint64, error) {},
	}
	if cfg.NoSync {
		s.sync = func(*os.File) error { return nil }
	}
	s.metrics = newMetrics(deps.Metrics, name, s)
	return s, nil
}

// IsOpen reports whether records can be appended, as far as the disk takes them.
func (s *Spool) IsOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed
}

// Baton is what is on disk for the next opening, which need not wait for the disk then.
type Baton struct {
	Epoch   uint32 // it has been begun; 0: none has
	Segment uint64 // number of a file without records; 0: there is none
}

// Reserve begins an epoch, least or a later one, for the next opening. The present one goes on; if another follows it
// here, the reservation is void.
func (s *Spool) Reserve(least uint32) error {
	s.epochs.Lock()
	defer s.epochs.Unlock()
	epoch, err := s.nextEpoch(s.Epoch())
	if err != nil {
		return err
	}
	epoch = max(epoch, least)
	if err := s.writeEpoch(epoch); err != nil {
		return err
	}
	s.reserved = epoch
	return nil
}

// Reopen opens a spool that New made or Close has closed, as Open does, but for sending. Sequences go on. The Baton is of
// whom left the spool last; a zero one will do.
func (s *Spool) Reopen(left Baton) error {
	lock, err := durable.Lock(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lock = lock
	s.segments, s.active, s.ages = nil, nil, nil
	s.records, s.bytes = 0, 0
	s.buf, s.bufCount = nil, 0 // what the disk refused to the end: who waits for it was told
	s.flushSeq, s.diskSeq = s.lastSeq, s.lastSeq
	err = s.recover(left)
	if err == nil {
		s.ahead, err = s.firstSegment(left.Segment)
	}
	if err != nil {
		s.position.Close()
		lock.Close()
		return fmt.Errorf("open spool %s: %w", s.cfg.Dir, err)
	}
	if s.records > 0 {
		s.log.Info().Int64("records", s.records).Int64("bytes", s.bytes).Msg("records of an earlier run will be sent first")
	}
	s.closed, s.broken = false, nil
	s.gather, s.flush = newGroup(), newGroup()
	s.closing, s.flushed = make(chan struct{}), make(chan struct{})
	go s.flushLoop(s.closing, s.flushed)
	return nil
}

// firstSegment returns the segment that was left, or a new one.
func (s *Spool) firstSegment(left uint64) (*segment, error) {
	if left > 0 && left == s.number-1 {
		seg := &segment{number: left, path: segmentPath(s.cfg.Dir, left)}
		var err error
		if seg.file, err = os.OpenFile(seg.path, os.O_WRONLY, 0); err == nil {
			return seg, nil
		}
	}
	return s.newSegment()
}

// recover finds what is left to send and takes a new epoch.
func (s *Spool) recover(left Baton) (err error) {
	s.position, err = os.OpenFile(filepath.Join(s.cfg.Dir, "position"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	at, err := readPosition(s.position)
	if err != nil {
		s.log.Warn().Err(err).Msg("position of the spool cannot be read, sending all that is there")
	}
	if err := s.readPartitions(); err != nil {
		return err
	}
	numbers, err := listSegments(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.number = at.segment + 1
	if n := len(numbers); n > 0 {
		s.number = max(s.number, numbers[n-1]+1)
	}
	if numbers, err = s.discard(numbers, at, left.Segment); err != nil {
		return err
	}
	var epoch uint32
	for i, number := range numbers {
		seg := &segment{number: number, path: segmentPath(s.cfg.Dir, number), earlier: true}
		if number == at.segment {
			seg.sent = at.offset
		}
		last, err := s.recoverSegment(seg, i == len(numbers)-1)
		if err != nil {
			return err
		}
		epoch = max(epoch, last)
		s.segments = append(s.segments, seg)
		s.records += seg.records
		s.bytes += seg.size - seg.sent
	}
	s.epochs.Lock()
	s.passed = false
	s.epochs.Unlock()
	epoch = max(epoch, s.Epoch())
	if before, err := s.lastEpoch(); err == nil && before == left.Epoch && before > epoch {
		s.epoch.Store(before)
		return nil
	}
	if epoch, err = s.nextEpoch(epoch); err != nil {
		return err
	}
	return s.SetEpoch(epoch)
}

// discard removes the segments that hold nothing to send, but for the one that was left, and returns the others.
func (s *Spool) discard(numbers []uint64, at position, left uint64) (rest []uint64, err error) {
	for _, number := range numbers {
		path := segmentPath(s.cfg.Dir, number)
		info, err := os.Stat(path)
		switch {
		case err == nil && number >= at.segment && info.Size() > 0:
			rest = append(rest, number)
			continue
		case err == nil && number == left && info.Size() == 0:
			continue
		}
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// recoverSegment finds the end of the segment's whole records and counts those that have not been sent. It returns the
// greatest epoch among them.
func (s *Spool) recoverSegment(seg *segment, last bool) (epoch uint32, err error) {
	f, err := os.OpenFile(seg.path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	seg.sent = min(seg.sent, info.Size())
	s.ages.appended(position{seg.number, seg.sent}, info.ModTime())
	r := reader{file: f, at: seg.sent}
	for r.at < info.Size() {
		if _, err := r.some(info.Size(), func(rec record) bool { // what is skipped is told when it is sent
			seg.records++
			epoch = max(epoch, rec.epoch)
			return true
		}); err != nil {
			return 0, err
		}
	}
	seg.size = info.Size() - r.gap
	if r.gap == 0 {
		return epoch, nil
	}
	tail := make([]byte, min(r.gap, readBytes))
	if _, err := f.ReadAt(tail, seg.size); err != nil {
		return 0, err
	}
	if last && unfinished(tail) { // it was being written when the process died
		s.log.Info().Int64("bytes", r.gap).Str("segment", seg.path).Msg("cut off the unfinished end of the spool")
		return epoch, f.Truncate(seg.size)
	}
	s.damaged(seg, seg.size, damage{bytes: r.gap, records: 1})
	return epoch, nil
}

// damaged tells that a part of the segment before or at offset is not sent.
func (s *Spool) damaged(seg *segment, offset int64, d damage) {
	if seg.lost.bytes == 0 {
		s.log.Error().Str("segment", seg.path).Int64("offset", offset).
			Msg("spool is damaged, going on with the next whole record: check the disk")
	}
	seg.lost.add(d)
	s.metrics.lostBytes.Add(float64(d.bytes))
	s.metrics.lostRecords.Add(float64(d.records))
}

func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if number, err := strconv.ParseUint(name, 10, 63); ok && err == nil {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// epochSpread is the number of seconds over which the epochs of spools that are opened in the same second spread, on
// other machines: those of one start together after a power cut.
const epochSpread = 256

// nextEpoch returns an epoch above used and above all that were begun in the directory before.
func (s *Spool) nextEpoch(used uint32) (uint32, error) {
	before, err := s.lastEpoch()
	if err != nil {
		return 0, err
	}
	if used = max(used, before); used == math.MaxUint32 {
		return 0, fmt.Errorf("%s: no epoch left", s.epochPath())
	}
	return max(uint32(time.Now().Unix())+rand.Uint32N(epochSpread), used+1), nil //nolint:gosec // keeps epochs apart, no secret
}

// lastEpoch returns the last that was begun in the directory; 0: it is not known.
func (s *Spool) lastEpoch() (uint32, error) {
	text, err := os.ReadFile(s.epochPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err == nil {
		return uint32(epoch), nil
	}
	if len(text) > 0 {
		s.log.Warn().Err(err).Str("file", s.epochPath()).Msg("last epoch of the spool cannot be read: going by the clock")
	}
	return 0, nil
}

func (s *Spool) epochPath() string { return filepath.Join(s.cfg.Dir, "epoch") }

func (s *Spool) writeEpoch(epoch uint32) error {
	return durable.Replace(s.epochPath(), fmt.Appendln(nil, epoch), 0o644)
}
