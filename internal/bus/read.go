package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"btcpool/internal/retry"

	"github.com/segmentio/kafka-go"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"
	"golang.org/x/sync/errgroup"
)

const (
	// fetchBytes bounds one answer; a larger message still comes, alone.
	fetchBytes = 4 << 20
	// fetchWait is how long a broker holds an answer back for a message to come.
	fetchWait = 100 * time.Millisecond
	// partitionCheck is how long a new partition of a topic may go unnoticed.
	partitionCheck = 15 * time.Second
)

// Start says where in each partition Read begins.
type Start struct {
	kind startKind
	n    int64
	time time.Time
	at   map[int]int64
}

type startKind int

const (
	startEarliest startKind = iota
	startLatest
	startLast
	startSince
	startAt
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

// At starts at the offset given for a partition, and at the earliest message of partitions that next does not name.
func At(next map[int]int64) Start { return Start{kind: startAt, at: next} }

// A ReadOption changes what Read does.
type ReadOption func(*reader)

// CaughtUp calls f once, on the goroutine that handles messages, when all that the topic held at the start of Read has
// been handled.
func CaughtUp(f func()) ReadOption {
	return func(r *reader) { r.caughtUp = f }
}

// Read calls handle, on one goroutine, for each message of topic from the start position on, in order per partition. It
// waits for brokers that are away and for a topic that does not exist yet. Messages that retention removed before they
// could be read are skipped, with a warning and a counter. Read returns handle's error at once, and nil when ctx ends.
func (c *Client) Read(ctx context.Context, topic string, from Start, handle func(Message) error, opts ...ReadOption) error {
	r := &reader{Client: c, topic: topic, batches: make(chan batch)}
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
			g.Go(func() error { return r.fetch(inner, partition, offset) })
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
	case startAt:
		for p := range first {
			if next, ok := from.at[p]; ok {
				first[p] = next // whether it is in range shows when it is fetched
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
	msgs, _, _, err := c.fetchOnce(ctx, topic, partition, since-1, fetchWait)
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
	batches  chan batch
}

// batch is what one request delivered.
type batch struct {
	msgs []Message
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
			g.Go(func() error { return r.fetch(ctx, partition, 0) })
		}
	}
	return ctx.Err()
}

// fetch delivers a partition's messages from offset next on until ctx ends.
func (r *reader) fetch(ctx context.Context, partition int, next int64) error {
	end := int64(-1) // where the partition ended when it was seen first
	caughtUp := false
	lag := r.metrics.readLag.WithLabelValues(r.topic, strconv.Itoa(partition))
	for {
		wait := fetchWait
		if !caughtUp {
			wait = time.Millisecond // an empty partition is caught up with at once
		}
		var msgs []Message
		var after, highWatermark int64
		err := r.retry(ctx, "read from topic", r.topic, func(ctx context.Context) (err error) {
			msgs, after, highWatermark, err = r.fetchOnce(ctx, r.topic, partition, next, wait)
			if errors.Is(err, kafka.OffsetOutOfRange) {
				end = -1
				if next, err = r.skipTo(ctx, partition, next); err == nil {
					msgs, after, highWatermark, err = r.fetchOnce(ctx, r.topic, partition, next, wait)
				}
			}
			if err != nil && ctx.Err() == nil {
				r.metrics.readErrors.WithLabelValues(r.topic).Inc()
				err = fmt.Errorf("partition %d at %d: %w", partition, next, err)
			}
			return err
		})
		if err != nil {
			return err
		}
		if end < 0 {
			end = highWatermark
		}
		next = after
		lag.Set(float64(highWatermark - next))
		b := batch{msgs: msgs, caughtUp: !caughtUp && next >= end}
		caughtUp = caughtUp || b.caughtUp
		if len(b.msgs) == 0 && !b.caughtUp {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r.batches <- b:
		}
	}
}

// skipTo returns the offset to go on from when the partition does not hold
// next: removed by retention, or the topic was made anew.
func (r *reader) skipTo(ctx context.Context, partition int, next int64) (int64, error) {
	first, err := r.offsets(ctx, r.topic, partition+1, kafka.FirstOffsetOf)
	if err != nil {
		return next, err
	}
	earliest := first[partition]
	r.metrics.readSkipped.WithLabelValues(r.topic).Add(float64(max(earliest-next, 0)))
	r.log.Warn().Str("topic", r.topic).Int("partition", partition).Int64("offset", next).Int64("earliest", earliest).
		Msg("offset is not there any more, going on with the earliest")
	return earliest, nil
}

// fetchOnce asks for messages from offset next on. It returns the offset behind the last record that came and the one
// behind the partition's last.
func (c *Client) fetchOnce(ctx context.Context, topic string, partition int, next int64, wait time.Duration) (msgs []Message, after, highWatermark int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.transport.RoundTrip(ctx, c.kafka.Addr, &fetchExchange{Request: &fetchapi.Request{
		ReplicaID:    -1,
		MaxWaitTime:  int32(wait.Milliseconds()),
		MinBytes:     1,
		MaxBytes:     fetchBytes,
		SessionID:    -1,
		SessionEpoch: -1,
		Topics: []fetchapi.RequestTopic{{Topic: topic, Partitions: []fetchapi.RequestPartition{{
			Partition:          int32(partition),
			CurrentLeaderEpoch: -1,
			FetchOffset:        next,
			LogStartOffset:     -1,
			PartitionMaxBytes:  fetchBytes,
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
