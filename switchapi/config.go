package switchapi

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/userchain"
	"btcpool/internal/users"
)

// Config of a switchapi.
type Config struct {
	service.Common
	// Listen is the host:port of the API, where port 0 is any free one. Both files of TLS, or none.
	Listen      string `toml:"listen" env:"LISTEN"`
	TLSCertFile string `toml:"tls_cert_file" env:"TLS_CERT_FILE"`
	TLSKeyFile  string `toml:"tls_key_file" env:"TLS_KEY_FILE"`
	// DataDir keeps what was accepted and is not in ZooKeeper yet, the users last seen, the audit log and the decisions.
	DataDir string `toml:"data_dir" env:"DATA_DIR"`
	// LogDays is how many days the files of the audit log and of decisions stay.
	LogDays int `toml:"log_days"`
	// Chains are those that users may be switched to.
	Chains []string `toml:"chains" env:"CHAINS"`
	// MaxWaiting bounds the users whose switch waits for its time or for ZooKeeper.
	MaxWaiting int `toml:"max_waiting"`

	Clients      []Client        `toml:"clients" envPrefix:"CLIENTS_"`
	ZooKeeper    registry.Config `toml:"zookeeper"`
	Nodes        Nodes           `toml:"nodes" envPrefix:"NODES_"`
	Users        Users           `toml:"users"`
	Lists        []List          `toml:"lists" envPrefix:"LISTS_"`
	Map          Map             `toml:"map" envPrefix:"MAP_"`
	Registration Registration    `toml:"registration" envPrefix:"REGISTRATION_"`
	AutoChain    AutoChain       `toml:"auto" envPrefix:"AUTO_"`
	Kafka        bus.Config      `toml:"kafka"`
}

// Client is somebody who may use the API.
type Client struct {
	// Name is the client's in the audit log, and its user name where it logs in by Basic authentication.
	Name string `toml:"name" env:"NAME"`
	// Token is what its requests show, or TokenFile has it, or TokenSHA256 is its hash in hex.
	Token       string `toml:"token" env:"TOKEN"`
	TokenFile   string `toml:"token_file" env:"TOKEN_FILE"`
	TokenSHA256 string `toml:"token_sha256" env:"TOKEN_SHA256"`
	// MayWrite lets it switch users and change sub-pools; without it reads only.
	MayWrite bool `toml:"may_write" env:"MAY_WRITE"`
	// Rate is how many requests a second it may make, after a burst of ten seconds' worth.
	Rate float64 `toml:"rate" env:"RATE"`
}

func (c Client) token() config.Token {
	return config.Token{Key: "token", Value: c.Token, File: c.TokenFile}
}

// Nodes says where in ZooKeeper things are, by the same paths as in the servers' configurations.
type Nodes struct {
	// UserChain has a node a user, AutoReg one for each user to be registered, CaseIndex the spelling of each user by its
	// name in lower case, SubPool a node a chain and below it one a sub-pool, Lead the node of which switchapi pulls,
	// registers and chooses. All but the first may be "": none.
	UserChain string `toml:"user_chain" env:"USER_CHAIN"`
	AutoReg   string `toml:"autoreg" env:"AUTOREG"`
	CaseIndex string `toml:"case_index"`
	SubPool   string `toml:"subpool" env:"SUBPOOL"`
	Lead      string `toml:"lead" env:"LEAD"`
	// JSON writes nodes with ids and sub-pool, which btcpool's released servers do not read.
	JSON bool `toml:"json" env:"JSON"`
	// Timeout of one call.
	Timeout config.Duration `toml:"timeout"`
}

// Users says how names are written, as in [users] of sserver, and how fresh a user may be to be switched at once.
type Users struct {
	CaseInsensitive     bool            `toml:"case_insensitive"`
	StripUserSuffix     bool            `toml:"strip_user_suffix"`
	UserSuffixSeparator string          `toml:"user_suffix_separator"`
	ListInterval        config.Duration `toml:"list_interval"`
	ReloadInterval      config.Duration `toml:"reload_interval"`
	// SafetyPeriod is how long a user is known on a chain before it is switched there: servers ignore a switch to a chain
	// whose list they have not read again yet.
	SafetyPeriod config.Duration `toml:"safety_period"`
}

// config is what lists need to know.
func (u Users) config() users.Config {
	c := users.DefaultConfig()
	c.CaseInsensitive, c.StripUserSuffix, c.UserSuffixSeparator = u.CaseInsensitive, u.StripUserSuffix, u.UserSuffixSeparator
	c.ListInterval, c.ReloadInterval = u.ListInterval, u.ReloadInterval
	return c
}

// List is the list of a chain's users, of btcpool's form. One list alone is that of all chains.
type List struct {
	Chain string `toml:"chain" env:"CHAIN"`
	URL   string `toml:"url" env:"URL"`
}

// Map is what the user system says of all users.
type Map struct {
	// URL has the chain of each user, SubPoolURL the sub-pool; "": not asked.
	URL        string          `toml:"url" env:"URL"`
	SubPoolURL string          `toml:"subpool_url" env:"SUBPOOL_URL"`
	Interval   config.Duration `toml:"interval"`
}

// Registration has users made that servers do not know.
type Registration struct {
	// URL takes a POST; "": nobody is registered.
	URL          string `toml:"url" env:"URL"`
	User         string `toml:"user" env:"USER"`
	Password     string `toml:"password" env:"PASSWORD"`
	PasswordFile string `toml:"password_file" env:"PASSWORD_FILE"`
	// Body has the fields of the POST; {sub_name} in a value is the user's name.
	Body map[string]string `toml:"body"`
	// DefaultChain is what the user mines.
	DefaultChain string `toml:"default_chain" env:"DEFAULT_CHAIN"`
	// Parallel is how many are registered at a time, Timeout that of one POST. After Deadline a request is given up.
	Parallel int             `toml:"parallel"`
	Timeout  config.Duration `toml:"timeout"`
	Deadline config.Duration `toml:"deadline"`
}

func (r Registration) password() config.Secret {
	return config.Secret{Key: "password", Value: r.Password, File: r.PasswordFile}
}

// AutoChain chooses what the users in auto mode mine.
type AutoChain struct {
	Enabled bool `toml:"enabled" env:"ENABLED"`
	// DryRun decides and logs, and commands nobody.
	DryRun bool `toml:"dry_run" env:"DRY_RUN"`
	// Sources are files or URLs which together say price, difficulty and reward of each coin, or its place among them.
	Sources []string `toml:"sources" env:"SOURCES"`
	// Algorithm is the one of a source that ranks several.
	Algorithm string `toml:"algorithm"`
	// Interval is between decisions, Timeout that of a source.
	Interval config.Duration `toml:"interval"`
	Timeout  config.Duration `toml:"timeout"`
	// MinGain is what another chain must earn more to be worth the change, as a part: 0.02 is 2 %.
	MinGain float64 `toml:"min_gain"`
	// MinDwell is between changes, of the chain or of shares.
	MinDwell config.Duration `toml:"min_dwell"`
	// FailSafeChain is mined when no source has said anything for FailSafeAfter, and by whom the caps leave over.
	FailSafeChain string          `toml:"fail_safe_chain" env:"FAIL_SAFE_CHAIN"`
	FailSafeAfter config.Duration `toml:"fail_safe_after"`
	// Chains may be mined by users in auto mode.
	Chains []AutoOf `toml:"chains" envPrefix:"CHAINS_"`
	// ControllerTopic is that of commands, ProcessorTopic that of the servers' answers.
	ControllerTopic string `toml:"controller_topic"`
	ProcessorTopic  string `toml:"processor_topic"`
}

// AutoOf is a chain in auto mode.
type AutoOf struct {
	Chain string `toml:"chain" env:"CHAIN"`
	// Coin is what sources call it.
	Coin string `toml:"coin" env:"COIN"`
	// MaxHashrate bounds the pool's hashrate on the chain, like "100P"; "": no bound. HashrateURL is then the address of
	// that chain's statshttpd, whose /api/v1/pool tells the hashrate.
	MaxHashrate string `toml:"max_hashrate" env:"MAX_HASHRATE"`
	HashrateURL string `toml:"hashrate_url" env:"HASHRATE_URL"`
}

// DefaultConfig returns a Config that lacks clients, chains and ZooKeeper.
func DefaultConfig() Config {
	second := func(n int) config.Duration { return config.Duration(time.Duration(n) * time.Second) }
	return Config{
		Listen:     "127.0.0.1:8083",
		DataDir:    "data/switchapi",
		LogDays:    90,
		MaxWaiting: 100_000,
		ZooKeeper:  registry.DefaultConfig(),
		Nodes: Nodes{
			UserChain: "/sserver/userchain/bitcoin", AutoReg: "/sserver/autoreg", SubPool: "/subpool", Lead: "/locks/switchapi",
			Timeout: second(3),
		},
		Users: Users{
			CaseInsensitive: true, UserSuffixSeparator: "_", ListInterval: second(10), ReloadInterval: second(300), SafetyPeriod: second(15),
		},
		Map: Map{Interval: second(60)},
		Registration: Registration{
			Body: map[string]string{"sub_name": "{sub_name}"}, Parallel: 16, Timeout: second(10), Deadline: second(30),
		},
		AutoChain: AutoChain{
			Algorithm: "SHA256", Interval: second(60), Timeout: second(10), MinGain: 0.02, MinDwell: second(600), FailSafeAfter: second(600),
			ControllerTopic: "BtcManController", ProcessorTopic: "BtcManProcessor",
		},
		Kafka: bus.DefaultConfig(),
	}
}

const (
	maxClients = 100
	maxChains  = 32
	maxSources = 16
)

var (
	validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	validHash = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// hashOfNothing is what sha256sum says when there was no token.
const hashOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var faults config.Faults
	faults.Listen("listen", c.Listen)
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		faults.Addf("tls_cert_file, tls_key_file: both are needed, or none")
	}
	faults.Folder("data_dir", c.DataDir)
	faults.Number("log_days", c.LogDays, 1, 36_500)
	faults.Number("max_waiting", c.MaxWaiting, 1, 10_000_000)
	if len(c.Chains) == 0 || len(c.Chains) > maxChains {
		faults.Addf("chains: must name 1 to %d chains", maxChains)
	}
	for i, chain := range c.Chains {
		faults.Value(fmt.Sprintf("chains[%d]", i), chain, userchain.CheckChain(chain))
		if chain == userchain.Auto || slices.Index(c.Chains, chain) < i {
			faults.Addf("chains[%d] = %q: must be a chain that is not named yet", i, chain)
		}
	}
	c.validateClients(&faults)
	faults.Add(c.ZooKeeper.Validate())
	if len(c.ZooKeeper.Servers) == 0 {
		faults.Addf("zookeeper.servers: must name the servers that have the nodes of users")
	}
	faults.In("nodes", c.Nodes.validate())
	faults.In("users", c.Users.validate())
	c.validateLists(&faults)
	faults.In("map", c.Map.validate(c.Nodes.JSON))
	faults.In("registration", c.Registration.validate(c.Chains, c.AutoChain.Enabled, c.Nodes.AutoReg))
	if c.AutoChain.Enabled {
		faults.In("auto", c.AutoChain.validate(c.Chains))
		faults.Add(c.Kafka.Validate())
	}
	return faults.Err()
}

func (c Config) validateClients(faults *config.Faults) {
	if len(c.Clients) == 0 || len(c.Clients) > maxClients {
		faults.Addf("clients: 1 to %d [[clients]] sections are needed: nobody else may use the API", maxClients)
	}
	names := make(map[string]bool)
	for i, client := range c.Clients {
		section := fmt.Sprintf("clients[%d]", i)
		if !validName.MatchString(client.Name) || names[client.Name] {
			faults.Addf("%s.name = %q: must be 1 to 32 letters, digits, '.', '_' and '-' that no other has", section, client.Name)
		}
		names[client.Name] = true
		faults.In(section, client.token().Validate())
		switch plain := !config.Secret(client.token()).IsZero(); {
		case plain == (client.TokenSHA256 != ""):
			faults.Addf("%s: one of token, token_file and token_sha256 is needed", section)
		case !plain && !validHash.MatchString(client.TokenSHA256):
			faults.Addf("%s.token_sha256: must be 64 digits of hex, in lower case", section)
		case client.TokenSHA256 == hashOfNothing:
			faults.Addf("%s.token_sha256: is the hash of nothing", section)
		}
		if !(client.Rate >= 0 && client.Rate <= 1e6) {
			faults.Addf("%s.rate = %v: must be 0, which is 50, to 1000000", section, client.Rate)
		}
	}
}

func (n Nodes) validate() error {
	var faults config.Faults
	for _, p := range []struct{ key, path string }{
		{"user_chain", n.UserChain}, {"autoreg", n.AutoReg}, {"case_index", n.CaseIndex}, {"subpool", n.SubPool}, {"lead", n.Lead},
	} {
		if p.path != "" || p.key == "user_chain" {
			faults.Value(p.key, p.path, registry.ValidatePath(p.path))
		}
	}
	if n.Timeout.Std() < 100*time.Millisecond || n.Timeout.Std() > time.Minute {
		faults.Addf("timeout = %q: must be 100ms to 1m", n.Timeout)
	}
	return faults.Err()
}

func (u Users) validate() error {
	var faults config.Faults
	faults.Add(u.config().Validate())
	faults.AtLeast("safety_period", u.SafetyPeriod, 0)
	return faults.Err()
}

func (c Config) validateLists(faults *config.Faults) {
	chains := make(map[string]bool)
	for i, list := range c.Lists {
		section := fmt.Sprintf("lists[%d]", i)
		if !slices.Contains(c.Chains, list.Chain) || chains[list.Chain] {
			faults.Addf("%s.chain = %q: must be one of chains that no other list has", section, list.Chain)
		}
		chains[list.Chain] = true
		faults.Value(section+".url", list.URL, config.CheckWebURL(list.URL))
	}
	if n := len(c.Lists); n > 1 && n != len(c.Chains) {
		faults.Addf("lists: there must be none, one for all chains, or one for each")
	}
}

func (m Map) validate(json bool) error {
	var faults config.Faults
	if m.URL != "" {
		faults.Value("url", m.URL, config.CheckWebURL(m.URL))
	}
	if m.SubPoolURL != "" {
		faults.Value("subpool_url", m.SubPoolURL, config.CheckWebURL(m.SubPoolURL))
		if !json {
			faults.Addf("subpool_url: nodes say a user's sub-pool only with nodes.json = true")
		}
	}
	faults.AtLeast("interval", m.Interval, time.Second)
	return faults.Err()
}

func (r Registration) validate(chains []string, auto bool, path string) error {
	if r.URL == "" {
		return nil
	}
	var faults config.Faults
	faults.Value("url", r.URL, config.CheckWebURL(r.URL))
	faults.Add(r.password().Validate())
	if path == "" {
		faults.Addf("url: needs nodes.autoreg, where servers ask for users")
	}
	if !slices.Contains(chains, r.DefaultChain) && (!auto || r.DefaultChain != userchain.Auto) {
		faults.Addf("default_chain = %q: must be one of chains", r.DefaultChain)
	}
	if len(r.Body) > 64 {
		faults.Addf("body: has more than 64 fields")
	}
	faults.Number("parallel", r.Parallel, 1, 256)
	faults.AtLeast("timeout", r.Timeout, 100*time.Millisecond)
	faults.AtLeast("deadline", r.Deadline, time.Second)
	return faults.Err()
}

func (a AutoChain) validate(chains []string) error {
	var faults config.Faults
	if len(a.Sources) == 0 || len(a.Sources) > maxSources {
		faults.Addf("sources: must name 1 to %d files or URLs", maxSources)
	}
	for i, source := range a.Sources {
		if source == "" || strings.Contains(source, "://") && config.CheckWebURL(source) != nil {
			faults.Value(fmt.Sprintf("sources[%d]", i), source, errors.New("must be the path of a file, or an http or https URL"))
		}
	}
	faults.AtLeast("interval", a.Interval, time.Second)
	faults.AtLeast("timeout", a.Timeout, 100*time.Millisecond)
	if !(a.MinGain >= 0 && a.MinGain <= 10) {
		faults.Addf("min_gain = %v: must be 0 to 10", a.MinGain)
	}
	faults.AtLeast("min_dwell", a.MinDwell, 0)
	faults.AtLeast("fail_safe_after", a.FailSafeAfter, time.Second)
	if len(a.Chains) == 0 {
		faults.Addf("chains: at least one [[auto.chains]] section is needed")
	}
	names, coins, failSafe := make(map[string]bool), make(map[string]bool), false
	for i, of := range a.Chains {
		section := fmt.Sprintf("chains[%d]", i)
		if !slices.Contains(chains, of.Chain) || names[of.Chain] {
			faults.Addf("%s.chain = %q: must be one of chains, once", section, of.Chain)
		}
		if of.Coin == "" || coins[of.Coin] {
			faults.Addf("%s.coin = %q: must be what sources call the chain, and no other", section, of.Coin)
		}
		names[of.Chain], coins[of.Coin] = true, true
		failSafe = failSafe || of.Chain == a.FailSafeChain && of.MaxHashrate == ""
		if of.MaxHashrate == "" {
			continue
		}
		if _, err := parseHashrate(of.MaxHashrate); err != nil {
			faults.Addf("%s.max_hashrate = %q: %w", section, of.MaxHashrate, err)
		}
		faults.Value(section+".hashrate_url", of.HashrateURL, config.CheckWebURL(of.HashrateURL))
	}
	if !failSafe {
		faults.Addf("fail_safe_chain = %q: must be one of [[auto.chains]] without max_hashrate", a.FailSafeChain)
	}
	for _, t := range []struct{ key, name string }{{"controller_topic", a.ControllerTopic}, {"processor_topic", a.ProcessorTopic}} {
		faults.Value(t.key, t.name, bus.CheckTopic(t.name))
	}
	if a.ControllerTopic == a.ProcessorTopic {
		faults.Addf("processor_topic = %q: is controller_topic already", a.ProcessorTopic)
	}
	return faults.Err()
}
