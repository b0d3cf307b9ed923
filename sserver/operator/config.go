package operator

import (
	"strings"

	"btcpool/internal/bus"
	"btcpool/internal/config"
)

// APIConfig is the section [admin_api]. Who reaches the API can send all miners
// elsewhere: it is on this machine only.
type APIConfig struct {
	// Listen is a loopback address as host:port, or "unix:/path"; "": no API.
	Listen string `toml:"listen" env:"LISTEN" oldenv:"SSERVER_ADMIN_API"`
	// Token is what requests must show; TokenFile is a file with it instead. A socket may do without.
	Token     string `toml:"token" env:"TOKEN" oldenv:"SSERVER_ADMIN_TOKEN"`
	TokenFile string `toml:"token_file" env:"TOKEN_FILE" oldenv:"SSERVER_ADMIN_TOKEN_FILE"`
}

const unixScheme = "unix:"

func (c APIConfig) token() config.Token {
	return config.Token{Key: "token", Value: c.Token, File: c.TokenFile}
}

// ReadToken returns what requests must show, "" for a socket that does without.
func (c APIConfig) ReadToken() (string, error) { return c.token().Read() }

// Validate reports all faults, keys without the section's name.
func (c APIConfig) Validate() error {
	if c.Listen == "" {
		return nil
	}
	var faults config.Faults
	path, unix := strings.CutPrefix(c.Listen, unixScheme)
	switch {
	case unix && path == "":
		faults.Addf("listen = %q: must be like \"unix:/run/sserver.sock\"", c.Listen)
	case !unix:
		before := len(faults)
		if faults.Listen("listen", c.Listen); len(faults) == before && !config.IsLoopback(c.Listen) {
			faults.Addf(`listen = %q: must be an address of this machine only, like "127.0.0.1:9120", or "unix:/path"`, c.Listen)
		}
	}
	faults.Add(c.token().Validate())
	if config.Secret(c.token()).IsZero() && !unix {
		faults.Addf("token_file: is empty: every user of this machine reaches a port, so name a file with a secret")
	}
	return faults.Err()
}

// CommandsConfig is the section [management].
type CommandsConfig struct {
	Enabled bool `toml:"enabled"`
	// ControllerTopic is that of commands, ProcessorTopic that of replies and notifications.
	ControllerTopic string `toml:"controller_topic"`
	ProcessorTopic  string `toml:"processor_topic"`
}

// DefaultCommands returns btcpool's names.
func DefaultCommands() CommandsConfig {
	return CommandsConfig{ControllerTopic: "BtcManController", ProcessorTopic: "BtcManProcessor"}
}

// Validate reports all faults, keys without the section's name. The topics must not be among those that are used for
// something else.
func (c CommandsConfig) Validate(used bus.Topics) error {
	if !c.Enabled {
		return nil
	}
	var faults config.Faults
	taken := map[string]bool{used.Job: true, used.Share: true, used.SolvedShare: true, used.CommonEvents: true, used.AuxSolved: true, used.RSKSolved: true}
	for _, t := range []struct{ key, name string }{{"controller_topic", c.ControllerTopic}, {"processor_topic", c.ProcessorTopic}} {
		if err := bus.CheckTopic(t.name); err != nil {
			faults.Addf("%s = %q: %w", t.key, t.name, err)
		} else if taken[t.name] {
			faults.Addf("%s = %q: is used for something else already", t.key, t.name)
		}
		taken[t.name] = true
	}
	return faults.Err()
}
