package statshttpd

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// Config is what statshttpd is configured by.
type Config struct {
	service.Common
	Listen          string          `toml:"listen" env:"HTTP_LISTEN"`      // host:port of the dashboard and the API; port 0: any free one
	StratumURL      string          `toml:"stratum_url" env:"STRATUM_URL"` // where the dashboard tells miners to connect; empty: it does not say
	FlushDBInterval config.Duration `toml:"flush_db_interval"`             // between two writes of mining_workers, at least 1s
	MaxWorkers      int             `toml:"max_workers"`                   // kept in memory, about 5 KB each; also how many names and past events are read
	WebDir          string          `toml:"web_dir"`                       // serve the dashboard's files from this folder instead of the built-in ones
	Kafka           bus.Config      `toml:"kafka"`
	Database        store.Config    `toml:"database"`
}

// DefaultConfig returns what holds for keys that are not set. The database has no default.
func DefaultConfig() Config {
	return Config{
		Listen:          "127.0.0.1:8080",
		FlushDBInterval: config.Duration(15 * time.Second),
		MaxWorkers:      100_000,
		Kafka:           bus.DefaultConfig(),
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen = %q: must be host:port", c.Listen))
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		errs = append(errs, fmt.Errorf("listen = %q: port must be 0 to 65535", c.Listen))
	}
	if c.StratumURL != "" {
		if u, err := url.Parse(c.StratumURL); err != nil || u.Host == "" {
			errs = append(errs, fmt.Errorf("stratum_url = %q: must be like stratum+tcp://host:port", c.StratumURL))
		}
	}
	if c.FlushDBInterval.Std() < time.Second {
		errs = append(errs, fmt.Errorf("flush_db_interval = %q: must be at least 1s", c.FlushDBInterval))
	}
	if c.MaxWorkers < 1 || c.MaxWorkers > 10_000_000 {
		errs = append(errs, fmt.Errorf("max_workers = %d: must be 1 to 10000000", c.MaxWorkers))
	}
	return errors.Join(append(errs, c.Kafka.Validate(), c.Database.Validate())...)
}
