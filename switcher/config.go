package switcher

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"btcpool/internal/chainwatch"
	"btcpool/internal/config"
	"btcpool/internal/guard"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/userchain"
)

// Config is the file of switcher.
type Config struct {
	service.Common

	// Listeners are the places where miners connect.
	Listeners []Listener `toml:"listeners"`
	// Status is host:port of the JSON status, which shows no names, and on loopback of /debug/pprof; "": nowhere.
	Status string `toml:"status" env:"STATUS"`
	// ServerID is 1 to 255, no two alike among switchers and servers of a pool: the first byte of every session id. 0:
	// leased from ZooKeeper at LockPath.
	ServerID uint8  `toml:"server_id" env:"SERVER_ID"`
	LockPath string `toml:"zookeeper_lock_path"`
	// DataDir keeps what users mine, for when ZooKeeper is away, and bans.
	DataDir string `toml:"data_dir" env:"DATA_DIR"`
	// MaxConnections is how many miners are served.
	MaxConnections int `toml:"max_connections"`

	Chains []Chain `toml:"chains" envPrefix:"CHAINS_"`
	// DefaultChain is mined by users without a node; "": they are refused. AutoChain is mined by users whose node says
	// auto; "": the default.
	DefaultChain string `toml:"default_chain" env:"DEFAULT_CHAIN"`
	AutoChain    string `toml:"auto_chain" env:"AUTO_CHAIN"`

	// ExtraNonce2Size is that of miners, 2 to 8 bytes. Where a server leaves 4 bytes more, the miner's extranonce1 stays
	// as it is whatever the server says.
	ExtraNonce2Size int `toml:"extranonce2_size"`
	// VersionMask holds the version bits that miners are promised until their server has said which, 8 hex digits.
	VersionMask string `toml:"version_mask"`
	// Reconnect lets a miner be asked to connect again that cannot go over to another extranonce; else it is
	// disconnected.
	Reconnect bool `toml:"reconnect"`

	// Grace is for how long shares for a chain's jobs go there after a switch.
	Grace config.Duration `toml:"grace"`
	// Hold is for how long miners stay whose chain has no server.
	Hold config.Duration `toml:"hold"`
	// AgentSwitchSpread is the time over which farm proxies are disconnected whose user was switched.
	AgentSwitchSpread config.Duration `toml:"agent_switch_spread"`
	// ShutdownGrace is the time over which miners are disconnected when the service stops. 0: all at once.
	ShutdownGrace config.Duration `toml:"shutdown_grace_period"`
	// ProbeInterval is how often each server is looked at.
	ProbeInterval config.Duration `toml:"probe_interval"`

	// DetectTimeout is for the first byte, LoginTimeout for the login, DialTimeout for reaching a server,
	// UpstreamTimeout for logging in there, AnswerTimeout for its answer to a request. WriteTimeout is until a peer that
	// stopped reading is disconnected, IdleTimeout without a request, LongTimeout that of farm proxies and watchers.
	DetectTimeout   config.Duration `toml:"detect_timeout"`
	LoginTimeout    config.Duration `toml:"login_timeout"`
	DialTimeout     config.Duration `toml:"dial_timeout"`
	UpstreamTimeout config.Duration `toml:"upstream_timeout"`
	AnswerTimeout   config.Duration `toml:"answer_timeout"`
	WriteTimeout    config.Duration `toml:"write_timeout"`
	IdleTimeout     config.Duration `toml:"idle_timeout"`
	LongTimeout     config.Duration `toml:"long_timeout"`

	Users     Users           `toml:"users" envPrefix:"USERS_"`
	Limits    guard.Limits    `toml:"limits"`
	ZooKeeper registry.Config `toml:"zookeeper"`
}

// Listener is a place where miners connect.
type Listener struct {
	// Listen is host:port; port 0: any free one.
	Listen string `toml:"listen"`
	// TLSCertFile and TLSKeyFile make it TLS only; they are read again when they change.
	TLSCertFile string `toml:"tls_cert_file"`
	TLSKeyFile  string `toml:"tls_key_file"`
	// ProxyNetworks are those whose connections begin with a PROXY header, version 1 or 2.
	ProxyNetworks []netip.Prefix `toml:"proxy_networks"`
}

// Chain is what miners are switched to.
type Chain struct {
	// Name is that of users' nodes.
	Name string `toml:"name" env:"NAME"`
	// UserSuffix is tried behind a user's name and "_" where the plain name is refused; "": the chain's name.
	UserSuffix string `toml:"user_suffix" env:"USER_SUFFIX"`
	// Cooperative servers give a session the extranonce1 that a subscribe names, as btcpool's do that are built for the
	// switcher.
	Cooperative bool `toml:"cooperative" env:"COOPERATIVE"`
	// Servers are Stratum V1 servers that stand for each other.
	Servers []Server `toml:"servers" envPrefix:"SERVERS_"`
}

// Server is a Stratum V1 server.
type Server struct {
	// Addr is host:port.
	Addr string `toml:"addr" env:"ADDR"`
	// Weight is for which part of the chain's miners it is, as against the other weights. 0: 1.
	Weight float64 `toml:"weight"`
	// TLS encrypts; TLSSkipVerify takes any certificate.
	TLS           bool `toml:"tls"`
	TLSSkipVerify bool `toml:"tls_skip_verify"`
	// ProxyProtocol is the version of the PROXY header that says who the miner is, 1 or 2. 0: none.
	ProxyProtocol int `toml:"proxy_protocol"`
}

// Users says where users are in ZooKeeper, and how names are written.
type Users struct {
	// Chain has a node a user, AutoReg one for each user to be registered, CaseIndex the spelling of each user by its
	// name in lower case. The last two may be "": none.
	Chain     string `toml:"chain" env:"CHAIN"`
	AutoReg   string `toml:"autoreg" env:"AUTOREG"`
	CaseIndex string `toml:"case_index"`
	// CaseInsensitive has names in lower case everywhere.
	CaseInsensitive bool `toml:"case_insensitive"`
	chainwatch.Settings
}

// DefaultConfig returns a configuration that lacks nothing but chains.
func DefaultConfig() Config {
	return Config{
		Listeners:         []Listener{{Listen: "0.0.0.0:3333"}},
		Status:            "127.0.0.1:8084",
		ServerID:          1,
		LockPath:          "/stratumSwitcher/bitcoin_swid",
		DataDir:           "data/switcher",
		MaxConnections:    100_000,
		ExtraNonce2Size:   4,
		VersionMask:       "1fffe000",
		Reconnect:         true,
		Grace:             config.Duration(10 * time.Second),
		Hold:              config.Duration(30 * time.Second),
		AgentSwitchSpread: config.Duration(30 * time.Second),
		ProbeInterval:     config.Duration(10 * time.Second),
		DetectTimeout:     config.Duration(15 * time.Second),
		LoginTimeout:      config.Duration(time.Minute),
		DialTimeout:       config.Duration(5 * time.Second),
		UpstreamTimeout:   config.Duration(10 * time.Second),
		AnswerTimeout:     config.Duration(30 * time.Second),
		WriteTimeout:      config.Duration(30 * time.Second),
		IdleTimeout:       config.Duration(10 * time.Minute),
		LongTimeout:       config.Duration(7 * 24 * time.Hour),
		Users: Users{
			Chain:           "/sserver/userchain/bitcoin",
			CaseInsensitive: true,
			Settings:        chainwatch.DefaultSettings(),
		},
		Limits:    guard.DefaultLimits(),
		ZooKeeper: registry.DefaultConfig(),
	}
}

const rollable = 0x1fffffe0 // BIP 323

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	if len(c.Listeners) == 0 {
		faults.Addf("listeners: must name a place where miners connect")
	}
	for i, l := range c.Listeners {
		faults.In(fmt.Sprintf("listeners[%d]", i), l.validate())
	}
	if c.Status != "" {
		faults.Listen("status", c.Status)
	}
	faults.Folder("data_dir", c.DataDir)
	faults.Number("max_connections", c.MaxConnections, 1, sessionIDs)
	if c.ServerID == 0 {
		if err := registry.ValidatePath(c.LockPath); err != nil {
			faults.Addf("zookeeper_lock_path = %q: %w", c.LockPath, err)
		}
	}
	faults.Add(c.validateChains())
	faults.Number("extranonce2_size", c.ExtraNonce2Size, 2, 8)
	if mask, err := strconv.ParseUint(c.VersionMask, 16, 32); err != nil || len(c.VersionMask) != 8 || mask&^rollable != 0 {
		faults.Addf("version_mask = %q: must be 8 hex digits, with bits of %08x only", c.VersionMask, rollable)
	}
	for _, d := range []struct {
		key   string
		value config.Duration
		least time.Duration
	}{
		{"grace", c.Grace, 0},
		{"hold", c.Hold, time.Second},
		{"agent_switch_spread", c.AgentSwitchSpread, 0},
		{"shutdown_grace_period", c.ShutdownGrace, 0},
		{"probe_interval", c.ProbeInterval, 100 * time.Millisecond},
		{"detect_timeout", c.DetectTimeout, time.Second},
		{"login_timeout", c.LoginTimeout, time.Second},
		{"dial_timeout", c.DialTimeout, 100 * time.Millisecond},
		{"upstream_timeout", c.UpstreamTimeout, 100 * time.Millisecond},
		{"answer_timeout", c.AnswerTimeout, time.Second},
		{"write_timeout", c.WriteTimeout, time.Second},
		{"idle_timeout", c.IdleTimeout, time.Second},
		{"long_timeout", c.LongTimeout, time.Second},
	} {
		faults.AtLeast(d.key, d.value, d.least)
	}
	if limit := c.StopGrace() - stopGrace; c.ShutdownGrace > 0 && c.ShutdownGrace.Std() > limit {
		faults.Addf("shutdown_grace_period = %q: must be at most %s, or stop_timeout = %q longer", c.ShutdownGrace, max(limit, 0), c.StopTimeout)
	}
	faults.In("users", c.Users.validate())
	faults.In("limits", c.Limits.Validate())
	if len(c.ZooKeeper.Servers) == 0 {
		faults.Addf("zookeeper.servers: must name the servers that have users' nodes")
	}
	faults.Add(c.ZooKeeper.Validate())
	return faults.Err()
}

func (l Listener) validate() error {
	var faults config.Faults
	faults.Listen("listen", l.Listen)
	if (l.TLSCertFile == "") != (l.TLSKeyFile == "") {
		faults.Addf("tls_cert_file, tls_key_file: both or none must be set")
	}
	return faults.Err()
}

func (c Config) validateChains() error {
	var faults config.Faults
	if len(c.Chains) == 0 {
		faults.Addf("chains: must name a chain and its servers")
	}
	var names []string
	for i, chain := range c.Chains {
		in := fmt.Sprintf("chains[%d]", i)
		faults.In(in, chain.validate())
		if slices.Contains(names, chain.Name) {
			faults.Addf("%s.name = %q: is another's already", in, chain.Name)
		}
		names = append(names, chain.Name)
	}
	for _, of := range []struct{ key, name string }{{"default_chain", c.DefaultChain}, {"auto_chain", c.AutoChain}} {
		if of.name != "" && !slices.Contains(names, of.name) {
			faults.Addf("%s = %q: is none of the chains", of.key, of.name)
		}
	}
	return faults.Err()
}

const maxWeight = 1e6

func (c Chain) validate() error {
	var faults config.Faults
	faults.Value("name", c.Name, userchain.CheckChain(c.Name))
	if c.Name == userchain.Auto {
		faults.Addf("name = %q: means that the pool chooses", c.Name)
	}
	if c.UserSuffix != "" {
		faults.Value("user_suffix", c.UserSuffix, userchain.CheckUser(c.UserSuffix))
	}
	if len(c.Servers) == 0 {
		faults.Addf("servers: must name a server")
	}
	for i, s := range c.Servers {
		var own config.Faults
		if _, _, err := config.Peer(s.Addr); err != nil {
			own.Value("addr", s.Addr, err)
		}
		if !(s.Weight >= 0 && s.Weight <= maxWeight) {
			own.Addf("weight = %v: must be 0 to %v", s.Weight, maxWeight)
		}
		own.Number("proxy_protocol", s.ProxyProtocol, 0, 2)
		faults.In(fmt.Sprintf("servers[%d]", i), own.Err())
	}
	return faults.Err()
}

func (u Users) validate() error {
	var faults config.Faults
	for _, p := range []struct {
		key, path string
		needed    bool
	}{{"chain", u.Chain, true}, {"autoreg", u.AutoReg, false}, {"case_index", u.CaseIndex, false}} {
		if p.path != "" || p.needed {
			faults.Value(p.key, p.path, registry.ValidatePath(p.path))
		}
	}
	u.Check(&faults)
	return faults.Err()
}

func (c Config) versionMask() uint32 {
	mask, _ := strconv.ParseUint(c.VersionMask, 16, 32) // valid
	return uint32(mask)
}

// snapshot is the file of what users mine.
func (c Config) snapshot() string { return filepath.Join(c.DataDir, "userchain.json") }
