package service

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"btcpool/internal/config"

	"github.com/caarlos0/env/v11"
	"github.com/pelletier/go-toml/v2"
)

// EnvPrefix begins the name of every environment variable that overrides a key.
const EnvPrefix = "BTCPOOL_"

// A Config is what a service is configured by. It embeds Common.
type Config interface {
	// Validate reports everything that is wrong at once (errors.Join), each error naming key, value and rule. Common is
	// validated by the frame.
	Validate() error
	Base() Common
}

// Common holds the keys that every service has.
type Common struct {
	Admin       string          `toml:"admin" env:"ADMIN" reload:"no"`               // host:port of /metrics, /healthz and /readyz; empty: none; port 0: any free one
	StopTimeout config.Duration `toml:"stop_timeout" env:"STOP_TIMEOUT" reload:"no"` // how long draining may take after SIGTERM; 0: 30 s
	Log         Log             `toml:"log" envPrefix:"LOG_"`
}

// Base returns the common part; embedding Common makes a Config of a struct that has Validate.
func (c Common) Base() Common { return c }

func (c Common) validate() error {
	var faults config.Faults
	if c.Admin != "" {
		faults.Listen("admin", c.Admin)
	}
	faults.AtLeast("stop_timeout", c.StopTimeout, 0)
	faults.In("log", c.Log.validate())
	return faults.Err()
}

// StopGrace is how long draining may take.
func (c Common) StopGrace() time.Duration {
	if c.StopTimeout == 0 {
		return 30 * time.Second
	}
	return c.StopTimeout.Std()
}

// Load reads the TOML file at path over *cfg, then the environment variables named by env tags with EnvPrefix over
// that; an empty path leaves the file out. A key that *cfg does not have is an error which shows its line.
//
// A variable that had another name once is still read by that: the field's oldenv tag. One that begins with EnvPrefix
// and is known to no service of the project is an error: somebody has mistyped it.
func Load[C any](path string, cfg *C) error {
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // which Windows' editors begin a file with
		dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
		if err := dec.Decode(cfg); err != nil {
			return fileError(path, err)
		}
	}
	if err := unknownVariables(*cfg); err != nil {
		return err
	}
	variables := env.ToMap(os.Environ())
	for old, now := range outdatedEnv(*cfg) {
		variables[EnvPrefix+now] = variables[EnvPrefix+old]
	}
	err := env.ParseWithOptions(cfg, env.Options{Prefix: EnvPrefix, Environment: variables})
	var all env.AggregateError
	if errors.As(err, &all) {
		return fmt.Errorf("environment %s*: %w", EnvPrefix, errors.Join(all.Errors...))
	}
	return err
}

// secretKey is a key of a file whose value nobody but the program should read, with what stands before the value, and
// login what a URL has before its host.
var (
	secretKey = regexp.MustCompile(`(?i)([\w-]*(?:pass|secret|token|dsn)[\w-]*["']?\s*=\s*).*`)
	login     = regexp.MustCompile(`://[^\s"']*@`)
)

// hideSecrets returns what is shown of a file without the values of secret keys; names of files are none.
func hideSecrets(text string) string {
	text = secretKey.ReplaceAllStringFunc(text, func(line string) string {
		key, _, _ := strings.Cut(line, "=")
		if strings.HasSuffix(strings.TrimRight(key, "\"' \t"), "_file") {
			return line
		}
		return secretKey.ReplaceAllString(line, "$1…")
	})
	return login.ReplaceAllString(text, "://…@")
}

// fileError puts file, line and the text with a caret into err, but for secrets.
func fileError(path string, err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		faults := make([]error, len(unknown.Errors))
		for i := range unknown.Errors {
			at := &unknown.Errors[i]
			line, _ := at.Position()
			faults[i] = fmt.Errorf("%s:%d: unknown key %q\n%s", path, line, strings.Join(at.Key(), "."), hideSecrets(at.String()))
		}
		return errors.Join(faults...)
	}
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Errorf("%s:%d:%d:\n%s", path, line, column, hideSecrets(at.String()))
	}
	return fmt.Errorf("%s: %w", path, err)
}
