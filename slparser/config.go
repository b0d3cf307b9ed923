package slparser

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strconv"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/sharefile"
	"btcpool/internal/store"
)

// Config is what slparser is configured by.
type Config struct {
	service.Common
	Network         string          `toml:"network" env:"NETWORK"`        // whose subsidies are counted
	DataDir         string          `toml:"data_dir" env:"SHARELOG_DIR"`  // of sharelogger's files
	Chain           string          `toml:"chain"`                        // part of the files' names
	Listen          string          `toml:"listen" env:"SLPARSER_LISTEN"` // host:port of the HTTP answers; port 0: any free one
	FlushDBInterval config.Duration `toml:"flush_db_interval"`            // between two writes of what changed
	LateShares      config.Duration `toml:"late_shares"`                  // how long after midnight yesterday's file is still read
	Database        store.Config    `toml:"database"`

	Day  sharefile.Day `toml:"-"` // only compute this day's statistics anew, or print its shares; 0: serve
	User *int32        `toml:"-"` // only print Day's shares of this user; 0: of all
}

// DefaultConfig returns what holds for keys that are not set. The database has no default.
func DefaultConfig() Config {
	return Config{
		Network:         "mainnet",
		DataDir:         "sharelog",
		Chain:           "BTC",
		Listen:          "127.0.0.1:8081",
		FlushDBInterval: config.Duration(15 * time.Second),
		LateShares:      config.Duration(time.Hour),
	}
}

// Flags adds the flags of the modes that do one thing and exit.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.Func("d", "compute the statistics of the `day` YYYYMMDD anew and exit", func(text string) (err error) {
		c.Day, err = sharefile.ParseDay(text)
		return err
	})
	flags.Func("u", "with -d: print the shares of this `user` id (0: of all) instead", func(text string) error {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil || id < 0 {
			return fmt.Errorf("%q is no user id", text)
		}
		user := int32(id)
		c.User = &user
		return nil
	})
}

// Base leaves the admin address to the slparser that serves.
func (c Config) Base() service.Common {
	if c.Day != 0 {
		c.Admin = ""
	}
	return c.Common
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	if _, err := bitcoin.NetworkByName(c.Network); err != nil {
		errs = append(errs, fmt.Errorf("network = %q: %w", c.Network, err))
	}
	if c.DataDir == "" {
		errs = append(errs, errors.New("data_dir: must be set"))
	}
	if err := sharefile.CheckChain(c.Chain); err != nil {
		errs = append(errs, fmt.Errorf("chain = %q: %w", c.Chain, err))
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen = %q: must be host:port", c.Listen))
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		errs = append(errs, fmt.Errorf("listen = %q: port must be 0 to 65535", c.Listen))
	}
	if d := c.FlushDBInterval.Std(); d < 10*time.Millisecond || d > time.Hour {
		errs = append(errs, fmt.Errorf("flush_db_interval = %q: must be 10ms to 1h", c.FlushDBInterval))
	}
	if d := c.LateShares.Std(); d < 0 || d > 24*time.Hour {
		errs = append(errs, fmt.Errorf("late_shares = %q: must be 0s to 24h", c.LateShares))
	}
	if c.User != nil && c.Day == 0 {
		errs = append(errs, errors.New("-u: needs -d"))
	}
	if c.User == nil {
		errs = append(errs, c.Database.Validate())
	}
	return errors.Join(errs...)
}
