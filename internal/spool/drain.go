package spool

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/retry"
)

const (
	// batchRecords bounds what is handed to send at once, beside readBytes.
	batchRecords = 10_000
	// drainGrace is how long Run goes on after its context has ended.
	drainGrace = 5 * time.Second
)

// sendPace is that of tries to send the same records.
var sendPace = retry.Pace{First: 100 * time.Millisecond, Longest: 10 * time.Second}

// Run writes what is on disk to the topic, in order and at least once, beginning with what earlier openings left. It
// reads records back from the segments, which are in the kernel's page cache unless the topic is far behind. When that
// fails the same messages are sent again after a pause. Write must not keep them, nor what they point to. A record on
// its own is sent at once; those that follow it closely go together some milliseconds later.
//
// When ctx ends Run goes on until all is sent, but no longer than 5 s, and returns nil; what is left then is sent after
// the next opening. Records may be appended before, while and after Run runs; only one Run may at a time.
func (s *Spool) Run(ctx context.Context, topic Topic) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drainGrace, cancel) })()

	d := drainer{Spool: s, topic: topic}
	defer d.closeFile()
	for sending.Err() == nil && s.maySend(ctx) {
		pause, idle := d.step(sending, ctx.Err() != nil)
		s.endTurn()
		_, bytes := s.Depth()
		switch {
		case idle && ctx.Err() != nil && bytes == 0:
			return nil
		case idle:
			d.idle(ctx, sending)
		case pause > 0:
			retry.Sleep(ctx, pause)
		}
	}
	return nil
}

// step sends a batch, or is done with a segment. It returns how long more is to gather before that, or idle if there is
// nothing to do.
func (d *drainer) step(ctx context.Context, hurry bool) (pause time.Duration, idle bool) {
	seg, end, records, final := d.oldest()
	switch {
	case seg != nil && d.at(seg) < end:
		pause = time.Until(d.next)
		if pause > 0 && end-seg.sent < readBytes && !final && !hurry {
			return pause, false
		}
		d.next = time.Now().Add(d.cfg.SendGap.Std())
		d.sendSome(ctx, seg, end, records)
	case final:
		d.finished(seg)
	default:
		return 0, true
	}
	return 0, false
}

// StopSending keeps Run from sending, when it has sent what it is about to, until GoOnSending. It fails only with ctx.
// Another process, which opens the spool after Close, sends nothing twice then.
func (s *Spool) StopSending(ctx context.Context) error {
	select {
	case <-s.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// GoOnSending ends StopSending.
func (s *Spool) GoOnSending() {
	s.endTurn()
	s.durable.Ring() // there may be what was not there when Run looked
}

func (s *Spool) endTurn() {
	select {
	case s.turn <- struct{}{}:
	default:
	}
}

// maySend waits until Run may send, and is StopSending for Run itself. Who ends while it may not has sent all it can.
func (s *Spool) maySend(ctx context.Context) bool {
	select {
	case <-s.turn:
		return true
	default:
	}
	return s.StopSending(ctx) == nil
}

// oldest returns the segment to send from, the end of its records, how many of those have not been sent, and whether no
// more will be added.
func (s *Spool) oldest() (seg *segment, end, records int64, final bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.segments) == 0 {
		return nil, 0, 0, false
	}
	seg = s.segments[0]
	return seg, seg.size, seg.records, seg != s.active
}

// drainer is one call of Run.
type drainer struct {
	*Spool
	topic  Topic
	from   *segment // the one that file is open on
	file   *os.File
	reader reader // of file

	next time.Time     // when the next send may start
	msgs []bus.Message // the records read last
}

// at returns where to read on in seg.
func (d *drainer) at(seg *segment) int64 {
	if d.from == seg {
		return d.reader.at
	}
	return seg.sent
}

// idle waits for more records on disk; once ctx has ended, for sending.
func (d *drainer) idle(ctx, sending context.Context) {
	ended := ctx.Done()
	if ctx.Err() != nil {
		ended = nil
	}
	select {
	case <-d.durable:
	case <-ended:
	case <-sending.Done():
	}
}

// sendSome sends one batch of the records that the segment holds up to end, and writes down that it did.
func (d *drainer) sendSome(ctx context.Context, seg *segment, end, records int64) {
	skipped, err := d.read(seg, end)
	if errors.Is(err, os.ErrNotExist) { // somebody deleted it
		d.damaged(seg, seg.sent, damage{end - seg.sent, uint64(records)})
		d.done(seg, end, records)
		return
	}
	if err != nil {
		d.log.Error().Err(err).Str("segment", seg.path).Msg("spool cannot be read, will try again")
		retry.Sleep(ctx, retryInterval)
		return
	}
	if skipped.bytes > 0 {
		d.damaged(seg, d.reader.at, skipped)
	}
	if len(d.msgs) > 0 {
		err = retry.Do(ctx, sendPace, func() error {
			partitions, err := d.partitions(ctx, seg)
			if err != nil {
				return err
			}
			return d.topic.Write(ctx, partitions, d.msgs...)
		}, func(err error, _ time.Duration) {
			d.metrics.sendErrors.Inc()
			d.log.Error().Err(err).Int("records", len(d.msgs)).Msg("records not sent, will try again")
		})
		if err != nil {
			return // ctx has ended
		}
	}
	d.metrics.sent.Add(float64(len(d.msgs)))
	if d.reader.at < end {
		records = min(records, int64(len(d.msgs)))
	} // else those that are not sent by now are lost
	d.done(seg, d.reader.at-d.reader.gap, records)
}

// read reads what comes next in seg, before end, into d.msgs.
func (d *drainer) read(seg *segment, end int64) (skipped damage, err error) {
	if d.from != seg {
		d.closeFile()
		f, err := os.Open(seg.path)
		if err != nil {
			return damage{}, err
		}
		d.from, d.file = seg, f
		d.reader = reader{file: f, at: seg.sent, buf: d.reader.buf}
	}
	d.msgs = d.msgs[:0]
	skipped, err = d.reader.some(end, func(r record) bool {
		d.msgs = append(d.msgs, bus.Message{Key: r.key, Value: r.value})
		return len(d.msgs) < batchRecords
	})
	if err == nil && d.reader.at == end {
		skipped.add(d.reader.giveUp())
	}
	return skipped, err
}

func (d *drainer) closeFile() {
	if d.file != nil {
		d.file.Close()
	}
	d.from, d.file = nil, nil
}

// done takes records off the queue's front, up to offset of its segment.
func (d *drainer) done(seg *segment, offset, records int64) {
	at := position{seg.number, offset}
	d.savePosition(at)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records -= records
	d.bytes -= offset - seg.sent
	seg.records -= records
	seg.sent = offset
	if d.ages.sent(at); offset == seg.size && len(d.segments) == 1 {
		d.ages = nil
	}
	d.aged = d.aged && d.ages.oldest(time.Now()) > d.cfg.MaxAge.Std()
}

// savePosition needs no sync: if a crash undoes it, the tail is sent again.
func (d *drainer) savePosition(p position) {
	if err := p.write(d.position); err != nil {
		d.log.Warn().Err(err).Msg("position of the spool not written, records will be sent again after a restart")
	}
}

// finished removes a segment of which all has been sent.
func (d *drainer) finished(seg *segment) {
	d.closeFile()
	next := position{seg.number + 1, 0}
	d.savePosition(next)
	var err error
	if seg.lost.bytes > 0 {
		kept := strings.TrimSuffix(seg.path, segmentSuffix) + damagedSuffix
		d.log.Error().Str("kept", kept).Int64("bytes", seg.lost.bytes).Uint64("records", seg.lost.records).
			Msg("spool has lost records to damage")
		err = os.Rename(seg.path, kept)
	} else {
		err = os.Remove(seg.path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.log.Warn().Err(err).Msg("sent segment of the spool stays until the next start")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.segments = d.segments[1:]
	d.ages.sent(next)
}
