package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
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
	corruptSuffix = ".bad"
)

// Open opens or makes the spool in cfg.Dir, which no other process may have open. What is left there from before is
// checked, counted and sent first by Run. From now on until Close a goroutine writes to disk what is appended. The name
// labels the metrics.
func Open(cfg Config, deps telemetry.Deps, name string) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	cfg.SyncGap = cmp.Or(cfg.SyncGap, config.Duration(defaultSyncGap))
	lock, err := durable.Lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{
		cfg:     cfg,
		log:     deps.Log.With().Str("spool", name).Logger(),
		lock:    lock,
		sync:    fdatasync,
		pending: retry.NewBell(),
		durable: retry.NewBell(),
		closing: make(chan struct{}),
		flushed: make(chan struct{}),
		gather:  newGroup(),
		flush:   newGroup(),
		tell:    func(uint64, error) {},
	}
	if cfg.NoSync {
		s.sync = func(*os.File) error { return nil }
	}
	s.metrics = newMetrics(deps.Metrics, name, s)
	if err := s.recover(); err != nil {
		s.position.Close()
		lock.Close()
		return nil, fmt.Errorf("open spool %s: %w", cfg.Dir, err)
	}
	if s.records > 0 {
		s.log.Info().Int64("records", s.records).Int64("bytes", s.bytes).Msg("records of an earlier run will be sent first")
	}
	go s.flushLoop()
	return s, nil
}

// recover finds what is left to send and takes a new epoch.
func (s *Spool) recover() (err error) {
	s.position, err = os.OpenFile(filepath.Join(s.cfg.Dir, "position"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	at, err := readPosition(s.position)
	if err != nil {
		s.log.Warn().Err(err).Msg("position of the spool cannot be read, sending all that is there")
	}
	numbers, err := listSegments(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.nextSegment = at.segment + 1
	var epoch uint32
	for i, number := range numbers {
		path := segmentPath(s.cfg.Dir, number)
		s.nextSegment = max(s.nextSegment, number+1)
		if number < at.segment {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		seg := &segment{number: number, path: path}
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
	return s.newEpoch(epoch)
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
	seg.size = seg.sent
	var buf []byte
	for seg.size < info.Size() {
		if buf, err = readSegment(buf, f, seg.size, info.Size()); err != nil {
			return 0, err
		}
		n, err := eachRecord(buf, func(r record) {
			seg.records++
			epoch = max(epoch, r.epoch)
		})
		seg.size += int64(n)
		if n > 0 {
			continue
		}
		rest := info.Size() - seg.size
		if last && !holdsRecord(buf) { // it was being written when the process died
			s.log.Info().Int64("bytes", rest).Str("segment", seg.path).Msg("cut off the unfinished end of the spool")
			return epoch, f.Truncate(seg.size)
		}
		s.corrupted(seg, seg.size, rest, err)
		return epoch, nil
	}
	return epoch, nil
}

// corrupted tells that rest bytes of the segment at offset will not be sent.
func (s *Spool) corrupted(seg *segment, offset, rest int64, err error) {
	seg.corrupt = true
	s.metrics.corrupt.Inc()
	s.log.Error().Err(err).Str("segment", seg.path).Int64("offset", offset).Int64("bytes", rest).
		Msg("spool is damaged, skipping the rest of the segment")
}

// readBytes is how much of a segment is read at a time; a record fits in.
const readBytes = 1 << 20

// readSegment reads what the file holds from offset on, up to end or readBytes, into buf if that is large enough.
func readSegment(buf []byte, f io.ReaderAt, offset, end int64) ([]byte, error) {
	buf = slices.Grow(buf[:0], int(min(end-offset, readBytes)))[:min(end-offset, readBytes)]
	n, err := f.ReadAt(buf, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

// eachRecord calls f for the whole records at the start of buf and returns their size. The error says why it ended
// before the end of buf.
func eachRecord(buf []byte, f func(record)) (int, error) {
	n := 0
	for n < len(buf) {
		r, size, err := parseRecord(buf[n:])
		if err != nil {
			return n, err
		}
		f(r)
		n += size
	}
	return n, nil
}

// holdsRecord tells a damaged record, which whole ones follow, from an unfinished one.
func holdsRecord(buf []byte) bool {
	for i := range buf {
		if _, _, err := parseRecord(buf[i:]); err == nil {
			return true
		}
	}
	return false
}

func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if number, err := strconv.ParseUint(name, 10, 64); ok && err == nil {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// newEpoch takes an epoch above used and above all that were taken in the directory before, and writes it down.
func (s *Spool) newEpoch(used uint32) error {
	path := filepath.Join(s.cfg.Dir, "epoch")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		before, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		used = max(used, uint32(before))
	}
	if used == math.MaxUint32 {
		return fmt.Errorf("%s: no epoch left", path)
	}
	s.epoch = max(uint32(time.Now().Unix()), used+1)
	return durable.Replace(path, fmt.Appendln(nil, s.epoch), 0o644)
}
