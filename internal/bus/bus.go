// Package bus carries messages between services over the Kafka protocol.
//
// Delivery is at least once and in order per partition: a write whose answer
// was lost is repeated, so whoever needs exactly-once effect drops what it has
// seen. Brokers may be away at any time; everything here waits for them until
// its context ends.
package bus

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"regexp"
	"strconv"
	"sync"
	"time"

	"btcpool/internal/telemetry"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
)

// Config is the section [kafka], the same in the file of every service.
type Config struct {
	Brokers     []string `toml:"brokers" env:"KAFKA_BROKERS"` // host:port, at least one
	Replication int      `toml:"replication"`                 // of topics that we create
	Partitions  int      `toml:"share_partitions"`            // of the share topic when we create it; old consumers read partition 0 only
	Topics      Topics   `toml:"topics"`
}

// Topics names every topic once. Those of merged mining may be empty: there is
// none then.
type Topics struct {
	RawGBT       string `toml:"raw_gbt"`
	Job          string `toml:"job"`
	Share        string `toml:"share"`
	SolvedShare  string `toml:"solved_share"`
	CommonEvents string `toml:"common_events"`
	AuxWork      string `toml:"aux_work" env:"KAFKA_AUX_WORK"`
	AuxSolved    string `toml:"aux_solved"`
	RSKWork      string `toml:"rsk_work" env:"KAFKA_RSK_WORK"`
	RSKSolved    string `toml:"rsk_solved"`
}

// DefaultConfig returns btcpool's topic names on a broker on this host.
func DefaultConfig() Config {
	return Config{
		Brokers:     []string{"127.0.0.1:9092"},
		Replication: 1,
		Partitions:  1,
		Topics: Topics{
			RawGBT:       "BtcRawGbt",
			Job:          "BtcJob",
			Share:        "BtcShare",
			SolvedShare:  "BtcSolvedShare",
			CommonEvents: "BtcCommonEvents",
			AuxWork:      "AuxPowBlock",
			AuxSolved:    "AuxSolvedShare",
			RSKWork:      "RskRawGw",
			RSKSolved:    "RskSolvedShare",
		},
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("kafka.brokers: must name at least one host:port"))
	}
	for _, broker := range c.Brokers {
		host, port, err := net.SplitHostPort(broker)
		if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || portErr != nil || n == 0 {
			errs = append(errs, fmt.Errorf("kafka.brokers has %q: must be host:port", broker))
		}
	}
	if c.Replication < 1 || c.Replication > 1<<15-1 {
		errs = append(errs, fmt.Errorf("kafka.replication = %d: must be 1 to 32767", c.Replication))
	}
	if c.Partitions < 1 || c.Partitions > 1000 {
		errs = append(errs, fmt.Errorf("kafka.share_partitions = %d: must be 1 to 1000", c.Partitions))
	}
	keyOf := make(map[string]string)
	for _, t := range []struct {
		key, name string
		optional  bool
	}{
		{"raw_gbt", c.Topics.RawGBT, false},
		{"job", c.Topics.Job, false},
		{"share", c.Topics.Share, false},
		{"solved_share", c.Topics.SolvedShare, false},
		{"common_events", c.Topics.CommonEvents, false},
		{"aux_work", c.Topics.AuxWork, true},
		{"aux_solved", c.Topics.AuxSolved, true},
		{"rsk_work", c.Topics.RSKWork, true},
		{"rsk_solved", c.Topics.RSKSolved, true},
	} {
		if t.optional && t.name == "" {
			continue
		}
		if err := CheckTopic(t.name); err != nil {
			errs = append(errs, fmt.Errorf("kafka.topics.%s = %q: %w", t.key, t.name, err))
		} else if first, taken := keyOf[t.name]; taken {
			errs = append(errs, fmt.Errorf("kafka.topics.%s = %q: is %s already", t.key, t.name, first))
		}
		keyOf[t.name] = t.key
	}
	return errors.Join(errs...)
}

var validTopic = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// CheckTopic says what is wrong with the name of a topic by Kafka's rule.
func CheckTopic(name string) error {
	if !validTopic.MatchString(name) || name == "." || name == ".." {
		return errors.New("must be 1 to 249 of letters, digits, '.', '_' and '-'")
	}
	return nil
}

// A Message is one record of a topic. Writing takes Key, Value and Time only,
// and a zero Time means now.
type Message struct {
	Partition int
	Offset    int64
	Time      time.Time
	Key       []byte
	Value     []byte // read: the receiver's to keep, with the memory of what was fetched along with it
}

// Client reads and writes topics. Its methods may be called from any goroutine.
type Client struct {
	cfg       Config
	log       zerolog.Logger
	metrics   *metrics
	transport *kafka.Transport
	kafka     *kafka.Client

	mu     sync.Mutex
	topics map[string]*topicWriter
}

const clientID = "btcpool"

// New returns a client without connecting to a broker.
func New(cfg Config, deps telemetry.Deps) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	// The transport is our own because the library's shared one has goroutines
	// that outlive every client.
	transport := &kafka.Transport{
		ClientID:    clientID,
		Dial:        (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		DialTimeout: 5 * time.Second,
		IdleTimeout: time.Minute,
		MetadataTTL: 2 * time.Second, // bounds how long a moved partition or a returned broker goes unnoticed
	}
	return &Client{
		cfg:       cfg,
		log:       deps.Log.With().Str("component", "bus").Logger(),
		metrics:   newMetrics(deps.Metrics),
		transport: transport,
		kafka:     &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Transport: transport},
		topics:    make(map[string]*topicWriter),
	}, nil
}

// Ping asks a broker for an answer.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := c.kafka.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	return err
}

// Close ends all connections. Reads and writes must have ended.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// requestTimeout bounds one request to a broker, so that a connection whose
// other end has gone without a word is given up.
const requestTimeout = 10 * time.Second

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

// partitionOf is librdkafka's "consistent" partitioner.
func partitionOf(key []byte, partitions int) int {
	if key == nil {
		return 0
	}
	return int(crc32.ChecksumIEEE(key) % uint32(partitions))
}

// permanent tells errors that no repetition will mend from those of brokers
// that are away, busy or still joining their cluster.
func permanent(err error) bool {
	var limit *limitError
	if errors.As(err, &limit) {
		return true
	}
	var code kafka.Error
	if !errors.As(err, &code) || code == kafka.Unknown || code.Temporary() || code.Timeout() {
		return false
	}
	switch code {
	case kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.OffsetOutOfRange,
		kafka.InvalidReplicationFactor: // fewer brokers than replicas, so far
		return false
	}
	return true
}

// retry calls f until it returns nil or an error that will stay, or ctx ends.
// It returns that error, or nil, or ctx's.
func (c *Client) retry(ctx context.Context, what, topic string, f func(context.Context) error) error {
	pause := newBackoff()
	for {
		err := f(ctx)
		switch {
		case err == nil:
			if !pause.lastLog.IsZero() {
				c.log.Info().Str("topic", topic).Int("attempts", pause.count+1).Msg(what + ": succeeded")
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case permanent(err):
			return fmt.Errorf("%s %s: %w", what, topic, err)
		}
		if pause.worthALine() {
			c.log.Warn().Err(err).Str("topic", topic).Int("attempts", pause.count+1).Msg(what + ": will try again")
		}
		if !pause.wait(ctx) {
			return ctx.Err()
		}
	}
}

// backoff doubles a pause from 10 ms to 1 s.
type backoff struct {
	next    time.Duration
	count   int
	lastLog time.Time
}

func newBackoff() *backoff { return &backoff{next: 10 * time.Millisecond} }

// wait returns false when ctx ended first.
func (b *backoff) wait(ctx context.Context) bool {
	t := time.NewTimer(b.next)
	defer t.Stop()
	b.next = min(2*b.next, time.Second)
	b.count++
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// worthALine is true for the second attempt, since the first one after a
// broker's restart always meets a dead connection, and then each 10 s.
func (b *backoff) worthALine() bool {
	if b.count == 0 || time.Since(b.lastLog) < 10*time.Second {
		return false
	}
	b.lastLog = time.Now()
	return true
}
