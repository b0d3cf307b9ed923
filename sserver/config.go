package sserver

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/chainwatch"
	"btcpool/internal/config"
	"btcpool/internal/guard"
	"btcpool/internal/handover"
	"btcpool/internal/job"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/internal/users"
	"btcpool/sserver/operator"
)

// Config is the file of sserver. Difficulties are decimal numbers, rounded up to a power of two; below 1 is allowed. Of
// what a Listener has too, this is what listeners have without a value of their own.
type Config struct {
	service.Common

	// Listen is host:port for miners; port 0: any free one; "": Listeners only.
	Listen string `toml:"listen" env:"LISTEN" oldenv:"SSERVER_LISTEN"`
	// Listeners are more places where miners connect.
	Listeners []Listener `toml:"listeners"`
	// Chains are mined here side by side, of one proof of work. None: one chain, as the rest of the file says.
	Chains []Chain `toml:"chains" envPrefix:"CHAINS_"`
	// DefaultChain is mined by users who have not chosen one. "": the first.
	DefaultChain string `toml:"default_chain"`
	// ServerID is 1 to 255, no two alike in a pool: the first byte of every extranonce1. 0: leased from ZooKeeper at
	// LockPath.
	ServerID uint8  `toml:"server_id" env:"SERVER_ID" oldenv:"SSERVER_ID"`
	LockPath string `toml:"zookeeper_lock_path"`

	// DataDir is the folder of spools, bans and the users' snapshot.
	DataDir string `toml:"data_dir" env:"DATA_DIR" oldenv:"SSERVER_DATA_DIR"`
	// SpoolMaxBytes bounds the shares that are kept while Kafka is away, and SpoolMaxAge the time for which the oldest
	// waits; miners get errors beyond. 0: 4 GiB, and any time.
	SpoolMaxBytes int64           `toml:"spool_max_bytes"`
	SpoolMaxAge   config.Duration `toml:"spool_max_age"`
	// MaxConnections is how many are served; further ones are closed at once.
	MaxConnections int `toml:"max_connections"`
	// MaxAgentMiners is how many are served behind all agents.
	MaxAgentMiners int `toml:"max_agent_miners"`

	// DefaultDifficulty is that of miners who wish for none; 0: by the network of Users, for processors on regtest and
	// for ASICs elsewhere.
	DefaultDifficulty float64 `toml:"default_difficulty"`
	MinDifficulty     float64 `toml:"min_difficulty"`
	MaxDifficulty     float64 `toml:"max_difficulty"`
	// ShareInterval is the wanted time between the shares of a miner, and DiffAdjustPeriod how far back shares count
	// for its difficulty.
	ShareInterval    config.Duration `toml:"share_interval"`
	DiffAdjustPeriod config.Duration `toml:"diff_adjust_period"`
	// HashrateLevels has fast miners send shares more often: from 16 TH/s on, up to 6 times as often from 512 TH/s on.
	HashrateLevels bool `toml:"hashrate_levels"`
	// VersionMask holds the version bits that miners may roll, 8 hex digits.
	VersionMask string `toml:"version_mask"`
	// NonceBytes is the size of extranonce2, 4 to 8 bytes; agents always have 8.
	NonceBytes int `toml:"extranonce2_size"`
	// GrandPool serves clients with a pool of their own, who get more of the extranonce: jobmaker's grand_pool makes
	// room for it.
	GrandPool bool `toml:"grand_pool"`

	// MaxJobDelay is how old a job may be when it arrives; MaxJobLifetime is for how long shares of a job are taken.
	MaxJobDelay    config.Duration `toml:"max_job_delay"`
	MaxJobLifetime config.Duration `toml:"max_job_lifetime"`
	// MiningNotifyInterval is after what time without a job the latest is sent again.
	MiningNotifyInterval config.Duration `toml:"mining_notify_interval"`
	// StaleGrace is for how long shares of the block before are credited after a new one. 0: not at all.
	StaleGrace config.Duration `toml:"stale_grace"`

	// LoginTimeout is from connecting to being authorized, TCPReadTimeout without a request after that, WriteTimeout
	// until a miner that stopped reading is disconnected.
	LoginTimeout   config.Duration `toml:"login_timeout"`
	TCPReadTimeout config.Duration `toml:"tcp_read_timeout"`
	WriteTimeout   config.Duration `toml:"tcp_write_timeout"`
	// LongTimeout is in place of TCPReadTimeout for agents, and for miners in whose user agent the regular expression
	// LongAgents is found, upper and lower case the same. "": no others.
	LongTimeout config.Duration `toml:"long_timeout"`
	LongAgents  string          `toml:"long_timeout_agent"`

	NiceHash    NiceHash                `toml:"nicehash"`
	SubPool     SubPool                 `toml:"sub_pool"`
	SingleUser  SingleUser              `toml:"single_user"`
	Drain       Drain                   `toml:"drain"`
	Development Development             `toml:"development"`
	Limits      guard.Limits            `toml:"limits"`
	Handover    handover.Config         `toml:"handover"`
	Users       users.Config            `toml:"users"`
	Kafka       bus.Config              `toml:"kafka"`
	Database    store.Config            `toml:"database"`
	AdminAPI    operator.APIConfig      `toml:"admin_api" envPrefix:"ADMIN_API_"`
	Management  operator.CommandsConfig `toml:"management"`
	ZooKeeper   registry.Config         `toml:"zookeeper"`
	UserChain   UserChain               `toml:"user_chain"`
}

// Development is for trying a pool out. Neither belongs where people mine.
type Development struct {
	// Simulator takes shares of any difficulty.
	Simulator bool `toml:"simulator"`
	// SubmitInvalidBlocks has each share handed over as a block of every chain.
	SubmitInvalidBlocks bool `toml:"submit_invalid_blocks"`
}

// NiceHash says what difficulty its buyers' miners do not fall below.
type NiceHash struct {
	// MinDifficulty of 0 is as all others'.
	MinDifficulty float64 `toml:"min_difficulty"`
	// Forced is for all miners.
	Forced bool `toml:"forced"`
}

func (n NiceHash) validate() error {
	if d := n.MinDifficulty; !(d >= 0 && d <= bitcoin.MaxDifficulty.Float()) {
		return fmt.Errorf("min_difficulty = %v: must be 0 to 2^%d", d, bitcoin.MaxDifficulty)
	}
	return nil
}

const minNotifyInterval = time.Second

// DefaultConfig returns btcpool's customary values.
func DefaultConfig() Config {
	return Config{
		Listen:               "0.0.0.0:3333",
		ServerID:             1,
		DataDir:              "data/sserver",
		MaxConnections:       100_000,
		MaxAgentMiners:       1_000_000,
		MinDifficulty:        0.00001,
		MaxDifficulty:        bitcoin.MaxDifficulty.Float(),
		ShareInterval:        config.Duration(10 * time.Second),
		DiffAdjustPeriod:     config.Duration(15 * time.Minute),
		HashrateLevels:       true,
		VersionMask:          "1fffe000",
		NonceBytes:           job.Extranonce2Size,
		MaxJobDelay:          config.Duration(time.Minute),
		MaxJobLifetime:       config.Duration(5 * time.Minute),
		MiningNotifyInterval: config.Duration(30 * time.Second),
		LoginTimeout:         config.Duration(15 * time.Second),
		TCPReadTimeout:       config.Duration(10 * time.Minute),
		WriteTimeout:         config.Duration(20 * time.Second),
		LongTimeout:          config.Duration(7 * 24 * time.Hour),
		LongAgents:           "^nicehash/|^__PoolWatcher__$",
		NiceHash:             NiceHash{MinDifficulty: 524288},
		Limits:               guard.DefaultLimits(),
		Users:                users.DefaultConfig(),
		Kafka:                bus.DefaultConfig(),
		Management:           operator.DefaultCommands(),
		ZooKeeper:            registry.DefaultConfig(),
		UserChain:            UserChain{Settings: chainwatch.DefaultSettings()},
		LockPath:             "/locks/sserver_btc", // as btcpool has it: both may share ids
	}
}

// rollable are the bits of the version that miners may have (BIP 323). Bits 29 to 31 say how the others are to be read.
const rollable = 0x1fffffe0

// UsersDatabase is where users are: if none is named, a file of sserver's own.
func (c Config) UsersDatabase() store.Config {
	if c.Database == (store.Config{}) {
		return store.Config{DSN: "sqlite:data/btcpool.db"}
	}
	return c.Database
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Add(c.Kafka.Validate())
	places := c.places()
	if len(places) == 0 {
		faults.Addf(`listen = "": must be host:port, as there are no listeners`)
	}
	for i, l := range places {
		if own := i - (len(places) - len(c.Listeners)); own >= 0 {
			faults.In(fmt.Sprintf("listeners[%d]", own), l.validate())
		} else {
			faults.Add(l.validate())
		}
	}
	faults.Add(c.validateUsers())
	faults.Add(c.Handover.Validate())
	faults.In("drain", c.Drain.validate(c.StopGrace()))
	faults.In("limits", c.Limits.Validate())
	faults.Add(c.validateID())
	faults.In("admin_api", c.AdminAPI.Validate())
	faults.In("management", c.Management.Validate(c.Kafka.Topics))
	_, err := c.longAgents()
	faults.Value("long_timeout_agent", c.LongAgents, err)
	faults.In("nicehash", c.NiceHash.validate())
	faults.In("sub_pool", c.SubPool.validate())
	faults.In("single_user", c.SingleUser.validate())
	if !c.several() {
		faults.Add(c.SingleUser.validatePUID("single_user.puid"))
	}
	faults.Add(c.validateChains())
	faults.In("user_chain", c.validateUserChain())
	faults.NotNegative("max_agent_miners", int64(c.MaxAgentMiners))
	faults.Folder("data_dir", c.DataDir)
	faults.AtLeast("spool_max_age", c.SpoolMaxAge, 0)
	faults.NotNegative("spool_max_bytes", c.SpoolMaxBytes)
	faults.Number("max_connections", c.MaxConnections, 1, sessionIDs)
	if mask, err := strconv.ParseUint(c.VersionMask, 16, 32); err != nil || len(c.VersionMask) != 8 {
		faults.Addf("version_mask = %q: must be 8 hex digits", c.VersionMask)
	} else if mask&^rollable != 0 {
		faults.Addf("version_mask = %q: may hold bits of %08x only: nodes refuse blocks without the others", c.VersionMask, rollable)
	}
	faults.AtLeast("share_interval", c.ShareInterval, time.Second)
	faults.AtLeast("max_job_delay", c.MaxJobDelay, time.Second)
	faults.AtLeast("max_job_lifetime", c.MaxJobLifetime, time.Second)
	faults.AtLeast("mining_notify_interval", c.MiningNotifyInterval, minNotifyInterval)
	faults.AtLeast("login_timeout", c.LoginTimeout, time.Second)
	faults.AtLeast("tcp_read_timeout", c.TCPReadTimeout, time.Second)
	faults.AtLeast("tcp_write_timeout", c.WriteTimeout, time.Second)
	faults.AtLeast("long_timeout", c.LongTimeout, time.Second)
	if c.StaleGrace < 0 || c.StaleGrace > c.MaxJobDelay {
		faults.Addf("stale_grace = %q: must be 0s to max_job_delay = %q", c.StaleGrace, c.MaxJobDelay)
	}
	if c.DiffAdjustPeriod < 10*c.ShareInterval {
		faults.Addf("diff_adjust_period = %q: must be at least 10 times share_interval = %q", c.DiffAdjustPeriod, c.ShareInterval)
	}
	if c.MaxJobLifetime < c.MaxJobDelay {
		faults.Addf("max_job_lifetime = %q: must be at least max_job_delay = %q", c.MaxJobLifetime, c.MaxJobDelay)
	}
	return faults.Err()
}

// validateUsers reports all faults of [users] and of what listeners have instead.
func (c Config) validateUsers() error {
	var faults config.Faults
	for i, l := range c.Listeners {
		if l.Users != nil {
			faults.In(fmt.Sprintf("listeners[%d].users", i), l.Users.Validate())
		}
	}
	faults.In("users", c.Users.Validate(c.sources()...))
	if c.NeedsDatabase() {
		faults.Add(c.UsersDatabase().Validate())
	}
	return faults.Err()
}

// NeedsNetwork reports whether names are addresses of users.network.
func (c Config) NeedsNetwork() bool {
	return c.anyUsers(func(s users.Source) bool { return s.Kind == users.Address })
}

// NeedsDatabase reports whether users are rows of the database.
func (c Config) NeedsDatabase() bool { return c.anyUsers(users.Source.InDatabase) }

func (c Config) anyUsers(are func(users.Source) bool) bool {
	return slices.ContainsFunc(c.sources(), are)
}

// sources are all sources of users that there are.
func (c Config) sources() (all []users.Source) {
	for _, one := range c.PerChain() {
		all = append(all, one.Users.Source)
	}
	for _, l := range c.Listeners {
		if l.Users != nil {
			all = append(all, *l.Users)
		}
	}
	return all
}

// longAgents returns nil when there is no expression.
func (c Config) longAgents() (*regexp.Regexp, error) {
	if c.LongAgents == "" {
		return nil, nil
	}
	return regexp.Compile("(?i)" + c.LongAgents)
}

// versionMask is that of a valid Config.
func (c Config) versionMask() uint32 {
	mask, _ := strconv.ParseUint(c.VersionMask, 16, 32)
	return uint32(mask)
}
