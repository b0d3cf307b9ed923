package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"btcpool/internal/durable"
)

// retryInterval is how often a disk that refuses writes is tried again.
const retryInterval = time.Second

// segment is a file of records. Its fields change under Spool.mu.
type segment struct {
	number  uint64
	path    string
	earlier bool     // whether an earlier opening has written it
	size    int64    // where the whole records on disk end; changed by the flusher
	sent    int64    // where those end that have been sent; changed by the drainer
	records int64    // how many have not been sent
	lost    damage   // what of it cannot be sent; changed by the drainer
	file    *os.File // open while it is written to
}

// flushLoop writes what was appended, group after group, until the spool is closed. While one group is written, and
// until SyncGap after that began, the next gathers. It is the gap that is waited for first: where records come all the
// time, there is one waking up a group.
func (s *Spool) flushLoop(closing <-chan struct{}, flushed chan<- struct{}) {
	defer close(flushed)
	var spare []byte
	last := int64(0) // how many records the last group had
	gap := time.NewTimer(0)
	defer gap.Stop()
	for open := true; open; {
		select {
		case <-gap.C:
			if last > 0 && s.collect != nil {
				s.collect()
			}
		case <-s.urgent:
		case <-closing:
			open = false
		}
		select {
		case <-s.pending:
		case <-closing:
			open = false
		}
		next := s.syncGap(last)
		gap.Reset(next)
		s.nextSync.Store(int64(time.Since(s.began) + next))
		var ok bool
		if spare, last, ok = s.flushGroup(closing, spare); !ok {
			return
		}
		s.openAhead()
	}
}

// syncGap is the gap behind a group that follows one of so many records.
func (s *Spool) syncGap(records int64) time.Duration {
	if records < fewRecords {
		return 2 * s.cfg.SyncGap.Std()
	}
	return s.cfg.SyncGap.Std()
}

// NextSync returns before when nothing will be written to disk, because SyncGap has not passed; it is over when there is
// no such time. What is appended until then, and by what BeforeSync was given, reaches the disk together.
func (s *Spool) NextSync() time.Time { return s.began.Add(time.Duration(s.nextSync.Load())) }

// BeforeSync lets f be called at the end of each SyncGap that follows a group, before what has gathered is written: who
// has something to append that would have had to wait for that does it now. BeforeSync is called once, before the first
// Append; f must return soon, and nothing is written by then.
func (s *Spool) BeforeSync(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collect = f
}

// Hurry has what was appended before written to disk without regard to SyncGap.
func (s *Spool) Hurry() { s.urgent.Ring() }

// flushGroup writes all that has gathered and returns true, or false if the spool was closed while the disk refused.
// The next group gathers in spare; the buffer returned is free.
func (s *Spool) flushGroup(closing <-chan struct{}, spare []byte) (free []byte, records int64, ok bool) {
	s.mu.Lock()
	buf, count := s.buf, s.bufCount
	if count == 0 {
		s.mu.Unlock()
		return spare, 0, true
	}
	s.buf, s.bufCount = spare[:0], 0
	s.flushSeq = s.lastSeq
	s.flush, s.gather = s.gather, newGroup()
	s.mu.Unlock()

	for start := time.Now(); ; start = time.Now() {
		err := s.write(buf)
		if err == nil {
			s.metrics.syncSeconds.Observe(time.Since(start).Seconds())
			break
		}
		s.metrics.writeErrors.Inc()
		tell, durable, broken := s.notOnDisk(err)
		tell(durable, broken)
		select {
		case <-time.After(retryInterval):
		case <-closing:
			return nil, 0, false
		}
	}
	tell, durable := s.onDisk(int64(len(buf)), count)
	tell(durable, nil)
	if cap(buf) > keepBytes {
		buf = nil
	}
	return buf, count, true
}

// onDisk lets those go on who wait for the group. It returns whom else to tell, without the lock.
func (s *Spool) onDisk(size, count int64) (tell func(uint64, error), durable uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		s.broken = nil
		s.log.Info().Msg("spool can be written again")
	}
	seg := s.active
	if seg.size == 0 {
		s.segments = append(s.segments, seg)
	}
	now := time.Now()
	s.ages.appended(position{seg.number, seg.size}, now)
	s.aged = s.cfg.MaxAge > 0 && s.ages.oldest(now) > s.cfg.MaxAge.Std()
	seg.size += size
	seg.records += count
	s.diskSeq = s.flushSeq
	s.flush.end(nil)
	s.durable.Ring()
	return s.tell, s.diskSeq
}

// notOnDisk is onDisk for a group that the disk refused: those who wait get err, and from now on everybody who comes.
func (s *Spool) notOnDisk(err error) (tell func(uint64, error), durable uint64, broken error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.log.Error().Err(err).Msg("spool cannot be written, refusing records")
	}
	s.broken = fmt.Errorf("%w: %w", ErrBroken, err)
	s.flush.end(s.broken)
	s.gather.end(s.broken)
	s.flush, s.gather = newGroup(), newGroup()
	return s.tell, s.diskSeq, s.broken
}

// write puts buf behind the active segment's last record, or into a new segment, and returns when it is on disk.
func (s *Spool) write(buf []byte) error {
	seg := s.active
	if seg != nil && seg.size >= segmentBytes {
		s.finish(seg)
		seg = nil
	}
	if seg == nil {
		var err error
		if seg, err = s.nextSegment(); err != nil {
			return err
		}
		s.mu.Lock()
		s.active = seg
		s.mu.Unlock()
	}
	_, err := seg.file.WriteAt(buf, seg.size)
	if err == nil {
		err = s.sync(seg.file)
	}
	if err == nil {
		return nil
	}
	// What is in the file behind its size was acknowledged to nobody. If it cannot be cut off it is found at the next
	// opening and sent then.
	_ = seg.file.Truncate(seg.size)
	if seg.size == 0 {
		_ = os.Remove(seg.path)
	}
	s.finish(seg)
	return err
}

// finish lets the drainer delete the segment when all is sent.
func (s *Spool) finish(seg *segment) {
	if err := seg.file.Close(); err != nil {
		s.log.Warn().Err(err).Str("segment", seg.path).Msg("spool segment could not be closed")
	}
	s.mu.Lock()
	s.active = nil
	s.mu.Unlock()
}

// nextSegment returns the segment that was opened ahead, or a new one.
func (s *Spool) nextSegment() (*segment, error) {
	if seg := s.ahead; seg != nil {
		s.ahead = nil
		return seg, nil
	}
	return s.newSegment()
}

// openAhead opens the segment that will follow the active one, so that records do not depend on a descriptor being free
// then, nor wait for the file to be made.
func (s *Spool) openAhead() {
	if s.ahead != nil {
		return
	}
	seg, err := s.newSegment()
	if err != nil && !s.late {
		s.log.Warn().Err(err).Msg("next segment of the spool cannot be opened ahead, will try again")
	}
	s.ahead, s.late = seg, err != nil
}

func (s *Spool) newSegment() (*segment, error) {
	seg := &segment{number: s.number, path: segmentPath(s.cfg.Dir, s.number)}
	var err error
	if seg.file, err = os.OpenFile(seg.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640); err != nil {
		return nil, err
	}
	s.number++
	if err := durable.SyncDir(s.cfg.Dir); err != nil {
		return nil, errors.Join(err, seg.drop())
	}
	return seg, nil
}

// drop removes a segment that holds nothing.
func (seg *segment) drop() error { return errors.Join(seg.file.Close(), os.Remove(seg.path)) }

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", number, segmentSuffix))
}
