package users

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
)

// Config says who may mine, unless a listener has a Source of its own. What stands beside the Source is for all lists.
type Config struct {
	Source

	// Network is that of addresses, for sources of that kind: one of bitcoin.NetworkNames.
	Network string `toml:"network" env:"NETWORK"`
	// CaseInsensitive keeps names that are no addresses in lower case.
	CaseInsensitive bool `toml:"case_insensitive"`
	// StripUserSuffix cuts user names at the last UserSuffixSeparator.
	StripUserSuffix     bool   `toml:"strip_user_suffix"`
	UserSuffixSeparator string `toml:"user_suffix_separator"`
	// ListInterval is between questions for new users, ReloadInterval between readings of all, which tell who was
	// removed or got another id.
	ListInterval   config.Duration `toml:"list_interval"`
	ReloadInterval config.Duration `toml:"reload_interval"`
	// LoginDeadline bounds finding out about a name.
	LoginDeadline config.Duration `toml:"login_deadline"`
}

// Source says where users come from.
type Source struct {
	// Kind is one of the kinds below.
	Kind string `toml:"source"`
	// ListURL of an API is asked for the users above ?last_id=; RegisterURL is told of unknown users, to give them an
	// id. "": they are refused.
	ListURL     string `toml:"list_id_api_url"`
	RegisterURL string `toml:"register_url"`
	// Static are ids by name.
	Static map[string]int32 `toml:"static"`
}

// The kinds of sources.
const (
	Open     = "open"     // anyone; created in the database on the first login
	Address  = "address"  // as open, for names that are an address which can be paid to
	Database = "database" // those in the database
	API      = "api"      // those that an HTTP API lists
	Static   = "static"   // those in the configuration
)

// DefaultConfig lets anyone mine.
func DefaultConfig() Config {
	return Config{
		Source:          Source{Kind: Open},
		Network:         "mainnet",
		CaseInsensitive: true,

		UserSuffixSeparator: "_",

		ListInterval:   config.Duration(10 * time.Second),
		ReloadInterval: config.Duration(5 * time.Minute),
		LoginDeadline:  config.Duration(5 * time.Second),
	}
}

// Validate reports all faults of c, whose network counts if its own source or one of the others is of addresses. The
// others are not validated.
func (c Config) Validate(others ...Source) error {
	var faults config.Faults
	faults.Add(c.Source.Validate())
	if c.Kind == Address || slices.ContainsFunc(others, func(s Source) bool { return s.Kind == Address }) {
		_, err := bitcoin.NetworkByName(c.Network)
		faults.Value("network", c.Network, err)
	}
	if sep := c.UserSuffixSeparator; c.StripUserSuffix && (sep == "" || strings.ContainsAny(sep, ".+")) {
		faults.Addf(`user_suffix_separator = %q: must be a text without "." and "+"`, sep)
	}
	faults.AtLeast("list_interval", c.ListInterval, time.Second)
	faults.AtLeast("reload_interval", c.ReloadInterval, time.Second)
	faults.AtLeast("login_deadline", c.LoginDeadline, time.Second)
	return faults.Err()
}

// Validate reports all faults.
func (s Source) Validate() error {
	var faults config.Faults
	switch s.Kind {
	case Open, Address, Database:
	case API:
		faults.Value("list_id_api_url", s.ListURL, config.CheckWebURL(s.ListURL))
		if s.RegisterURL != "" {
			faults.Value("register_url", s.RegisterURL, config.CheckWebURL(s.RegisterURL))
		}
	case Static:
		for name, id := range s.Static {
			if name == "" || id <= 0 {
				faults.Addf("static has %q = %d: must be a name and an id above 0", name, id)
			}
		}
		if len(s.Static) == 0 {
			faults.Addf("static: must name at least one user")
		}
	default:
		faults.Addf("source = %q: must be %s, %s, %s, %s or %s", s.Kind, Open, Address, Database, API, Static)
	}
	if s.RegisterURL != "" && s.Kind != API {
		faults.Addf("register_url = %q: is for source %s only", config.RedactURL(s.RegisterURL), API)
	}
	return faults.Err()
}

// InDatabase reports whether the users are rows of the database.
func (s Source) InDatabase() bool {
	return s.Kind == Open || s.Kind == Address || s.Kind == Database
}

// admitsUnlisted reports whether a name that is not listed may become a user.
func (s Source) admitsUnlisted() bool {
	return s.Kind == Open || s.Kind == Address || s.RegisterURL != ""
}

// name tells s from all other sources of a configuration, and is fit for a file.
func (s Source) name() string {
	if s.InDatabase() {
		return s.Kind
	}
	own := fmt.Sprint(s.ListURL, " ", s.RegisterURL, s.Static)
	return fmt.Sprintf("%s-%08x", s.Kind, crc32.ChecksumIEEE([]byte(own)))
}
