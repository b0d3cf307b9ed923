package bus

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
)

// Committed is what a consumer group remembers of a partition.
type Committed struct {
	Next int64  // the offset to go on with
	Note string // what the one who committed left with it
}

// Committed returns what a consumer group remembers of topic, by partition; partitions of which it remembers nothing
// are absent. Like Read it waits for brokers that are away and for the topic.
func (c *Client) Committed(ctx context.Context, group, topic string) (committed map[int]Committed, err error) {
	err = c.retry(ctx, "look up consumer group "+group+" in topic", topic, func(ctx context.Context) error {
		n, err := c.partitions(ctx, topic)
		if err != nil {
			return err
		}
		committed, err = c.committed(ctx, group, topic, n)
		return err
	})
	return committed, err
}

func (c *Client) committed(ctx context.Context, group, topic string, n int) (map[int]Committed, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	partitions := make([]int, n)
	for p := range partitions {
		partitions[p] = p
	}
	res, err := c.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: partitions}})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) { // Kafka itself remembers nothing of such a group
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	committed := make(map[int]Committed, n)
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		if p.CommittedOffset >= 0 {
			committed[p.Partition] = Committed{p.CommittedOffset, p.Metadata}
		}
	}
	return committed, nil
}

// Commit has a consumer group remember the offsets to go on with, by partition, and a note with each. It is tried once.
// A group that somebody is a member of is not changed.
func (c *Client) Commit(ctx context.Context, group, topic string, next map[int]int64, note string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var commits []kafka.OffsetCommit
	for _, p := range slices.Sorted(maps.Keys(next)) {
		commits = append(commits, kafka.OffsetCommit{Partition: p, Offset: next[p], Metadata: note})
	}
	res, err := c.kafka.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: commits},
	})
	if err != nil {
		return err
	}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return p.Error
		}
	}
	return nil
}
