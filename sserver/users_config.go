package sserver

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/config"
)

// Users says who may mine. A listener may have a source of its own; all else is
// the same for all.
type Users struct {
	UserSource

	Network         string          `toml:"network" env:"NETWORK"` // of source address: one of bitcoin.NetworkNames
	CaseInsensitive bool            `toml:"case_insensitive"`      // but not for base58 addresses
	ListInterval    config.Duration `toml:"list_interval"`         // between questions for new users
	ReloadInterval  config.Duration `toml:"reload_interval"`       // between readings of all users, which tell who was removed or got another id
	LoginDeadline   config.Duration `toml:"login_deadline"`        // for finding out about a name
}

// UserSource says where users come from.
type UserSource struct {
	Source      string           `toml:"source"`          // one of the sources below
	ListURL     string           `toml:"list_id_api_url"` // of source api: asked for the users above ?last_id=
	RegisterURL string           `toml:"register_url"`    // of source api: told of unknown users, to give them an id; "": they are refused
	Static      map[string]int32 `toml:"static"`          // of source static: ids by name
}

// The sources of users.
const (
	OpenUsers     = "open"     // anyone; created in the database on the first login
	AddressUsers  = "address"  // likewise anyone, whose name is an address that can be paid to
	DatabaseUsers = "database" // those in the database
	APIUsers      = "api"      // those that an HTTP API lists
	StaticUsers   = "static"   // those in the configuration
)

func defaultUsers() Users {
	return Users{
		UserSource:      UserSource{Source: OpenUsers},
		Network:         "mainnet",
		CaseInsensitive: true,
		ListInterval:    config.Duration(10 * time.Second),
		ReloadInterval:  config.Duration(5 * time.Minute),
		LoginDeadline:   config.Duration(5 * time.Second),
	}
}

// inDatabase reports whether the users are rows of the database.
func (s UserSource) inDatabase() bool {
	return s.Source == OpenUsers || s.Source == AddressUsers || s.Source == DatabaseUsers
}

// admitsUnlisted reports whether a name that is not listed may become a user.
func (s UserSource) admitsUnlisted() bool {
	return s.Source == OpenUsers || s.Source == AddressUsers || s.RegisterURL != ""
}

// name is that of the source among all of a configuration, fit for a file.
func (s UserSource) name() string {
	if s.inDatabase() {
		return s.Source
	}
	own := fmt.Sprint(s.ListURL, " ", s.RegisterURL, s.Static)
	return fmt.Sprintf("%s-%08x", s.Source, crc32.ChecksumIEEE([]byte(own)))
}

// validateUsers reports all faults of [users] and of what listeners have
// instead.
func (c Config) validateUsers() error {
	errs := []error{c.Users.validate("users.")}
	inDatabase, addresses := c.Users.inDatabase(), c.Users.Source == AddressUsers
	for i, l := range c.Listeners {
		if l.Users == nil {
			continue
		}
		errs = append(errs, l.Users.validate(fmt.Sprintf("listeners[%d].users.", i)))
		inDatabase = inDatabase || l.Users.inDatabase()
		addresses = addresses || l.Users.Source == AddressUsers
	}
	if inDatabase {
		errs = append(errs, c.Database.Validate())
	}
	if addresses {
		if _, err := bitcoin.NetworkByName(c.Users.Network); err != nil {
			errs = append(errs, fmt.Errorf("users.network = %q: %w", c.Users.Network, err))
		}
	}
	for _, d := range []struct {
		key   string
		value config.Duration
	}{
		{"list_interval", c.Users.ListInterval},
		{"reload_interval", c.Users.ReloadInterval},
		{"login_deadline", c.Users.LoginDeadline},
	} {
		if d.value.Std() < time.Second {
			errs = append(errs, fmt.Errorf("users.%s = %q: must be at least 1s", d.key, d.value))
		}
	}
	return errors.Join(errs...)
}

func (s UserSource) validate(prefix string) error {
	var errs []error
	fault := func(key, format string, args ...any) { errs = append(errs, fmt.Errorf(prefix+key+format, args...)) }
	switch s.Source {
	case OpenUsers, AddressUsers, DatabaseUsers:
	case APIUsers:
		if !isWebURL(s.ListURL) {
			fault("list_id_api_url", " = %q: must be an http or https URL", s.ListURL)
		}
		if s.RegisterURL != "" && !isWebURL(s.RegisterURL) {
			fault("register_url", " = %q: must be an http or https URL", s.RegisterURL)
		}
	case StaticUsers:
		for name, id := range s.Static {
			if name == "" || id <= 0 {
				fault("static", " has %q = %d: must be a name and an id above 0", name, id)
			}
		}
		if len(s.Static) == 0 {
			fault("static", ": must name at least one user")
		}
	default:
		fault("source", " = %q: must be %s, %s, %s, %s or %s", s.Source, OpenUsers, AddressUsers, DatabaseUsers, APIUsers, StaticUsers)
	}
	if s.RegisterURL != "" && s.Source != APIUsers {
		fault("register_url", " = %q: is for source %s only", s.RegisterURL, APIUsers)
	}
	return errors.Join(errs...)
}

func isWebURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
