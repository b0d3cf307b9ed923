package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// MaxTemplate is the largest message, in bytes, that the topic of block templates must take.
const MaxTemplate = 64 << 20

// topicSpec is how a topic is created.
type topicSpec struct {
	partitions int
	retention  time.Duration
	maxMessage int // size in bytes; 0: the broker's default
}

func (c *Client) spec(topic string) topicSpec {
	const day = 24 * time.Hour
	switch topic {
	case c.cfg.Topics.RawGBT:
		return topicSpec{partitions: 1, retention: time.Hour, maxMessage: MaxTemplate}
	case c.cfg.Topics.Job:
		return topicSpec{partitions: 1, retention: day}
	case c.cfg.Topics.Share:
		return topicSpec{partitions: c.cfg.Partitions, retention: 7 * day}
	case c.cfg.Topics.AuxWork, c.cfg.Topics.RSKWork:
		return topicSpec{partitions: 1, retention: day}
	case c.cfg.Topics.SolvedShare, c.cfg.Topics.AuxSolved, c.cfg.Topics.RSKSolved:
		return topicSpec{partitions: 1, retention: 30 * day}
	default:
		return topicSpec{partitions: 1, retention: 7 * day}
	}
}

// EnsureTopics creates those of topics that do not exist and checks the limits of those that do. It waits for brokers
// that are away, and returns nil when ctx ends before they are back.
func (c *Client) EnsureTopics(ctx context.Context, topics ...string) error {
	for _, topic := range topics {
		spec := c.spec(topic)
		err := c.retry(ctx, "create topic", topic, func(ctx context.Context) error {
			return c.createTopic(ctx, topic, spec)
		})
		if err == nil {
			err = c.retry(ctx, "check topic", topic, func(ctx context.Context) error {
				return c.checkTopic(ctx, topic, spec)
			})
		}
		if err != nil {
			return unlessEnded(ctx, err)
		}
	}
	return nil
}

// TopicState is how a topic is.
type TopicState struct {
	Partitions int
	Replicas   int   // of the partition that has the fewest
	Messages   int64 // that it holds
}

// Describe returns how a topic is; it is asked once.
func (c *Client) Describe(ctx context.Context, topic string) (TopicState, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return TopicState{}, err
	}
	if len(res.Topics) != 1 {
		return TopicState{}, kafka.UnknownTopicOrPartition
	}
	if err := res.Topics[0].Error; err != nil {
		return TopicState{}, err
	}
	is := TopicState{Partitions: len(res.Topics[0].Partitions)}
	is.Replicas = leastReplicas(res.Topics[0].Partitions)
	first, err := c.offsets(ctx, topic, is.Partitions, kafka.FirstOffsetOf)
	if err != nil {
		return is, err
	}
	last, err := c.offsets(ctx, topic, is.Partitions, kafka.LastOffsetOf)
	if err != nil {
		return is, err
	}
	for p := range last {
		is.Messages += last[p] - first[p]
	}
	return is, nil
}

func leastReplicas(of []kafka.Partition) (least int) {
	for i, p := range of {
		if n := len(p.Replicas); i == 0 || n < least {
			least = n
		}
	}
	return least
}

// partitions returns the number of partitions that topic has.
func (c *Client) partitions(ctx context.Context, topic string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, err
	}
	if len(res.Topics) != 1 {
		return 0, kafka.UnknownTopicOrPartition
	}
	if err := res.Topics[0].Error; err != nil {
		return 0, err
	}
	return len(res.Topics[0].Partitions), nil
}

func (c *Client) createTopic(ctx context.Context, topic string, spec topicSpec) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := c.partitions(ctx, topic); !errors.Is(err, kafka.UnknownTopicOrPartition) {
		return err // the topic is there, or it cannot be known, whose reason CreateTopics would not tell
	}
	configs := []kafka.ConfigEntry{
		{ConfigName: "cleanup.policy", ConfigValue: "delete"},
		{ConfigName: "retention.ms", ConfigValue: strconv.FormatInt(spec.retention.Milliseconds(), 10)},
	}
	if spec.maxMessage > 0 {
		configs = append(configs, kafka.ConfigEntry{ConfigName: maxMessageBytes, ConfigValue: strconv.Itoa(spec.maxMessage)})
	}
	res, err := c.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic:             topic,
		NumPartitions:     spec.partitions,
		ReplicationFactor: c.cfg.Replication,
		ConfigEntries:     configs,
	}}})
	if err != nil {
		return err
	}
	switch err := res.Errors[topic]; {
	case err == nil:
		c.log.Info().Str("topic", topic).Int("partitions", spec.partitions).Stringer("retention", spec.retention).Msg("topic created")
		return nil
	case errors.Is(err, kafka.TopicAlreadyExists): // another service was faster
		return nil
	case errors.Is(err, kafka.InvalidReplicationFactor):
		return fmt.Errorf("kafka.replication = %d: %w", c.cfg.Replication, err)
	default:
		return err
	}
}

const maxMessageBytes = "max.message.bytes"

func (c *Client) checkTopic(ctx context.Context, topic string, spec topicSpec) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := c.partitions(ctx, topic); err != nil || spec.maxMessage == 0 {
		return err
	}
	res, err := c.kafka.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic,
			ResourceName: topic,
			ConfigNames:  []string{maxMessageBytes},
		}},
	})
	if err != nil {
		return err
	}
	for _, resource := range res.Resources {
		if resource.Error != nil {
			return resource.Error
		}
		for _, entry := range resource.ConfigEntries {
			if limit, err := strconv.Atoi(entry.ConfigValue); entry.ConfigName == maxMessageBytes && err == nil && limit < spec.maxMessage {
				return &limitError{topic, limit, spec.maxMessage}
			}
		}
	}
	return nil
}

// limitError means that an operator has to change a topic.
type limitError struct {
	topic      string
	has, needs int
}

func (e *limitError) Error() string {
	return fmt.Sprintf("topic %s has %s=%d and needs %d: raise it with kafka-configs --alter --topic %s --add-config %s=%d",
		e.topic, maxMessageBytes, e.has, e.needs, e.topic, maxMessageBytes, e.needs)
}
