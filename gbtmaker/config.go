package gbtmaker

import (
	"fmt"
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
	// Network is what the nodes must be on: one of bitcoin.NetworkNames.
	Network string `toml:"network" env:"NETWORK"`
	// DataDir is the folder that keeps a template while it is being sent.
	DataDir string `toml:"data_dir" env:"DATA_DIR" oldenv:"GBTMAKER_DATA_DIR"`
	// PollInterval is the time from one template of a node to the next when nothing happens.
	PollInterval config.Duration `toml:"poll_interval" env:"POLL_INTERVAL"`
	// RepeatInterval is the time from one template in the topic to the next when they differ by their time only.
	RepeatInterval config.Duration `toml:"repeat_interval" env:"REPEAT_INTERVAL"`
	// EmptyAfter is how long a node may take for the template of a block that it announced over ZeroMQ until there is
	// an empty one. 0: there are none.
	EmptyAfter config.Duration `toml:"empty_after" env:"EMPTY_AFTER"`
	// WholeAfter is how long the whole of a template that all miners hear of at once, as on a new block, waits behind
	// its light form, of which their jobs are made. Jobs of btcpool's jobmaker wait with it. 0: it does not.
	WholeAfter config.Duration `toml:"whole_after" env:"WHOLE_AFTER"`
	// ZMQTimeout is the silence after which a node's blocks are subscribed to again. 0: whatever the silence, they are
	// not.
	ZMQTimeout config.Duration `toml:"zmq_timeout" env:"ZMQ_TIMEOUT"`
	// NotifyListen is the loopback host:port of /notify, where port 0 is any free one. "": there is no /notify.
	NotifyListen string `toml:"notify_listen" env:"NOTIFY_LISTEN"`
	// NodePolicy chooses among the nodes whose chains have most work.
	NodePolicy Policy `toml:"node_policy" env:"NODE_POLICY"`
	// Node is preferred to all Nodes, of which the most preferred comes first. Either may be left out, but not both.
	Node  noderpc.Config   `toml:"node" envPrefix:"NODE_"`
	Nodes []noderpc.Config `toml:"nodes" envPrefix:"NODES_"`
	// Kafka holds the topic of raw templates, from whose name that of light ones follows.
	Kafka bus.Config `toml:"kafka"`
}

// A Policy says which of the nodes whose chains have most work is used.
type Policy string

// Known policies.
const (
	PolicyOrder Policy = "order" // the first of the list
	PolicyEqual Policy = "equal" // the one in use, while no other is higher
)

// DefaultConfig returns a Config that lacks the nodes only.
func DefaultConfig() Config {
	return Config{
		Network:        "mainnet",
		DataDir:        "data/gbtmaker",
		PollInterval:   config.Duration(5 * time.Second),
		RepeatInterval: config.Duration(10 * time.Second),
		EmptyAfter:     config.Duration(20 * time.Millisecond),
		WholeAfter:     config.Duration(150 * time.Millisecond),
		ZMQTimeout:     config.Duration(20 * time.Minute),
		NodePolicy:     PolicyOrder,
		Kafka:          bus.DefaultConfig(),
	}
}

// Jobs are not made of templates older than a minute, so the intervals leave room for a failed call.
const minInterval, maxInterval = 100 * time.Millisecond, 30 * time.Second

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var faults config.Faults
	_, err := bitcoin.NetworkByName(c.Network)
	faults.Value("network", c.Network, err)
	faults.Folder("data_dir", c.DataDir)
	interval := func(key string, d config.Duration) {
		if d.Std() < minInterval || d.Std() > maxInterval {
			faults.Addf("%s = %q: must be %s to %s", key, d, minInterval, maxInterval)
		}
	}
	interval("poll_interval", c.PollInterval)
	interval("repeat_interval", c.RepeatInterval)
	faults.AtLeast("empty_after", c.EmptyAfter, 0)
	if d := c.WholeAfter.Std(); d < 0 || d > maxInterval {
		faults.Addf("whole_after = %q: must be 0s to %s", c.WholeAfter, maxInterval)
	}
	faults.AtLeast("zmq_timeout", c.ZMQTimeout, 0)
	if c.NotifyListen != "" && !config.IsLoopback(c.NotifyListen) {
		faults.Addf("notify_listen = %q: must be a loopback address and a port, like 127.0.0.1:9201: there is no login", config.RedactURL(c.NotifyListen))
	}
	if c.NodePolicy != PolicyOrder && c.NodePolicy != PolicyEqual {
		faults.Addf("node_policy = %q: must be %s or %s", c.NodePolicy, PolicyOrder, PolicyEqual)
	}
	if c.hasNode() {
		faults.In("node", c.Node.Validate())
	}
	for i, n := range c.Nodes {
		faults.In(fmt.Sprintf("nodes[%d]", i), n.Validate())
	}
	if len(c.AllNodes()) == 0 {
		faults.Addf("nodes: at least one [[nodes]] section is needed")
	}
	faults.Add(c.Kafka.Validate())
	return faults.Err()
}

func (c Config) hasNode() bool { return c.Node != noderpc.Config{} }

// AllNodes returns all nodes, most preferred first.
func (c Config) AllNodes() []noderpc.Config {
	if !c.hasNode() {
		return c.Nodes
	}
	return append([]noderpc.Config{c.Node}, c.Nodes...)
}
