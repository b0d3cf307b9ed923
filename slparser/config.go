package slparser

import (
	"flag"
	"iter"
	"strings"
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
	// AcceptStale has shares that were accepted though late count as accepted, instead of stale; false by default.
	AcceptStale bool `toml:"accept_stale"`
	// SingleUserPUID is the user that all miners of other pools stand behind: only its shares count, each for the external
	// user that it names. 0 by default: there is none.
	SingleUserPUID int32        `toml:"single_user_puid"`
	Earnings       Earnings     `toml:"earnings"`
	KeepDays       KeepDays     `toml:"keep_days"`
	Database       store.Config `toml:"database"`

	// Day, unless it is 0, has only the statistics of the days from it to LastDay computed anew, or their shares printed.
	// A LastDay of 0 is Day itself.
	Day, LastDay sharefile.Day `toml:"-"`
	// Force has statistics computed anew even if that takes away from them, or a file is damaged.
	Force bool `toml:"-"`
	// Print, if it names a user, has shares printed.
	Print Print `toml:"-"`
}

// KeepDays says for how many days statistics stay, 90 by default; all others stay for ever.
type KeepDays struct {
	WorkersHour int `toml:"workers_hour"`
	WorkersDay  int `toml:"workers_day"`
	UsersHour   int `toml:"users_hour"`
}

// Validate reports all faults.
func (k KeepDays) Validate() error {
	var faults config.Faults
	faults.Number("workers_hour", k.WorkersHour, 1, mostDays)
	faults.Number("workers_day", k.WorkersDay, 1, mostDays)
	faults.Number("users_hour", k.UsersHour, 1, mostDays)
	return faults.Err()
}

const mostDays = 36_500

func (k KeepDays) keep() store.Keep {
	return store.Keep{WorkerHours: k.WorkersHour, WorkerDays: k.WorkersDay, UserHours: k.UsersHour}
}

// days are Day to LastDay.
func (c *Config) days() iter.Seq[sharefile.Day] {
	return func(yield func(sharefile.Day) bool) {
		for day := c.Day; day <= max(c.Day, c.LastDay); day = day.Next() {
			if !yield(day) {
				return
			}
		}
	}
}

func (c *Config) rules(network bitcoin.Network) rules {
	return rules{network: network, earnings: c.Earnings, acceptStale: c.AcceptStale, singleUser: c.SingleUserPUID}
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
		KeepDays:        KeepDays{WorkersHour: 90, WorkersDay: 90, UsersHour: 90},
	}
}

// Flags adds the flags of the modes that do one thing and exit.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.Func("d", "compute the statistics of the `day` YYYYMMDD, or of days YYYYMMDD-YYYYMMDD, anew and exit", func(text string) (err error) {
		first, last, _ := strings.Cut(text, "-")
		if c.Day, err = sharefile.ParseDay(first); err != nil || last == "" {
			return err
		}
		c.LastDay, err = sharefile.ParseDay(last)
		return err
	})
	flags.BoolVar(&c.Force, "force", false, "with -d: also when a file is damaged, or has less than the database")
	flags.StringVar(&c.Print.User, "u", "", "with -d: print the shares of this `user`, an id or a name (0: of all), instead")
	flags.StringVar(&c.Print.Format, "format", "", "with -u: "+formatNames()+" (default text)")
	flags.StringVar(&c.Print.Worker, "worker", "", "with -u: only of this worker: a `name`, a pattern with * and ?, or id=NUMBER")
	flags.StringVar(&c.Print.Status, "status", "", "with -u: only of these `statuses`: numbers, accepted, stale, rejected, with commas")
	flags.StringVar(&c.Print.From, "from", "", "with -u: only from this `time` on: RFC 3339, or HH:MM[:SS] UTC of each day")
	flags.StringVar(&c.Print.To, "to", "", "with -u: only before this `time`")
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
	faults.NotNegative("single_user_puid", int64(c.SingleUserPUID))
	faults.In("earnings", c.Earnings.Validate())
	faults.In("keep_days", c.KeepDays.Validate())
	if c.Print.asked() && c.Day == 0 {
		faults.Addf("-u: needs -d")
	}
	if c.Force && c.Day == 0 {
		faults.Addf("-force: needs -d")
	}
	if c.LastDay != 0 && c.LastDay < c.Day {
		faults.Addf("-d: %d is before %d", c.LastDay, c.Day)
	}
	if c.Print.asked() {
		_, err := c.Print.parse()
		faults.Add(err)
	} else {
		for flag, value := range c.Print.flags() {
			if value != "" {
				faults.Addf("%s: needs -u", flag)
			}
		}
	}
	if !c.Print.asked() || c.Print.needsDatabase() {
		faults.Add(c.Database.Validate())
	}
	return faults.Err()
}
