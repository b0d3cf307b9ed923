// Package bus carries messages between services over the Kafka protocol.
//
// Delivery is at least once and in order per partition: a write whose answer was lost is repeated, so whoever needs
// exactly-once effect drops what it has seen. Brokers may be away at any time; EnsureTopics, Read and Write wait for
// them until their context ends. That is no error of the first two, which return nil then, so that whoever stops a
// service need not tell it from a failure. Nil from Write means that messages are written, so it returns the context's
// error.
package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"golang.org/x/time/rate"

	"btcpool/internal/telemetry"
)

// A Message is one record of a topic. Writing takes Key, Value and Time only, and a zero Time means now. One that was
// read with a zero Time has none, as what btcpool's services write. It is the receiver's to keep, with the memory of
// all that was fetched along with it.
type Message struct {
	Partition int
	Offset    int64
	Time      time.Time
	Key       []byte
	Value     []byte
}

// Client reads and writes topics. Its methods may be called from any goroutine.
type Client struct {
	cfg       Config
	log       zerolog.Logger
	metrics   *metrics
	transport *kafka.Transport
	kafka     *kafka.Client

	timelessLog rate.Sometimes

	mu     sync.Mutex
	topics map[string][]partitionWriter
}

const clientID = "btcpool"

// New returns a client without connecting to a broker.
func New(cfg Config, deps telemetry.Deps) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	// The transport is our own because the library's shared one has goroutines that outlive every client.
	transport := &kafka.Transport{
		ClientID:    clientID,
		Dial:        dial,
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
		topics:    make(map[string][]partitionWriter),

		timelessLog: rate.Sometimes{Interval: logInterval},
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

// requestTimeout bounds one request to a broker, so that a connection whose other end has gone without a word is given
// up.
const requestTimeout = 10 * time.Second

// unlessEnded returns nil for an error that only says that ctx has ended.
func unlessEnded(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		return nil
	}
	return err
}
