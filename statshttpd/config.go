package statshttpd

import (
	"flag"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/notify"
	"btcpool/internal/service"
	"btcpool/internal/store"
)

// Addresses says what is shown of miners' addresses.
type Addresses string

// What may be shown: nothing, the network (of IPv4 a /24, of IPv6 a /48), or all of an address.
const (
	AddressesNone   Addresses = "none"
	AddressesMasked Addresses = "masked"
	AddressesFull   Addresses = "full"
)

// show is what is shown of ip, empty when that is nothing.
func (a Addresses) show(ip netip.Addr) string {
	ip = ip.Unmap()
	if !ip.IsValid() || a == AddressesNone {
		return ""
	}
	if a == AddressesFull {
		return ip.String()
	}
	size := 24
	if ip.Is6() {
		size = 48
	}
	prefix, err := ip.WithZone("").Prefix(size)
	if err != nil {
		return ""
	}
	return prefix.String()
}

// Config is what statshttpd is configured by.
type Config struct {
	service.Common
	// Listen is the host:port of the dashboard and the API, "127.0.0.1:8080" by default; port 0 is any free one.
	Listen string `toml:"listen" env:"LISTEN" oldenv:"HTTP_LISTEN"`
	// MaxConnections is how many HTTP connections are open at a time; 12000 by default. For one more, the one that waits for
	// a request for the longest is closed.
	MaxConnections int `toml:"max_connections"`
	// StratumURL is where the dashboard tells miners to connect, a list as ParsePlaces reads it; it does not say so when
	// this is empty, the default. Without a host, "stratum+tcp://:3333", it is the host by which the dashboard was
	// reached.
	StratumURL string `toml:"stratum_url" env:"STRATUM_URL"`
	// Network names the chain on the dashboard; it does not say so when this is empty, the default.
	Network string `toml:"network" env:"NETWORK"`
	// FlushDBInterval is the time between two writes of mining_workers, at least 1 s; 15 s by default.
	FlushDBInterval config.Duration `toml:"flush_db_interval"`
	// MaxWorkers is how many workers with a share in the last hour are kept in memory, about 3 KB each, how many that
	// wait for their first share, and how many past events are read; 100000 by default.
	MaxWorkers int `toml:"max_workers"`
	// WorkersRetention is how long mining_workers keeps the row of a worker that has no more shares; 0: for ever; 90
	// days by default. Rows without any share go after a day, whatever it is.
	WorkersRetention config.Duration `toml:"workers_retention"`
	// UpdateWorkerName writes names of workers and their software to mining_workers, the default; btcpool's worker_update
	// does it otherwise.
	UpdateWorkerName bool `toml:"update_worker_name"`
	// FileLastFlushTime is a file that holds the unix time of the last complete flush, unless it is empty, the default.
	FileLastFlushTime string `toml:"file_last_flush_time"`
	// CheckpointFile keeps what is counted, so that a start need not count an hour of shares; none by default.
	CheckpointFile string `toml:"checkpoint_file" env:"CHECKPOINT_FILE"`
	// CheckpointInterval is the time between two writes of CheckpointFile, 1 s to 30 minutes; 5 minutes by default.
	CheckpointInterval config.Duration `toml:"checkpoint_interval"`
	// AcceptStale has shares that were accepted though late count as accepted, instead of stale; false by default.
	AcceptStale bool `toml:"accept_stale"`
	// SingleUserPUID is the user that all miners of other pools stand behind: only its shares and events count, each for
	// the external user that it names. 0 by default: there is none.
	SingleUserPUID int32 `toml:"single_user_puid"`
	// Addresses says what the API shows of miners' addresses: "masked", the default, "full" or "none".
	Addresses Addresses `toml:"addresses"`
	// CORSOrigins are the origins whose pages may read the API from a browser, as "https://example.org"; "*": all; none by
	// default.
	CORSOrigins []string `toml:"cors_origins"`
	// GroupSeparators are the characters the first of which ends the name of a worker's group, "._-" by default; empty:
	// there are no groups.
	GroupSeparators string `toml:"group_separators"`
	// Shapes are APIs of other pools that are answered too, at their paths: all of Shapes by default.
	Shapes []Shape `toml:"shapes"`
	// PoolID is what this pool is called where other pools' APIs have several, up to 32 letters, digits, - and _; "btc" by
	// default.
	PoolID string `toml:"pool_id"`
	// MaxEventClients is how many may listen to events at once; 10000 by default. An eighth of MaxConnections is left to
	// others.
	MaxEventClients int `toml:"max_event_clients"`
	// WebDir is a folder whose files are the dashboard instead of the built-in ones, unless it is empty, the default.
	WebDir string `toml:"web_dir"`
	// Dashboard has the pool's name, logo, colours, texts and links.
	Dashboard Dashboard `toml:"dashboard" envPrefix:"DASHBOARD_"`

	Kafka    bus.Config   `toml:"kafka"`
	Database store.Config `toml:"database"`
	// StatisticsDatabase has the tables that slparser writes, and stats_minutes, when Database has not.
	StatisticsDatabase store.Config `toml:"statistics_database" envPrefix:"STATISTICS_"`
	// Redis is where what mining_workers holds is written too; nowhere by default.
	Redis RedisConfig `toml:"redis" envPrefix:"REDIS_"`
	// Notify says who is told of what happens; nobody by default.
	Notify notify.Config `toml:"notify" envPrefix:"NOTIFY_"`

	// NotifyTest has a message sent to each target, and nothing else done.
	NotifyTest bool `toml:"-"`
}

// Flags adds the flag of the mode that does one thing and exits.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.BoolVar(&c.NotifyTest, "notify-test", c.NotifyTest, "send a test message to each target of [notify], and exit")
}

// Base leaves the admin address to the statshttpd that runs.
func (c Config) Base() service.Common {
	if c.NotifyTest {
		c.Admin = ""
	}
	return c.Common
}

// DefaultConfig returns what holds for keys that are not set. The database has no default.
func DefaultConfig() Config {
	return Config{
		Listen:             "127.0.0.1:8080",
		MaxConnections:     12_000,
		FlushDBInterval:    config.Duration(15 * time.Second),
		MaxWorkers:         100_000,
		CheckpointInterval: config.Duration(5 * time.Minute),
		UpdateWorkerName:   true,
		Addresses:          AddressesMasked,
		MaxEventClients:    10_000,
		CORSOrigins:        []string{},
		Dashboard:          Dashboard{Links: []Link{}, Explorers: map[string]string{}},
		GroupSeparators:    "._-",
		Shapes:             Shapes(),
		PoolID:             "btc",
		WorkersRetention:   config.Duration(90 * 24 * time.Hour),
		Kafka:              bus.DefaultConfig(),
		Redis:              RedisConfig{Publish: []string{}, Indexes: []string{}},
		Notify:             notify.DefaultConfig(),
	}
}

var poolID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Listen("listen", c.Listen)
	faults.Number("max_connections", c.MaxConnections, 1, 1<<20)
	if _, err := ParsePlaces(c.StratumURL); err != nil {
		faults.Addf("stratum_url: %w", err)
	}
	faults.AtLeast("flush_db_interval", c.FlushDBInterval, time.Second)
	if i := c.CheckpointInterval.Std(); i < time.Second || i > longestCheckpoint {
		faults.Addf("checkpoint_interval = %q: must be 1s to %s", c.CheckpointInterval, config.Duration(longestCheckpoint))
	}
	if c.WorkersRetention != 0 {
		faults.AtLeast("workers_retention", c.WorkersRetention, 2*time.Hour)
	}
	faults.Number("max_workers", c.MaxWorkers, 1, 10_000_000)
	faults.NotNegative("single_user_puid", int64(c.SingleUserPUID))
	if c.ownStatistics() {
		if err := c.StatisticsDatabase.Validate(); err != nil {
			faults.Addf("statistics_%w", err)
		}
	}
	faults.Number("max_event_clients", c.MaxEventClients, 0, 1<<20)
	if !slices.Contains([]Addresses{AddressesMasked, AddressesFull, AddressesNone}, c.Addresses) {
		faults.Addf("addresses = %q: must be masked, full or none", string(c.Addresses))
	}
	for _, shape := range c.Shapes {
		if !slices.Contains(Shapes(), shape) {
			faults.Addf("shapes: %q must be one of %q", string(shape), Shapes())
		}
	}
	if !poolID.MatchString(c.PoolID) {
		faults.Addf("pool_id = %q: must be 1 to 32 letters, digits, - and _", c.PoolID)
	}
	for _, origin := range c.CORSOrigins {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || origin != u.Scheme+"://"+u.Host || u.Host == "") {
			faults.Addf("cors_origins: %q must be like https://example.org, or *", config.RedactURL(origin))
		}
	}
	faults.Add(c.Kafka.Validate())
	faults.Add(c.Database.Validate())
	faults.Add(c.Redis.Validate())
	faults.In("dashboard", c.Dashboard.Validate())
	faults.In("notify", c.Notify.Validate())
	return faults.Err()
}

// ownStatistics tells whether the statistics have a database of their own.
func (c Config) ownStatistics() bool { return c.StatisticsDatabase != store.Config{} }
