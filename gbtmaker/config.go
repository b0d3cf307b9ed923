package gbtmaker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
)

// Config of a gbtmaker.
type Config struct {
	service.Common
	Network        string           `toml:"network" env:"NETWORK"`                 // what the nodes must be on: one of bitcoin.NetworkNames
	DataDir        string           `toml:"data_dir" env:"GBTMAKER_DATA_DIR"`      // keeps a template while it is being sent
	PollInterval   config.Duration  `toml:"poll_interval" env:"POLL_INTERVAL"`     // from one template of a node to the next when nothing happens
	RepeatInterval config.Duration  `toml:"repeat_interval" env:"REPEAT_INTERVAL"` // from one template in the topic to the next when they differ by their time only
	EmptyAfter     config.Duration  `toml:"empty_after" env:"EMPTY_AFTER"`         // how long a node may take for the template of a block it announced over ZeroMQ until there is an empty one; 0 = there is none
	ZMQTimeout     config.Duration  `toml:"zmq_timeout" env:"ZMQ_TIMEOUT"`         // of silence, after which a node's blocks are subscribed to again; 0 = never
	NotifyListen   string           `toml:"notify_listen" env:"NOTIFY_LISTEN"`     // loopback host:port of /notify; "" = none; port 0 allowed
	NodePolicy     Policy           `toml:"node_policy" env:"NODE_POLICY"`
	Node           noderpc.Config   `toml:"node" envPrefix:"NODE_"`   // the first of the nodes, if set
	Nodes          []noderpc.Config `toml:"nodes" envPrefix:"NODES_"` // most preferred first
	Kafka          bus.Config       `toml:"kafka"`
}

// Policy says which of the nodes with the highest chain is used.
type Policy string

// Known policies.
const (
	PolicyOrder Policy = "order" // the first of the list
	PolicyEqual Policy = "equal" // the one in use, as long as it is among them
)

// DefaultConfig returns a Config that lacks the nodes only.
func DefaultConfig() Config {
	return Config{
		Network:        "mainnet",
		DataDir:        "data/gbtmaker",
		PollInterval:   config.Duration(5 * time.Second),
		RepeatInterval: config.Duration(10 * time.Second),
		EmptyAfter:     config.Duration(20 * time.Millisecond),
		ZMQTimeout:     config.Duration(20 * time.Minute),
		NodePolicy:     PolicyOrder,
		Kafka:          bus.DefaultConfig(),
	}
}

// Jobs are not made of templates older than a minute, so the intervals leave
// room for a failed call.
const minInterval, maxInterval = 100 * time.Millisecond, 30 * time.Second

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var errs []error
	if _, err := bitcoin.NetworkByName(c.Network); err != nil {
		errs = append(errs, fmt.Errorf("network = %q: %w", c.Network, err))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New(`data_dir = "": must name a directory`))
	}
	interval := func(key string, d config.Duration) {
		if d.Std() < minInterval || d.Std() > maxInterval {
			errs = append(errs, fmt.Errorf("%s = %q: must be %s to %s", key, d, minInterval, maxInterval))
		}
	}
	interval("poll_interval", c.PollInterval)
	interval("repeat_interval", c.RepeatInterval)
	if c.EmptyAfter < 0 {
		errs = append(errs, fmt.Errorf("empty_after = %q: must not be negative", c.EmptyAfter))
	}
	if c.ZMQTimeout < 0 {
		errs = append(errs, fmt.Errorf("zmq_timeout = %q: must not be negative", c.ZMQTimeout))
	}
	if c.NotifyListen != "" && !isLoopback(c.NotifyListen) {
		errs = append(errs, fmt.Errorf("notify_listen = %q: must be a loopback address and a port, like 127.0.0.1:9201: there is no login", c.NotifyListen))
	}
	if c.NodePolicy != PolicyOrder && c.NodePolicy != PolicyEqual {
		errs = append(errs, fmt.Errorf("node_policy = %q: must be %s or %s", c.NodePolicy, PolicyOrder, PolicyEqual))
	}
	single := c.Node != noderpc.Config{}
	if single {
		errs = append(errs, faultsOf("node", c.Node))
	}
	for i, n := range c.Nodes {
		errs = append(errs, faultsOf(fmt.Sprintf("nodes[%d]", i), n))
	}
	if !single && len(c.Nodes) == 0 {
		errs = append(errs, errors.New("nodes: at least one [[nodes]] section is needed"))
	}
	return errors.Join(append(errs, c.Kafka.Validate())...)
}

// nodes returns all nodes, most preferred first.
func (c Config) nodes() []noderpc.Config {
	if (c.Node == noderpc.Config{}) {
		return c.Nodes
	}
	return append([]noderpc.Config{c.Node}, c.Nodes...)
}

// faultsOf returns the faults of a node with its section before each key.
func faultsOf(section string, n noderpc.Config) error {
	err := n.Validate()
	if err == nil {
		return nil
	}
	var errs []error
	for fault := range strings.Lines(err.Error()) {
		errs = append(errs, fmt.Errorf("%s.%s", section, strings.TrimSpace(fault)))
	}
	return errors.Join(errs...)
}

func isLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
