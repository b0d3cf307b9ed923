package agentproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
	"btcpool/internal/service"
)

// Config is the file of agentproxy. BTCAgent's own is read by FromBTCAgent.
type Config struct {
	service.Common

	// Listeners are the places where miners connect.
	Listeners []Listener `toml:"listeners"`
	// Allow are the networks miners may connect from; none: all.
	Allow []netip.Prefix `toml:"allow"`
	// MaxConnections is how many are served, miners or not; 65,535 of them can mine.
	MaxConnections int `toml:"max_connections"`
	// Page is host:port of the status page and its API, which show names and addresses of machines to whoever can
	// reach them; "" for nowhere.
	Page string `toml:"page" env:"AGENTPROXY_PAGE" reload:"no"`

	// Pools are in the order of preference. Where the first cannot be reached the next is used, until the first can be
	// again.
	Pools []Pool `toml:"pools"`
	// MultiUser mines for the account that is the part before the dot of each miner's name; else all mine for the
	// account of the pool that is used.
	MultiUser bool `toml:"multi_user" reload:"no"`
	// Links is how many connections to the pool an account has.
	Links int `toml:"links"`
	// PoolVerdicts has miners wait for the pool's verdict on each share; else they are told at once that it is good.
	PoolVerdicts bool `toml:"pool_verdicts"`
	// Hold is for how long shares wait for others to travel with.
	Hold config.Duration `toml:"hold"`

	// CheckShares has shares that no pool would take answered here; a block goes to the pool without a wait.
	CheckShares bool    `toml:"check_shares"`
	Vardiff     Vardiff `toml:"vardiff"`

	// KeepMiners has miners stay, with work that cannot be used, however long no pool can be reached; StandInInterval
	// is how often they get some. Else they are sent away after Patience, so that they go to the next pool of their own.
	KeepMiners      bool            `toml:"keep_miners"`
	StandInInterval config.Duration `toml:"stand_in_interval"`
	Patience        config.Duration `toml:"patience"`

	// SilentAfter is after what time without a share, and 20 times that between its shares, a machine is said to be silent,
	// and after what time one that has left is said to be gone. 0: never.
	SilentAfter config.Duration `toml:"silent_after"`

	Workers Workers `toml:"workers"`
	// ReconnectLostASICBoost asks a miner to connect again that has stopped rolling version bits.
	ReconnectLostASICBoost bool `toml:"reconnect_lost_asicboost"`

	// DialTimeout is for reaching a pool and logging in, ReadTimeout after what silence a link is over, WriteTimeout
	// until a miner that stopped reading is disconnected, LoginTimeout from a miner's connecting to its login, and
	// ReturnInterval how often a preferred pool is tried again.
	DialTimeout    config.Duration `toml:"dial_timeout"`
	ReadTimeout    config.Duration `toml:"read_timeout"`
	WriteTimeout   config.Duration `toml:"write_timeout"`
	LoginTimeout   config.Duration `toml:"login_timeout"`
	ReturnInterval config.Duration `toml:"return_interval"`

	Proxy Proxy `toml:"proxy"`
}

// Listener is a place where miners connect.
type Listener struct {
	// Listen is host:port; port 0: any free one.
	Listen string `toml:"listen"`
	// TLSCertFile and TLSKeyFile make it TLS only; they are read again when they change.
	TLSCertFile string `toml:"tls_cert_file"`
	TLSKeyFile  string `toml:"tls_key_file"`
}

// Pool is a Stratum server.
type Pool struct {
	// Addr is host:port.
	Addr string `toml:"addr"`
	// Account is whom is mined for there, unless miners name accounts themselves.
	Account string `toml:"account"`
	// TLS encrypts the links; TLSSkipVerify takes any certificate.
	TLS           bool `toml:"tls"`
	TLSSkipVerify bool `toml:"tls_skip_verify"`
	// Protocol is "agent", "stratum", or "auto": agent, if the pool speaks it.
	Protocol Protocol `toml:"protocol"`
	// NoExtensions has nothing said to the pool that btcpool does not know: shares come one by one.
	NoExtensions bool `toml:"no_extensions"`
	// PayoutAddress has to be among those that the pool's work pays, with PayoutShare of all that it pays or more, 0 to 1.
	// Other work is refused, and the next pool used.
	PayoutAddress string  `toml:"payout_address"`
	PayoutShare   float64 `toml:"payout_share"`
	// Weight is for which part of the machines' hashrate the pool is, as against the other weights. Pools without are for
	// when one that has a weight cannot be reached; if none has one, all are for when the first cannot be.
	Weight float64 `toml:"weight"`
}

// Protocol is what is spoken with a pool.
type Protocol string

// The protocols.
const (
	ProtocolAuto    Protocol = "auto"
	ProtocolAgent   Protocol = "agent"
	ProtocolStratum Protocol = "stratum"
)

// Workers says how workers are named.
type Workers struct {
	// Fixed is the name of all workers, if it is not empty.
	Fixed string `toml:"fixed"`
	// ByIP names a worker after its address, by IPFormat: {1} to {4} are the last four bytes of the address, decimal of
	// IPv4 and hexadecimal of IPv6.
	ByIP     bool   `toml:"by_ip"`
	IPFormat string `toml:"ip_format"`
}

// Proxy says how pools are reached.
type Proxy struct {
	// URLs are socks5://, http:// or https://[user:password@]host:port, or "system" for what the environment says. The
	// one that is the fastest to reach a pool is used.
	URLs []string `toml:"urls"`
	// Direct says when a pool is reached without them: "never", "after" they have failed, or "with" them.
	Direct Direct `toml:"direct"`
	// TLSSkipVerify takes any certificate of an https proxy.
	TLSSkipVerify bool `toml:"tls_skip_verify"`
}

// Direct says when a pool is reached without a proxy.
type Direct string

// The values of Direct.
const (
	DirectNever Direct = "never"
	DirectAfter Direct = "after"
	DirectWith  Direct = "with"
)

// maxWeight keeps sums of weights exact enough.
const maxWeight = 1e6

// maxLinks bounds the links of an account; BTCAgent's file cannot say more.
const maxLinks = 255

// DefaultConfig returns a configuration that lacks nothing but pools.
func DefaultConfig() Config {
	return Config{
		Listeners:              []Listener{{Listen: "0.0.0.0:3333"}},
		MaxConnections:         100_000,
		Page:                   "127.0.0.1:8082",
		Links:                  1,
		PoolVerdicts:           true,
		Hold:                   config.Duration(50 * time.Millisecond),
		Vardiff:                Vardiff{AdjustPeriod: config.Duration(15 * time.Minute), MinDifficulty: 1},
		StandInInterval:        config.Duration(30 * time.Second),
		Patience:               config.Duration(time.Minute),
		SilentAfter:            config.Duration(10 * time.Minute),
		Workers:                Workers{IPFormat: "{1}x{2}x{3}x{4}"},
		ReconnectLostASICBoost: true,
		DialTimeout:            config.Duration(15 * time.Second),
		ReadTimeout:            config.Duration(time.Minute),
		WriteTimeout:           config.Duration(10 * time.Second),
		LoginTimeout:           config.Duration(time.Minute),
		ReturnInterval:         config.Duration(time.Minute),
		Proxy:                  Proxy{Direct: DirectNever},
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var faults config.Faults
	if len(c.Listeners) == 0 {
		faults.Addf("listeners: there must be one at least")
	}
	for i, l := range c.Listeners {
		section := fmt.Sprintf("listeners[%d]", i)
		faults.In(section, l.validate())
	}
	faults.Number("max_connections", c.MaxConnections, 1, 1<<20)
	if c.Page != "" {
		faults.Listen("page", c.Page)
	}
	if len(c.Pools) == 0 {
		faults.Addf("pools: there must be one at least")
	}
	for i, p := range c.Pools {
		section := fmt.Sprintf("pools[%d]", i)
		faults.In(section, p.validate(c.MultiUser))
		same := func(q Pool) bool { return q.Weight > 0 && q.Addr == p.Addr && (q.Account == p.Account || c.MultiUser) }
		if p.Weight > 0 && slices.ContainsFunc(c.Pools[:i], same) {
			faults.Addf("%s.weight: another pool with a weight has the same addr and account", section)
		}
	}
	faults.Number("links", c.Links, 1, maxLinks)
	faults.AtLeast("hold", c.Hold, 0)
	faults.In("vardiff", c.Vardiff.validate(c.CheckShares))
	faults.AtLeast("stand_in_interval", c.StandInInterval, time.Second)
	faults.AtLeast("patience", c.Patience, 0)
	faults.AtLeast("silent_after", c.SilentAfter, 0)
	if c.Workers.ByIP && c.Workers.IPFormat == "" {
		faults.Addf("workers.ip_format: must not be empty")
	}
	faults.AtLeast("dial_timeout", c.DialTimeout, time.Second)
	faults.AtLeast("read_timeout", c.ReadTimeout, time.Second)
	faults.AtLeast("write_timeout", c.WriteTimeout, time.Second)
	faults.AtLeast("login_timeout", c.LoginTimeout, time.Second)
	faults.AtLeast("return_interval", c.ReturnInterval, time.Second)
	faults.In("proxy", c.Proxy.validate())
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

func (p Pool) validate(multiUser bool) error {
	var faults config.Faults
	if _, _, err := config.Peer(p.Addr); err != nil {
		faults.Value("addr", p.Addr, err)
	}
	if p.Account == "" && !multiUser {
		faults.Addf("account: must not be empty, unless multi_user is true")
	}
	if !slices.Contains([]Protocol{"", ProtocolAuto, ProtocolAgent, ProtocolStratum}, p.Protocol) {
		faults.Addf("protocol = %q: must be auto, agent or stratum", p.Protocol)
	}
	if p.PayoutAddress != "" {
		if _, err := bitcoin.PayoutScript(p.PayoutAddress); err != nil {
			faults.Addf("payout_address: %w", err)
		}
	}
	switch {
	case !(p.PayoutShare >= 0 && p.PayoutShare <= 1):
		faults.Addf("payout_share = %v: must be 0 to 1", p.PayoutShare)
	case p.PayoutShare > 0 && p.PayoutAddress == "":
		faults.Addf("payout_share: needs payout_address")
	}
	if !(p.Weight >= 0 && p.Weight <= maxWeight) {
		faults.Addf("weight = %v: must be 0 to %d", p.Weight, int(maxWeight))
	}
	return faults.Err()
}

func (p Proxy) validate() error {
	var faults config.Faults
	for i, text := range p.URLs {
		if _, err := parseProxy(text); err != nil {
			faults.Add(fmt.Errorf("urls[%d]: %w", i, err)) // may hold a password
		}
	}
	if !slices.Contains([]Direct{DirectNever, DirectAfter, DirectWith}, p.Direct) {
		faults.Addf("direct = %q: must be never, after or with", p.Direct)
	}
	return faults.Err()
}

// systemProxy stands for the proxy that the environment names.
const systemProxy = "system"

var errProxyURL = errors.New("must be socks5://, http:// or https://[user:password@]host:port, or system")

// parseProxy reads the URL of a proxy, of http if it does not say. It is nil for systemProxy.
func parseProxy(text string) (*url.URL, error) {
	if text == systemProxy {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		u, err = url.Parse("http://" + text)
	}
	if err != nil {
		return nil, errProxyURL
	}
	switch u.Scheme {
	case "socks5", "socks5h", "http", "https":
	case "socks", "socks4", "socks4a": // as BTCAgent does
		u.Scheme = "socks5"
	default:
		return nil, errProxyURL
	}
	if u.Hostname() == "" || u.Port() == "" && u.Scheme == "socks5" {
		return nil, errProxyURL
	}
	return u, nil
}
