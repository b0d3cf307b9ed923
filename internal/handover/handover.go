// Package handover is the direct way of a solved share from sserver to every
// blkmaker, beside the one through Kafka: whichever is there first wins, the
// other changes nothing.
//
// A solved share, as its topic has it, is the body of a POST to /solved. The
// request carries a secret that both sides know ("Authorization: Bearer").
// 204 says that blkmaker has the share on its disk, 400 that it is none, 401
// that the secrets differ; everything else asks for another try.
package handover

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

const (
	path = "/solved"
	// maxBody bounds a solved share: a coinbase of 4 MB would leave no room for
	// anything else in a block.
	maxBody = 1 << 20
	// minToken keeps secrets from being guessed.
	minToken = 16
)

// Secret is what both sides know.
type Secret struct {
	Token     string `toml:"token" env:"HANDOVER_TOKEN"`
	TokenFile string `toml:"token_file" env:"HANDOVER_TOKEN_FILE"` // its text, without space around it, is the token
}

// validate reports what is wrong without opening the file.
func (s Secret) validate() error {
	switch {
	case s.Token == "" && s.TokenFile == "":
		return errors.New("handover.token_file: is empty: name a file with a secret that sserver and blkmaker share")
	case s.Token != "" && s.TokenFile != "":
		return errors.New("handover.token, handover.token_file: only one of them may be set")
	case s.Token != "":
		return checkToken("handover.token", s.Token)
	}
	return nil
}

func checkToken(key, token string) error {
	if len(token) < minToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%s: must be %d printable characters or more, without spaces", key, minToken)
	}
	return nil
}

func (s Secret) read() (string, error) {
	if s.TokenFile == "" {
		return s.Token, nil
	}
	text, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return "", fmt.Errorf("handover.token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	return token, checkToken("handover.token_file: "+s.TokenFile, token)
}

// Config is sserver's section [handover].
type Config struct {
	URLs   []string `toml:"urls" env:"HANDOVER_URLS"` // http://host:port of every blkmaker; none: solved shares go through Kafka alone
	Secret          // toml: token, token_file
}

// Validate reports all faults.
func (c Config) Validate() error {
	if len(c.URLs) == 0 {
		return nil
	}
	errs := []error{c.validate()}
	for i, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			errs = append(errs, fmt.Errorf("handover.urls[%d] = %q: must be like http://127.0.0.1:8300", i, text))
		}
	}
	return errors.Join(errs...)
}

// ServerConfig is blkmaker's section [handover].
type ServerConfig struct {
	Listen string `toml:"listen" env:"HANDOVER_LISTEN"` // host:port; "" = none: solved shares come through Kafka alone
	Secret        // toml: token, token_file
}

// Validate reports all faults.
func (c ServerConfig) Validate() error {
	if c.Listen == "" {
		return nil
	}
	return c.validate()
}
