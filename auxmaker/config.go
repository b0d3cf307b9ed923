package auxmaker

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"btcpool/internal/auxwork"
	"btcpool/internal/auxwork/rskrpc"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
)

// Config of an auxmaker.
type Config struct {
	service.Common
	// PollInterval is the time from one call of a node to the next when nothing happens.
	PollInterval config.Duration `toml:"poll_interval" env:"POLL_INTERVAL"`
	// WorkLifetime is how long a chain is part of the work without an answer of its node.
	WorkLifetime config.Duration `toml:"work_lifetime" env:"WORK_LIFETIME"`
	// NotifyListen is the host:port of /notify, where port 0 is any free one. "": there is no /notify.
	NotifyListen string `toml:"notify_listen" env:"NOTIFY_LISTEN"`
	// PublishRPC puts address and login of the node into messages, in place of its name.
	PublishRPC bool `toml:"publish_rpc" env:"PUBLISH_RPC"`
	// Chains may be left out, as may RSK, which is not mined along without rpc_url.
	Chains []Chain `toml:"chains" envPrefix:"CHAINS_"`
	RSK    RSK     `toml:"rsk" envPrefix:"RSK_"`
	// Kafka holds the topics of work.
	Kafka bus.Config `toml:"kafka"`
}

// Chain is an AuxPoW chain and its node.
type Chain struct {
	// Name is that of the chain in blkmaker's configuration, too.
	Name string `toml:"name" env:"NAME"`
	// PayoutAddress is of the chain. "": the wallet of the node is paid.
	PayoutAddress string `toml:"payout_address" env:"PAYOUT_ADDRESS"`
	noderpc.Config
}

// RSK is the node of RSK.
type RSK struct {
	// Name is that of the node in blkmaker's configuration, too.
	Name string `toml:"name" env:"NAME"`
	rskrpc.Config
}

// DefaultConfig returns a Config that lacks the chains only.
func DefaultConfig() Config {
	return Config{
		PollInterval: config.Duration(5 * time.Second),
		WorkLifetime: config.Duration(30 * time.Second),
		RSK:          RSK{Name: "rsk"},
		Kafka:        bus.DefaultConfig(),
	}
}

// Jobs are not made of work older than a minute, so the interval leaves room for a failed call.
const minPollInterval, maxPollInterval = 100 * time.Millisecond, 30 * time.Second

// Names fit into the column chain_name of found_nmc_blocks.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,19}$`)

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var faults config.Faults
	if d := c.PollInterval.Std(); d < minPollInterval || d > maxPollInterval {
		faults.Addf("poll_interval = %q: must be %s to %s", c.PollInterval, minPollInterval, maxPollInterval)
	}
	if c.WorkLifetime < c.PollInterval {
		faults.Addf("work_lifetime = %q: must be at least poll_interval", c.WorkLifetime)
	}
	if c.NotifyListen != "" {
		faults.Listen("notify_listen", c.NotifyListen)
	}
	if len(c.Chains) == 0 && c.RSK.URL == "" {
		faults.Addf("chains: at least one [[chains]] section or rsk.rpc_url is needed")
	}
	if len(c.Chains) > auxwork.MaxChains {
		faults.Addf("chains: %d exceed the limit of %d", len(c.Chains), auxwork.MaxChains)
	}
	names := make(map[string]bool)
	name := func(section, name string) {
		if !validName.MatchString(name) {
			faults.Addf("%s.name = %q: must be 1 to 20 of a-z, 0-9, '_' and '-'", section, name)
		} else if names[name] {
			faults.Addf("%s.name = %q: is taken already", section, name)
		}
		names[name] = true
	}
	for i, chain := range c.Chains {
		section := fmt.Sprintf("chains[%d]", i)
		name(section, chain.Name)
		faults.In(section, chain.Validate())
	}
	if c.RSK.URL != "" {
		name("rsk", c.RSK.Name)
		faults.In("rsk", c.RSK.Validate())
	}
	if len(c.Chains) > 0 && c.Kafka.Topics.AuxWork == "" {
		faults.Addf("kafka.topics.aux_work: must be named for [[chains]]")
	}
	if c.RSK.URL != "" && c.Kafka.Topics.RSKWork == "" {
		faults.Addf("kafka.topics.rsk_work: must be named for [rsk]")
	}
	if c.PublishRPC {
		c.validatePublish(&faults)
	}
	faults.Add(c.Kafka.Validate())
	return faults.Err()
}

// validatePublish holds what publish_rpc would publish against what btcpool's messages can carry: one login, in JSON
// without escapes.
func (c Config) validatePublish(faults *config.Faults) {
	if len(c.Chains) > 1 {
		faults.Addf("publish_rpc: a message has room for the node of one chain only")
	}
	check := func(section, url, user, password, passwordFile string) {
		if passwordFile != "" || strings.ContainsAny(url+user+password, `"\`) {
			faults.Addf(`publish_rpc: %s needs rpc_password, and no quotes or backslashes in address and login`, section)
		}
	}
	for i, chain := range c.Chains {
		if chain.CookieFile != "" {
			faults.Addf("publish_rpc: chains[%d] needs rpc_user instead of rpc_cookie_file", i)
		}
		check(fmt.Sprintf("chains[%d]", i), chain.URL, chain.User, chain.Password, chain.PasswordFile)
	}
	check("rsk", c.RSK.URL, c.RSK.User, c.RSK.Password, c.RSK.PasswordFile)
}
