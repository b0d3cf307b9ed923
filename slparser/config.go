package slparser

import (
	"flag"
	"fmt"
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
	// Network is the one whose subsidies are counted as earned; "mainnet" by default.
	Network string `toml:"network" env:"NETWORK"`
	// DataDir and Chain say which files of sharelogger are read; "sharelog" and "BTC" by default.
	DataDir string `toml:"data_dir" env:"DATA_DIR" oldenv:"SHARELOG_DIR"`
	Chain   string `toml:"chain"`
	// Listen is the host:port of the HTTP answers, "127.0.0.1:8081" by default; port 0 is any free one.
	Listen string `toml:"listen" env:"LISTEN" oldenv:"SLPARSER_LISTEN"`
	// FlushDBInterval is the time between two writes of what changed; 15 s by default.
	FlushDBInterval config.Duration `toml:"flush_db_interval"`
	// LateShares is how long a past day is kept in memory after its file has grown; 1 h by default. When the file grows
	// later, it is read from its beginning again.
	LateShares config.Duration `toml:"late_shares"`
	Database   store.Config    `toml:"database"`

	// Day, unless it is 0, has only this day's statistics computed anew, or its shares printed.
	Day sharefile.Day `toml:"-"`
	// Force has Day's statistics computed anew even if that takes away from them, or the file is damaged.
	Force bool `toml:"-"`
	// User, unless it is nil, has only Day's shares of this user printed; 0 means of all users.
	User *int32 `toml:"-"`
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
	flags.BoolVar(&c.Force, "force", false, "with -d: also when the file is damaged, or has less than the database")
	flags.Func("u", "with -d: print the shares of this `user` id (0: of all) instead", func(text string) error {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil || id < 0 {
			return fmt.Errorf("%q is no user id", text)
		}
		c.User = new(int32(id))
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
	var faults config.Faults
	_, err := bitcoin.NetworkByName(c.Network)
	faults.Value("network", c.Network, err)
	faults.Folder("data_dir", c.DataDir)
	faults.Value("chain", c.Chain, sharefile.CheckChain(c.Chain))
	faults.Listen("listen", c.Listen)
	if d := c.FlushDBInterval.Std(); d < 10*time.Millisecond || d > time.Hour {
		faults.Addf("flush_db_interval = %q: must be 10ms to 1h", c.FlushDBInterval)
	}
	if d := c.LateShares.Std(); d < 0 || d > 24*time.Hour {
		faults.Addf("late_shares = %q: must be 0s to 24h", c.LateShares)
	}
	if c.User != nil && c.Day == 0 {
		faults.Addf("-u: needs -d")
	}
	if c.Force && c.Day == 0 {
		faults.Addf("-force: needs -d")
	}
	if c.User == nil {
		faults.Add(c.Database.Validate())
	}
	return faults.Err()
}
