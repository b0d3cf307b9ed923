package noderpc

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"btcpool/internal/config"
)

const defaultTimeout = 10 * time.Second

// Config names a node and the login it wants: rpc_user with rpc_password or rpc_password_file, or rpc_cookie_file
// alone.
type Config struct {
	// URL is http://host:port or https://host:port.
	URL string `toml:"rpc_url" env:"RPC_URL"`
	// User logs in with the password, which is a value or the first line of a file.
	User         string `toml:"rpc_user" env:"RPC_USER"`
	Password     string `toml:"rpc_password" env:"RPC_PASSWORD"`
	PasswordFile string `toml:"rpc_password_file" env:"RPC_PASSWORD_FILE"`
	// CookieFile is .cookie in Bitcoin Core's data directory. It is read again when the node refuses what it said.
	CookieFile string `toml:"rpc_cookie_file" env:"RPC_COOKIE_FILE"`
	// CAFile has PEM certificates that an https URL is checked with, like btcd's rpc.cert. Empty: the system's.
	CAFile string `toml:"rpc_ca_file" env:"RPC_CA_FILE"`
	// ZMQ is the node's zmqpubhashblock address, tcp://host:port. Empty: none.
	ZMQ string `toml:"zmq_hashblock" env:"ZMQ_HASHBLOCK"`
	// Timeout bounds one call; 0: 10 s.
	Timeout config.Duration `toml:"timeout" env:"RPC_TIMEOUT"`
}

func (c Config) password() config.Secret {
	return config.Secret{Key: "rpc_password", Value: c.Password, File: c.PasswordFile}
}

// Validate reports every fault of c at once.
func (c Config) Validate() error {
	var faults config.Faults
	u, err := c.endpoint()
	switch {
	case err != nil:
		faults.Add(err)
	case c.CAFile != "" && u.Scheme != "https":
		faults.Addf("rpc_ca_file = %q: needs an rpc_url that starts with https://", c.CAFile)
	}
	switch {
	case c.CookieFile != "" && (c.User != "" || !c.password().IsZero()):
		faults.Addf("rpc_cookie_file = %q: cannot be combined with rpc_user, rpc_password or rpc_password_file", c.CookieFile)
	case c.CookieFile == "" && c.User == "":
		faults.Addf("rpc_user: is empty: give rpc_user and a password, or rpc_cookie_file")
	case c.CookieFile == "" && c.password().IsZero():
		faults.Addf("rpc_password: is empty: give it or rpc_password_file")
	default:
		faults.Add(c.password().Validate())
	}
	if strings.Contains(c.User, ":") {
		faults.Addf("rpc_user = %q: must not contain a colon", c.User)
	}
	if c.ZMQ != "" {
		faults.Add(validateZMQ(c.ZMQ))
	}
	faults.AtLeast("timeout", c.Timeout, 0)
	return faults.Err()
}

func validateZMQ(addr string) error {
	transport, _, _ := strings.Cut(addr, "://")
	if transport != "tcp" && transport != "ipc" {
		return fmt.Errorf("zmq_hashblock = %q: must start with tcp:// or ipc://, as the node's zmqpubhashblock does", config.RedactURL(addr))
	}
	return nil
}

// endpoint returns the parsed rpc_url.
func (c Config) endpoint() (*url.URL, error) {
	if c.URL == "" {
		return nil, errors.New("rpc_url: is empty: give the node's RPC address, like http://127.0.0.1:8332")
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil: // url.Parse repeats what it was given, and that may hold a password
		return nil, errors.New("rpc_url: is not a URL; it must be like http://127.0.0.1:8332")
	case u.User != nil:
		return nil, fmt.Errorf("rpc_url = %q: must not hold a login; use rpc_user and rpc_password", config.RedactURL(c.URL))
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return nil, fmt.Errorf("rpc_url = %q: must be like http://127.0.0.1:8332", config.RedactURL(c.URL))
	}
	return u, nil
}

func (c Config) timeout() time.Duration { return cmp.Or(c.Timeout.Std(), defaultTimeout) }
