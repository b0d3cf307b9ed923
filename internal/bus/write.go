package bus

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"golang.org/x/sync/errgroup"
)

const (
	// One request carries at most this much, which a broker's default limit of 1 MiB takes even if compression gains
	// nothing. A larger message goes alone.
	batchBytes    = 512 << 10
	batchMessages = 10_000
	// recordBytes is what a record needs beside key and value, at most.
	recordBytes = 64

	// compressFrom is the size in bytes from which compressing is worth its time.
	compressFrom = 4 << 10
)

// partitionWriter keeps the order of what is written to a partition: one batch at a time.
type partitionWriter struct {
	mu      sync.Mutex
	encoder encoder
}

// Write appends msgs to topic and returns nil when all replicas in sync have them. Messages are sent at once, in the
// given order a partition, and repeated until they are acknowledged or ctx ends; the error is ctx's then, or one that
// no repetition mends, and any of msgs may have been written or not. Nothing of msgs is kept.
//
// A message goes to the partition that its key's CRC32 chooses, or to partition 0 without a key. The number of
// partitions is looked up once a process, so that a key keeps its partition while it runs.
func (c *Client) Write(ctx context.Context, topic string, msgs ...Message) error {
	return c.Topic(topic).Write(ctx, 0, msgs...)
}

// Topic returns topic to be written to.
func (c *Client) Topic(topic string) Topic { return Topic{c, topic} }

// Topic is one topic of a client.
type Topic struct {
	client *Client
	name   string
}

// Partitions returns how many partitions the topic has, or had when this process looked first.
func (t Topic) Partitions(ctx context.Context) (int, error) {
	writers, err := t.client.writers(ctx, t.name)
	return len(writers), err
}

// Write is Client.Write, but that keys choose among the first partitions only, as many as among says; 0: among all.
func (t Topic) Write(ctx context.Context, among int, msgs ...Message) error {
	c, topic := t.client, t.name
	if len(msgs) == 0 {
		return nil
	}
	writers, err := c.writers(ctx, topic)
	if err != nil {
		return err
	}
	if among > 0 {
		writers = writers[:min(among, len(writers))]
	}
	if len(writers) == 1 {
		return c.writePartition(ctx, &writers[0], topic, 0, msgs)
	}
	parts := make([][]Message, len(writers))
	for _, m := range msgs {
		p := partitionOf(m.Key, len(parts))
		parts[p] = append(parts[p], m)
	}
	g, ctx := errgroup.WithContext(ctx)
	for p, msgs := range parts {
		if len(msgs) > 0 {
			g.Go(func() error { return c.writePartition(ctx, &writers[p], topic, p, msgs) })
		}
	}
	return g.Wait()
}

// partitionOf is librdkafka's "consistent" partitioner.
func partitionOf(key []byte, partitions int) int {
	if key == nil {
		return 0
	}
	return int(crc32.ChecksumIEEE(key) % uint32(partitions))
}

// writers returns those of topic's partitions.
func (c *Client) writers(ctx context.Context, topic string) ([]partitionWriter, error) {
	c.mu.Lock()
	known := c.topics[topic]
	c.mu.Unlock()
	if known != nil {
		return known, nil
	}
	var n int
	if err := c.retry(ctx, "look up topic", topic, func(ctx context.Context) (err error) {
		n, err = c.partitions(ctx, topic)
		return err
	}); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.topics[topic] == nil {
		c.topics[topic] = make([]partitionWriter, n)
	}
	return c.topics[topic], nil
}

func (c *Client) writePartition(ctx context.Context, p *partitionWriter, topic string, partition int, msgs []Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(msgs) > 0 {
		n, size := firstBatch(msgs)
		start := time.Now()
		// What comes alone, a template above all, is somebody's to wait for: base64 of hex shrinks by a seventh, and
		// writer and broker spend longer on that than the bytes on their way.
		compress := n > 1 && size >= compressFrom
		set := p.encoder.recordSet(msgs[:n], size, start, compress)
		err := c.retry(ctx, "write to topic", topic, func(ctx context.Context) error {
			err := c.produce(ctx, topic, partition, set)
			if errors.Is(err, kafka.InvalidTimestamp) { // our clock is, or that of the broker
				c.timeless(topic)
				set = p.encoder.recordSet(msgs[:n], size, noTime, compress)
				err = c.produce(ctx, topic, partition, set)
			}
			if err != nil {
				c.metrics.writeErrors.WithLabelValues(topic).Inc()
				p.encoder = encoder{} // the library may be sending set still
			}
			return err
		})
		if err != nil {
			return err
		}
		p.encoder.trim()
		c.metrics.writeSeconds.WithLabelValues(topic).Observe(time.Since(start).Seconds())
		c.metrics.writtenMessages.WithLabelValues(topic).Add(float64(n))
		c.metrics.writtenBytes.WithLabelValues(topic).Add(float64(size))
		msgs = msgs[n:]
	}
	return nil
}

// timeless tells of messages that are written without their times, because the broker does not believe those.
func (c *Client) timeless(topic string) {
	c.metrics.timeless.WithLabelValues(topic).Inc()
	c.timelessLog.Do(func() {
		c.log.Error().Str("topic", topic).Msg("broker refuses the time of messages, writing them without: set the clock of this machine right, or the broker's")
	})
}

// firstBatch returns how many of msgs go into one request, at least one, and the bytes of their keys and values.
func firstBatch(msgs []Message) (n, size int) {
	for n < len(msgs) && n < batchMessages {
		next := len(msgs[n].Key) + len(msgs[n].Value)
		if n > 0 && size+next+(n+1)*recordBytes > batchBytes {
			break
		}
		size += next
		n++
	}
	return n, size
}

func (c *Client) produce(ctx context.Context, topic string, partition int, set []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.kafka.RawProduce(ctx, &kafka.RawProduceRequest{
		Topic:        topic,
		Partition:    partition,
		RequiredAcks: kafka.RequireAll,
		RawRecords:   protocol.RawRecordSet{Reader: bytes.NewReader(set)},
	})
	if err != nil {
		return err
	}
	return res.Error
}
