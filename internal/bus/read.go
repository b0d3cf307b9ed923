package bus

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"btcpool/internal/retry"

	"github.com/segmentio/kafka-go"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"
	"golang.org/x/sync/errgroup"
)

const (
	// fetchBytes bounds one answer; a larger message still comes, alone.
	fetchBytes = 4 << 20
	// fetchWait is how long a broker holds an answer back for a message to come: what comes is answered at once, and each
	// answer without any wakes half a dozen threads. What is left of trusted is for a broker under load to answer late.
	fetchWait = trusted / 4
	// partitionCheck is how long a new partition of a topic may go unnoticed.
	partitionCheck = 15 * time.Second
	// trusted is how long after an answer a partition holds what it held: no broker is back within it from a crash.
	trusted = time.Second
)

// Start says where in each partition Read begins.
type Start struct {
	kind startKind
	n    int64
	time time.Time
	last map[int]Mark
}

type startKind int

const (
	startEarliest startKind = iota
	startLatest
	startLast
	startSince
	startAfter
)

// Earliest starts at the oldest message kept.
func Earliest() Start { return Start{kind: startEarliest} }

// Latest starts behind the newest message.
func Latest() Start { return Start{kind: startLatest} }

// Last starts at the n-th last message of each partition.
func Last(n int) Start { return Start{kind: startLast, n: int64(n)} }

// Since starts at the first message whose time is t or later. What stands right before that may have no time, as all
// that btcpool's services write: then it is not known how old it is, and reading starts n messages earlier.
func Since(t time.Time, n int) Start { return Start{kind: startSince, time: t, n: int64(n)} }

// After starts behind the last message that was read of a partition, and at the earliest of partitions that last does
// not name. A partition that does not hold that message any more, since Kafka lost its end or it was made anew, and has
// others at its place perhaps, is read from its earliest one. As many as back of those that were read come again.
func After(last map[int]Mark, back int64) Start { return Start{kind: startAfter, last: last, n: back} }

// A Mark is what is kept of a message to find out later whether it still is in its place.
type Mark struct {
	Offset int64
	// Checksum is the CRC-32C of key and value; 0: not known, then nothing can be found out.
	Checksum uint32
}

// Mark returns that of m.
func (m *Message) Mark() Mark {
	sum := crc32.Update(crc32.Checksum(m.Key, castagnoli), castagnoli, m.Value)
	return Mark{m.Offset, max(sum, 1)}
}

// A ReadOption changes what Read does.
type ReadOption func(*reader)

// CaughtUp calls f once, on the goroutine that handles messages, when all that the topic held at the start of Read has
// been handled.
func CaughtUp(f func()) ReadOption {
	return func(r *reader) { r.caughtUp = f }
}

// Rewound calls f, on the goroutine that handles messages, before those of a partition that is read again from its
// earliest message, which has this offset.
func Rewound(f func(partition int, earliest int64)) ReadOption {
	return func(r *reader) { r.rewound = f }
}

// Failing calls f with what keeps partitions from being read when that changes: nil once all are read again. The first try
// after a broker's restart, which always meets a dead connection, does not count.
func Failing(f func(error)) ReadOption {
	return func(r *reader) { r.failing = f }
}

// Read calls handle, on one goroutine, for each message of topic from the start position on, in order per partition. It
// waits for brokers that are away and for a topic that does not exist yet. Messages that retention removed before they
// could be read are skipped, with a warning and a counter. A partition that does not hold any more what was handled last
// is read again from its earliest message, with a warning and a counter, so that handle may see messages again. Read
// returns handle's error at once, and nil when ctx ends.
func (c *Client) Read(ctx context.Context, topic string, from Start, handle func(Message) error, opts ...ReadOption) error {
	r := &reader{Client: c, topic: topic, batches: make(chan batch), failed: make(map[int]error)}
	for _, opt := range opts {
		opt(r)
	}
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error {
		starts, err := c.Offsets(inner, topic, from)
		if err != nil {
			return err
		}
		for partition, offset := range starts {
			g.Go(func() error { return r.fetch(inner, partition, offset, from.last[partition]) })
		}
		g.Go(func() error { return r.watch(inner, g, len(starts)) })
		return r.handle(inner, handle, len(starts))
	})
	return unlessEnded(ctx, g.Wait())
}

// Offsets returns where Read would begin in each partition. Like Read it waits for brokers that are away and for the
// topic.
func (c *Client) Offsets(ctx context.Context, topic string, from Start) (offsets []int64, err error) {
	err = c.retry(ctx, "find start in topic", topic, func(ctx context.Context) error {
		offsets, err = c.resolve(ctx, topic, from)
		return err
	})
	return offsets, err
}

// resolve returns the first offset to read of each partition.
func (c *Client) resolve(ctx context.Context, topic string, from Start) ([]int64, error) {
	n, err := c.partitions(ctx, topic)
	if err != nil {
		return nil, err
	}
	first, err := c.offsets(ctx, topic, n, kafka.FirstOffsetOf)
	if err != nil {
		return nil, err
	}
	last, err := c.offsets(ctx, topic, n, kafka.LastOffsetOf)
	if err != nil {
		return nil, err
	}
	switch from.kind {
	case startLatest:
		return last, nil
	case startLast:
		for p := range first {
			first[p] = max(first[p], last[p]-max(from.n, 0))
		}
	case startSince:
		since, err := c.offsets(ctx, topic, n, func(p int) kafka.OffsetRequest { return kafka.TimeOffsetOf(p, from.time) })
		if err != nil {
			return nil, err
		}
		for p := range first {
			if since[p] < 0 { // nothing is that young
				since[p] = last[p]
			}
			if first[p], err = c.before(ctx, topic, p, first[p], since[p], from.n); err != nil {
				return nil, err
			}
		}
	case startAfter:
		for p := range first {
			if mark, ok := from.last[p]; ok { // whether it is there shows when it is fetched
				next := mark.Offset + 1
				first[p] = min(next, max(first[p], next-from.n))
			}
		}
	}
	return first, nil
}

// before returns the offset n before since, but not before first, when the message right before since has no time; or
// else since.
func (c *Client) before(ctx context.Context, topic string, partition int, first, since, n int64) (int64, error) {
	if since <= first {
		return since, nil
	}
	msgs, _, _, err := c.fetchOnce(ctx, topic, partition, since-1, 1, fetchWait)
	if err != nil || len(msgs) == 0 || !msgs[0].Time.IsZero() {
		return since, err
	}
	return max(first, since-n), nil
}

// offsets asks for one offset of each of topic's n partitions; -1 means that there is none.
func (c *Client) offsets(ctx context.Context, topic string, n int, of func(partition int) kafka.OffsetRequest) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	requests := make([]kafka.OffsetRequest, n)
	for p := range requests {
		requests[p] = of(p)
	}
	res, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: requests}})
	if err != nil {
		return nil, err
	}
	answers := res.Topics[topic]
	if len(answers) != n {
		return nil, fmt.Errorf("offsets of %d partitions instead of %d", len(answers), n)
	}
	offsets := make([]int64, n)
	for _, a := range answers {
		if a.Error != nil {
			return nil, a.Error
		}
		if a.Partition < 0 || a.Partition >= n {
			return nil, fmt.Errorf("offset of partition %d, of %d", a.Partition, n)
		}
		offset := max(a.FirstOffset, a.LastOffset) // the one that was not asked for is -1
		for at := range a.Offsets {
			offset = max(offset, at)
		}
		offsets[a.Partition] = offset
	}
	return offsets, nil
}

// reader is one call of Read: a goroutine a partition fetches ahead while one handles.
type reader struct {
	*Client
	topic    string
	caughtUp func()
	rewound  func(partition int, earliest int64)
	batches  chan batch

	failing func(error) // nil: nobody wants to know
	mu      sync.Mutex
	failed  map[int]error // by partition
}

// batch is what one request delivered.
type batch struct {
	partition int
	// rewoundTo is the partition's earliest offset if it is read again from there; otherwise -1.
	rewoundTo int64
	msgs      []Message
	// caughtUp is true in the one batch that reaches what was the partition's end at the start.
	caughtUp bool
}

// handle hands messages on. The topic had as many partitions at the start as behind says; none is caught up with yet.
func (r *reader) handle(ctx context.Context, handle func(Message) error, behind int) error {
	messages := r.metrics.readMessages.WithLabelValues(r.topic)
	bytes := r.metrics.readBytes.WithLabelValues(r.topic)
	for {
		var b batch
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b = <-r.batches:
		}
		if b.rewoundTo >= 0 && r.rewound != nil {
			r.rewound(b.partition, b.rewoundTo)
		}
		size := 0
		for _, m := range b.msgs {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := handle(m); err != nil {
				return err
			}
			size += len(m.Key) + len(m.Value)
		}
		messages.Add(float64(len(b.msgs)))
		bytes.Add(float64(size))
		if b.caughtUp {
			if behind--; behind == 0 && r.caughtUp != nil {
				r.caughtUp()
			}
		}
	}
}

// watch begins to fetch partitions that are added to the topic.
func (r *reader) watch(ctx context.Context, g *errgroup.Group, known int) error {
	for retry.Sleep(ctx, partitionCheck) {
		n, err := r.partitions(ctx, r.topic)
		if err != nil {
			continue // the goroutines that fetch tell of brokers that are away
		}
		for ; known < n; known++ {
			partition := known
			r.log.Info().Str("topic", r.topic).Int("partition", partition).Msg("reading a new partition")
			g.Go(func() error { return r.fetch(ctx, partition, 0, Mark{}) })
		}
	}
	return ctx.Err()
}

// fetch delivers a partition's messages from offset next on until ctx ends; last was read last, by whoever was here
// before.
func (r *reader) fetch(ctx context.Context, partition int, next int64, last Mark) error {
	end := int64(-1) // where the partition ended when it was seen first
	caughtUp := false
	doubtful := last != Mark{} // whether the partition holds last
	var answered time.Time
	lag := r.metrics.readLag.WithLabelValues(r.topic, strconv.Itoa(partition))
	for {
		wait := fetchWait
		if !caughtUp {
			wait = time.Millisecond // an empty partition is caught up with at once
		}
		doubtful = doubtful || !answered.IsZero() && time.Since(answered) > trusted
		var msgs []Message
		var after, highWatermark int64
		rewoundTo := int64(-1)
		attempt := func(ctx context.Context) (err error) {
			if doubtful {
				from, held, err := r.onwards(ctx, partition, next, last)
				if err != nil {
					return err
				}
				if from != next {
					end = -1
				}
				if from < next || from == next && held != last {
					rewoundTo = from
				}
				next, last, doubtful = from, held, false
			}
			msgs, after, highWatermark, err = r.fetchOnce(ctx, r.topic, partition, next, fetchBytes, wait)
			doubtful = err != nil
			return err
		}
		tries := 0
		err := r.retry(ctx, "read from topic", r.topic, func(ctx context.Context) error {
			err := attempt(ctx)
			if errors.Is(err, kafka.OffsetOutOfRange) {
				err = attempt(ctx)
			}
			if err != nil && ctx.Err() == nil {
				r.metrics.readErrors.WithLabelValues(r.topic).Inc()
				err = fmt.Errorf("partition %d at %d: %w", partition, next, err)
			}
			if tries++; ctx.Err() == nil && (err == nil || tries > 1) {
				r.note(partition, err)
			}
			return err
		})
		if err != nil {
			return err
		}
		answered = time.Now()
		if end < 0 {
			end = highWatermark
		}
		next = after
		if n := len(msgs); n > 0 {
			last = msgs[n-1].Mark()
		}
		lag.Set(float64(highWatermark - next))
		b := batch{partition: partition, rewoundTo: rewoundTo, msgs: msgs, caughtUp: !caughtUp && next >= end}
		caughtUp = caughtUp || b.caughtUp
		if len(b.msgs) == 0 && !b.caughtUp && rewoundTo < 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r.batches <- b:
		}
	}
}

// note tells how the latest try to read a partition went.
func (r *reader) note(partition int, err error) {
	if r.failing == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, failed := r.failed[partition]; failed == (err != nil) {
		return
	}
	if err == nil {
		delete(r.failed, partition)
	} else {
		r.failed[partition] = err
	}
	r.failing(errors.Join(slices.Collect(maps.Values(r.failed))...))
}

// onwards returns the offset to go on from when next was to be read, and last was read before. That is next if the
// partition is what it was; the earliest if retention has passed next, or if last is not there any more: none is returned
// then.
func (r *reader) onwards(ctx context.Context, partition int, next int64, last Mark) (int64, Mark, error) {
	first, err := r.offsets(ctx, r.topic, partition+1, kafka.FirstOffsetOf)
	if err != nil {
		return next, last, err
	}
	end, err := r.offsets(ctx, r.topic, partition+1, kafka.LastOffsetOf) // fails while a new leader may not know it
	if err != nil {
		return next, last, err
	}
	earliest := first[partition]
	log := r.log.With().Str("topic", r.topic).Int("partition", partition).Int64("offset", next).Int64("earliest", earliest).Logger()
	if next < earliest {
		r.metrics.readSkipped.WithLabelValues(r.topic).Add(float64(earliest - next))
		log.Warn().Msg("messages are gone before they were read, going on with the earliest")
		return earliest, Mark{}, nil
	}
	reach := next
	if last != (Mark{}) {
		reach = max(next, last.Offset+1)
	}
	held := reach <= end[partition]
	if held && last.Offset >= earliest {
		if held, err = r.holds(ctx, r.topic, partition, last); err != nil {
			return next, last, err
		}
	}
	if held {
		return next, last, nil
	}
	r.metrics.rewinds.WithLabelValues(r.topic).Inc()
	log.Warn().Msg("what was read last is not in the topic any more, its end was lost or it was made anew: reading it from the earliest")
	return earliest, Mark{}, nil
}

// holds tells whether a message is in its place. One without a checksum is believed to be.
func (c *Client) holds(ctx context.Context, topic string, partition int, last Mark) (bool, error) {
	if last.Checksum == 0 {
		return true, nil
	}
	msgs, _, _, err := c.fetchOnce(ctx, topic, partition, last.Offset, 1, time.Millisecond)
	return len(msgs) > 0 && msgs[0].Mark() == last, err
}

// Holds tells whether a topic has all that came after the messages that were read last: Read from After would neither miss
// any nor begin with the earliest. Like Read it waits for brokers that are away and for the topic.
func (c *Client) Holds(ctx context.Context, topic string, last map[int]Mark) (held bool, err error) {
	err = c.retry(ctx, "look for what was read last in topic", topic, func(ctx context.Context) error {
		n, err := c.partitions(ctx, topic)
		if err != nil {
			return err
		}
		first, err := c.offsets(ctx, topic, n, kafka.FirstOffsetOf)
		if err != nil {
			return err
		}
		end, err := c.offsets(ctx, topic, n, kafka.LastOffsetOf)
		if err != nil {
			return err
		}
		for p, mark := range last {
			next := mark.Offset + 1
			if held = p < n && first[p] <= next && next <= end[p]; held && mark.Offset >= first[p] {
				held, err = c.holds(ctx, topic, p, mark)
			}
			if err != nil || !held {
				return err
			}
		}
		held = true
		return nil
	})
	return held, err
}

// fetchOnce asks for messages from offset next on, as many as limit bytes hold but one batch at least. It returns the
// offset behind the last record that came and the one behind the partition's last.
func (c *Client) fetchOnce(ctx context.Context, topic string, partition int, next int64, limit int32, wait time.Duration) (msgs []Message, after, highWatermark int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.transport.RoundTrip(ctx, c.kafka.Addr, &fetchExchange{Request: &fetchapi.Request{
		ReplicaID:    -1,
		MaxWaitTime:  int32(wait.Milliseconds()),
		MinBytes:     1,
		MaxBytes:     limit,
		SessionID:    -1,
		SessionEpoch: -1,
		Topics: []fetchapi.RequestTopic{{Topic: topic, Partitions: []fetchapi.RequestPartition{{
			Partition:          int32(partition),
			CurrentLeaderEpoch: -1,
			FetchOffset:        next,
			LogStartOffset:     -1,
			PartitionMaxBytes:  limit,
		}}}},
	}})
	if err != nil {
		return nil, next, 0, err
	}
	answer, ok := res.(*fetchAnswer)
	if !ok {
		return nil, next, 0, errFetch
	}
	set, highWatermark, err := answer.parse()
	if err != nil {
		return nil, next, 0, err
	}
	msgs, after, err = records(set, next)
	for i := range msgs {
		msgs[i].Partition = partition
	}
	return msgs, after, highWatermark, err
}
