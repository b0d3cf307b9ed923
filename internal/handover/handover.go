// Package handover is the direct way of a solved share from sserver to every blkmaker, beside the one through Kafka:
// whichever is there first wins, the other changes nothing.
//
// A solved share, as its topic has it, is the body of a POST to /solved, with the
// worker's whole name in a header if the share has but its beginning. The request
// carries a secret that both sides know ("Authorization: Bearer").
// 204 says that blkmaker has the share on its disk, 400 that it is none, 401
// that the secrets differ; everything else asks for another try. An empty body is
// a probe: would a share be taken?
package handover

import (
	"errors"
	"net/url"
	"strings"

	"btcpool/internal/config"
)

const (
	path = "/solved"
	// nameHeader has what share.CutName cuts off.
	nameHeader = "Worker"
	// maxBody bounds a solved share: a coinbase of 4 MB would leave no room for anything else in a block.
	maxBody = 1 << 20
)

// Secret is what both sides know: a value or the name of a file that holds it, as config.Token takes them.
type Secret struct {
	Token     string `toml:"token" env:"HANDOVER_TOKEN"`
	TokenFile string `toml:"token_file" env:"HANDOVER_TOKEN_FILE"`
}

func (s Secret) token() config.Token {
	return config.Token{Key: "handover.token", Value: s.Token, File: s.TokenFile}
}

// Read returns the secret, from its file if that is where it is.
func (s Secret) Read() (string, error) { return s.token().Read() }

// validate reports what is wrong without opening the file.
func (s Secret) validate() error {
	if s == (Secret{}) {
		return errors.New("handover.token_file: is empty: name a file with a secret that sserver and blkmaker share")
	}
	return s.token().Validate()
}

// Config is sserver's section [handover].
type Config struct {
	// URLs are http://host:port of every blkmaker. Without any, solved shares go through Kafka alone.
	URLs []string `toml:"urls" env:"HANDOVER_URLS"`
	Secret
}

// Validate reports all faults.
func (c Config) Validate() error {
	if len(c.URLs) == 0 {
		return nil
	}
	var faults config.Faults
	faults.Add(c.validate())
	for i, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			faults.Addf("handover.urls[%d] = %q: must be like http://127.0.0.1:8300", i, config.RedactURL(text))
		}
	}
	return faults.Err()
}

// ServerConfig is blkmaker's section [handover].
type ServerConfig struct {
	// Listen is host:port; port 0 is any free one. Empty: solved shares come through Kafka alone.
	Listen string `toml:"listen" env:"HANDOVER_LISTEN"`
	Secret
}

// Validate reports all faults.
func (c ServerConfig) Validate() error {
	if c.Listen == "" {
		return nil
	}
	return c.validate()
}
