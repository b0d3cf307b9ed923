// Package spool is a durable queue on disk in front of a topic. A record for which Wait returned nil is sent, whatever
// crashes or restarts afterwards; only the loss of the disk can lose it. It may be sent again after a crash: (epoch,
// sequence) never repeats for different records, so that a receiver can drop what it has seen.
//
// Records are appended to numbered segment files in one directory:
//
//	lock          held by the process that has the spool open
//	epoch         the last epoch that was begun, decimal
//	position      what has been sent: segment, offset, checksum
//	partitions    among how many of them what was sent last was spread, decimal
//	00000007.seg  records, see record.go; deleted once all are sent
//	00000007.bad  a segment that was damaged, kept for inspection
//
// Each opening writes to new segments under a new epoch. An unfinished record at the end of the last segment is cut off.
// A damaged one is skipped, with counters and a log line: sending goes on with the next whole record.
//
// When the disk refuses a write, those who wait and those who append get ErrBroken at once. What was appended before
// stays in memory and is written to a new segment as soon as that works again (a file whose sync failed cannot be
// trusted any more), so it may be sent though its waiter got the error.
package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/retry"

	"github.com/rs/zerolog"
)

var (
	// ErrFull means that MaxBytes wait to be sent, or a record for MaxAge, or that the disk is too slow for what is
	// appended.
	ErrFull = errors.New("spool is full")
	// ErrBroken means that the disk does not take writes now. It wraps the cause.
	ErrBroken = errors.New("spool cannot be written")
	// ErrTooLarge means that a value is longer than MaxValue.
	ErrTooLarge = errors.New("record is too large to spool")
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("spool is closed")
)

const (
	// segmentBytes is the size from which on the next group goes to a new file.
	segmentBytes = 64 << 20
	// pendingBytes bounds what waits in memory for the disk.
	pendingBytes = 32 << 20
	// keepBytes is the largest buffer kept for later use.
	keepBytes = 1 << 20

	defaultMaxBytes = 4 << 30
	// fewRecords in a group let the next gather for twice as long.
	fewRecords = 20

	defaultSyncGap = 5 * time.Millisecond
	defaultSendGap = 20 * time.Millisecond
)

// Config says where and how much.
type Config struct {
	// Dir is a folder of this spool alone, which is made when it is missing.
	Dir string `toml:"dir"`
	// MaxBytes bounds what waits to be sent; 0: 4 GiB.
	MaxBytes int64 `toml:"max_bytes"`
	// MaxAge is how long the oldest record may wait to be sent before the spool takes no more; 0: for ever.
	MaxAge config.Duration `toml:"max_age"`
	// NoSync leaves it to the kernel when to write: a power cut may then lose acknowledged records.
	NoSync bool `toml:"no_sync"`
	// SyncGap is the least time between the starts of two writes to disk, so
	// that many records share one: a record on its own does not wait for it.
	// After a group of few it is twice as long. 0: 5 ms; negative: none.
	SyncGap config.Duration `toml:"sync_gap"`
	// SendGap is the least time between the starts of two sends, unless so much
	// waits that one cannot take it all: few records cost about as much to send
	// as many. 0: 20 ms.
	SendGap config.Duration `toml:"send_gap"`
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Folder("dir", c.Dir)
	faults.AtLeast("max_age", c.MaxAge, 0)
	faults.NotNegative("max_bytes", c.MaxBytes)
	return config.In("spool", faults.Err())
}

// Spool is an open spool. Append, Wait and Depth may be called from any goroutine, between Open and Close.
type Spool struct {
	cfg      Config
	log      zerolog.Logger
	metrics  *metrics
	lock     *os.File
	position *os.File
	sync     func(*os.File) error // brings what was written to disk
	epoch    atomic.Uint32
	epochs   sync.Mutex   // held while an epoch is begun
	passed   bool         // another opening begins the next
	reserved uint32       // for that one; 0: none is
	began    time.Time    // when it was made
	nextSync atomic.Int64 // so many nanoseconds after that: the wall clock may step

	pending retry.Bell    // wakes the flusher
	urgent  retry.Bell    // has it not wait for the gap
	durable retry.Bell    // wakes the drainer
	turn    chan struct{} // holds one while Run may send
	closing chan struct{} // of the opening
	flushed chan struct{} // closed when the flusher of the opening has ended

	mu       sync.Mutex
	tell     func(durable uint64, err error) // given to OnDurable
	collect  func()                          // given to BeforeSync
	closed   bool
	broken   error      // why the disk does not take writes; nil: it does
	lastSeq  uint64     // number of the last record appended
	diskSeq  uint64     // number of the last record on disk
	flushSeq uint64     // number of the last record that the flusher has taken
	buf      []byte     // the records behind flushSeq
	bufCount int64      // how many those are
	gather   *group     // those who wait for what is in buf
	flush    *group     // those who wait for what the flusher writes
	segments []*segment // the files that hold records, oldest first
	active   *segment   // the file being written, which joins segments with its first record
	records  int64      // how many have not been sent, in memory and on disk
	bytes    int64      // the size of those
	ages     ages
	aged     bool // whether a record had waited for MaxAge when the disk was written last
	refused  int  // size of the record for which there was no room last; 0: one has been taken since

	// Among how many partitions records are spread, of earlier openings and of this one; 0: unknown. After Open only Run
	// uses these.
	spreadBefore, spread int

	// Only the flusher uses these.
	number uint64   // of the next file
	ahead  *segment // the file that will be written next, without records; nil: it could not be opened
	late   bool     // whether that was logged
}

// group is a set of records that reach the disk together.
type group struct {
	done chan struct{} // closed after err was set
	err  error
}

func newGroup() *group { return &group{done: make(chan struct{})} }

func (g *group) end(err error) {
	g.err = err
	close(g.done)
}

// Epoch returns the present epoch, which begins with the opening: Unix seconds and a little chance, or more if that was
// used in the directory before.
func (s *Spool) Epoch() uint32 { return s.epoch.Load() }

// SetEpoch begins an epoch, which must be above the present one: what is appended from now on belongs to it. Sequences go
// on.
func (s *Spool) SetEpoch(epoch uint32) error {
	s.epochs.Lock()
	defer s.epochs.Unlock()
	if s.passed {
		return ErrClosed
	}
	if before := s.Epoch(); epoch <= before {
		return fmt.Errorf("epoch %d does not follow %d", epoch, before)
	}
	s.reserved = 0
	if err := s.writeEpoch(epoch); err != nil {
		return err
	}
	s.epoch.Store(epoch)
	return nil
}

// Append takes the record that encode appends to dst, and returns its sequence number, which starts at 1 in each opening
// and grows by 1. The key chooses the partition. Append does no I/O; encode is called under a lock and must not keep
// dst. The error is ErrFull, ErrBroken, ErrTooLarge or ErrClosed.
func (s *Spool) Append(key uint64, encode func(dst []byte, seq uint64) []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	if s.broken != nil {
		return 0, s.broken
	}
	start := len(s.buf)
	seq := s.lastSeq + 1
	var frame [frameSize]byte
	buf := encode(append(s.buf, frame[:]...), seq)
	size := len(buf) - start
	switch {
	case size > frameSize+MaxValue:
		return 0, ErrTooLarge
	case s.full(size):
		s.refuse(size)
		return 0, ErrFull
	}
	if s.refused > 0 {
		s.refused = 0
		s.log.Info().Msg("spool has room again")
	}
	sealRecord(buf[start:], s.Epoch(), seq, key)
	s.buf = buf
	s.bufCount++
	s.lastSeq = seq
	s.records++
	s.bytes += int64(size)
	s.metrics.appended.Inc()
	if start == 0 {
		s.pending.Ring()
	}
	return seq, nil
}

// full tells whether a record of that size must be refused. s.mu is held.
func (s *Spool) full(size int) bool {
	return s.aged || s.bytes+int64(size) > s.cfg.MaxBytes || len(s.buf)+size > pendingBytes
}

// refuse notes that a record of that size was refused. s.mu is held.
func (s *Spool) refuse(size int) {
	s.metrics.full.Inc()
	if s.refused == 0 {
		s.log.Error().Int64("bytes", s.bytes).Int64("records", s.records).Stringer("oldest", s.ages.oldest(time.Now()).Round(time.Second)).
			Msg("spool is full, refusing records: what waits in it is not sent")
	}
	s.refused = size
}

// Err returns why records are refused now: an error that is ErrBroken or ErrFull. nil: they are taken.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken != nil:
		return s.broken
	case s.refused > 0 && s.full(s.refused):
		return fmt.Errorf("%w: %d records wait to be sent, the oldest for %s", ErrFull, s.records,
			s.ages.oldest(time.Now()).Round(time.Second))
	}
	return nil
}

// OnDurable lets f be called after each group that reached the disk, with the highest sequence there and nil, and after
// each write that the disk refused, with that sequence and an error that wraps ErrBroken: what was appended behind it
// is not on disk, as Wait would say. It is for those who cannot afford a goroutine that waits. OnDurable is called
// once, before the first Append; f is called by one goroutine, which nothing is written by meanwhile, so that f must
// not block. It may call the spool's methods except Wait and Close.
func (s *Spool) OnDurable(f func(durable uint64, err error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell = f
}

// Wait returns nil once the record is on disk. All who wait at a time share one write and sync. The error is ErrBroken,
// ErrClosed or ctx's.
func (s *Spool) Wait(ctx context.Context, seq uint64) error {
	g, err := s.groupOf(seq)
	if g == nil {
		return err
	}
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// groupOf returns the group to wait for, or none if the outcome is known.
func (s *Spool) groupOf(seq uint64) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case seq == 0 || seq > s.lastSeq:
		return nil, fmt.Errorf("record %d was not appended to the spool", seq)
	case seq <= s.diskSeq:
		return nil, nil
	case s.broken != nil:
		return nil, s.broken
	case seq <= s.flushSeq:
		return s.flush, nil
	default:
		return s.gather, nil
	}
}

// Depth returns what has not been sent yet.
func (s *Spool) Depth() (records, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records, s.bytes
}

// Close writes to disk what was appended and ends the spool, until Reopen. Run must have returned, or StopSending. The
// error means that records without a successful Wait are lost.
func (s *Spool) Close() error {
	_, err := s.close(false)
	return err
}

// Leave is Close for a process that opens the spool next, by Reopen with the Baton. Reserve was called before.
func (s *Spool) Leave() (Baton, error) { return s.close(true) }

func (s *Spool) close(leave bool) (left Baton, err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return left, nil
	}
	s.closed = true
	s.mu.Unlock()

	close(s.closing)
	<-s.flushed
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.active != nil {
		errs = append(errs, s.active.file.Close())
	}
	switch seg := s.ahead; {
	case seg != nil && leave:
		left.Segment = seg.number
		errs = append(errs, seg.file.Close())
	case seg != nil:
		errs = append(errs, seg.drop())
	}
	s.ahead = nil
	if lost := s.lastSeq - s.diskSeq; lost > 0 {
		s.flush.end(ErrClosed)
		s.gather.end(ErrClosed)
		errs = append(errs, fmt.Errorf("%d records not written: %w", lost, s.broken))
	}
	s.epochs.Lock()
	defer s.epochs.Unlock()
	left.Epoch, s.reserved, s.passed = s.reserved, 0, true
	return left, errors.Join(append(errs, s.position.Close(), s.lock.Close())...)
}

// oldestAge returns for how long the oldest record has been waiting to be sent.
func (s *Spool) oldestAge(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == 0 {
		return 0
	}
	return s.ages.oldest(now)
}
