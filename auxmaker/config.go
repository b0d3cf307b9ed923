package auxmaker

import (
	"errors"
	"fmt"
	"net"
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
	PollInterval config.Duration `toml:"poll_interval" env:"POLL_INTERVAL"` // from one call of a node to the next when nothing happens
	WorkLifetime config.Duration `toml:"work_lifetime" env:"WORK_LIFETIME"` // a chain whose node has not answered for so long is left out
	NotifyListen string          `toml:"notify_listen" env:"NOTIFY_LISTEN"` // host:port of /notify; "" = none
	PublishRPC   bool            `toml:"publish_rpc" env:"PUBLISH_RPC"`     // messages carry address and login of the node instead of its name
	Chains       []Chain         `toml:"chains" envPrefix:"CHAINS_"`
	RSK          RSK             `toml:"rsk" envPrefix:"RSK_"` // without rpc_url: none
	Kafka        bus.Config      `toml:"kafka"`
}

// Chain is an AuxPoW chain and its node.
type Chain struct {
	Name          string `toml:"name" env:"NAME"`                     // of the chain in blkmaker's configuration, too
	PayoutAddress string `toml:"payout_address" env:"PAYOUT_ADDRESS"` // of the chain; "" = the wallet of the node
	noderpc.Config
}

// RSK is the node of RSK.
type RSK struct {
	Name string `toml:"name" env:"NAME"` // in blkmaker's configuration, too
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

// Jobs are not made of work older than a minute, so the interval leaves room
// for a failed call.
const minPollInterval, maxPollInterval = 100 * time.Millisecond, 30 * time.Second

// Names fit into the column chain_name of found_nmc_blocks.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,19}$`)

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	within := func(section string, err error) {
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				fault("%s.%s", section, strings.TrimSpace(line))
			}
		}
	}
	if d := c.PollInterval.Std(); d < minPollInterval || d > maxPollInterval {
		fault("poll_interval = %q: must be %s to %s", c.PollInterval, minPollInterval, maxPollInterval)
	}
	if c.WorkLifetime < c.PollInterval {
		fault("work_lifetime = %q: must be at least poll_interval", c.WorkLifetime)
	}
	if c.NotifyListen != "" {
		if _, _, err := net.SplitHostPort(c.NotifyListen); err != nil {
			fault("notify_listen = %q: must be host:port", c.NotifyListen)
		}
	}
	if len(c.Chains) == 0 && c.RSK.URL == "" {
		fault("chains: at least one [[chains]] section or rsk.rpc_url is needed")
	}
	if len(c.Chains) > auxwork.MaxChains {
		fault("chains: %d exceed the limit of %d", len(c.Chains), auxwork.MaxChains)
	}
	names := make(map[string]bool)
	name := func(section, name string) {
		if !validName.MatchString(name) {
			fault("%s.name = %q: must be 1 to 20 of a-z, 0-9, '_' and '-'", section, name)
		} else if names[name] {
			fault("%s.name = %q: is taken already", section, name)
		}
		names[name] = true
	}
	for i, chain := range c.Chains {
		section := fmt.Sprintf("chains[%d]", i)
		name(section, chain.Name)
		within(section, chain.Validate())
	}
	if c.RSK.URL != "" {
		name("rsk", c.RSK.Name)
		within("rsk", c.RSK.Validate())
	}
	if len(c.Chains) > 0 && c.Kafka.Topics.AuxWork == "" {
		fault("kafka.topics.aux_work: must be named for [[chains]]")
	}
	if c.RSK.URL != "" && c.Kafka.Topics.RSKWork == "" {
		fault("kafka.topics.rsk_work: must be named for [rsk]")
	}
	errs = append(errs, c.validatePublish(), c.Kafka.Validate())
	return errors.Join(errs...)
}

// validatePublish holds what publish_rpc would publish against what btcpool's
// messages can carry: one login, in JSON without escapes.
func (c Config) validatePublish() error {
	if !c.PublishRPC {
		return nil
	}
	var errs []error
	if len(c.Chains) > 1 {
		errs = append(errs, errors.New("publish_rpc: a message has room for the node of one chain only"))
	}
	check := func(section, url, user, password, passwordFile string) {
		if passwordFile != "" || strings.ContainsAny(url+user+password, `"\`) {
			errs = append(errs, fmt.Errorf(`publish_rpc: %s needs rpc_password, and no quotes or backslashes in address and login`, section))
		}
	}
	for i, chain := range c.Chains {
		if chain.CookieFile != "" {
			errs = append(errs, fmt.Errorf("publish_rpc: chains[%d] needs rpc_user instead of rpc_cookie_file", i))
		}
		check(fmt.Sprintf("chains[%d]", i), chain.URL, chain.User, chain.Password, chain.PasswordFile)
	}
	check("rsk", c.RSK.URL, c.RSK.User, c.RSK.Password, c.RSK.PasswordFile)
	return errors.Join(errs...)
}
