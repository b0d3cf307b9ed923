package users_test

import (
	"strings"
	"testing"

	"btcpool/internal/users"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*users.Config)
		others []users.Source
		want   string // how a line of the error begins; "": valid
	}{
		{"defaults", func(*users.Config) {}, nil, ""},
		{"source", func(c *users.Config) { c.Kind = "friends" }, nil, `source = "friends": must be open, address, database, api or static`},
		{"network", func(c *users.Config) { c.Kind, c.Network = "address", "moon" }, nil, `network = "moon": `},
		{"network of no interest", func(c *users.Config) { c.Network = "moon" }, []users.Source{{Kind: "database"}}, ""},
		{"network of others", func(c *users.Config) { c.Network = "moon" }, []users.Source{{Kind: "database"}, {Kind: "address"}}, `network = "moon": `},
		{"others by themselves", func(*users.Config) {}, []users.Source{{Kind: "friends"}}, ""},
		{"list interval", func(c *users.Config) { c.ListInterval = 0 }, nil, `list_interval = "0s": must be at least 1s`},
		{"reload interval", func(c *users.Config) { c.ReloadInterval = 1 }, nil, `reload_interval = "1ns": must be at least 1s`},
		{"deadline", func(c *users.Config) { c.LoginDeadline = -1 }, nil, `login_deadline = "-1ns": must be at least 1s`},
		{"list", func(c *users.Config) { c.Kind, c.ListURL = "api", "ftp://a/" }, nil, `list_id_api_url = "ftp://a/": must be an http or https URL`},
		{"register", func(c *users.Config) { c.Kind, c.ListURL, c.RegisterURL = "api", "http://a/", "b" }, nil, `register_url = "b": must be an http or https URL`},
		{"login in a list", func(c *users.Config) { c.Kind, c.ListURL = "api", "ftp://me:secret@a/?token=secret" }, nil, `list_id_api_url = "ftp://…@a/?…": must be an http or https URL`},
		{"login in a register", func(c *users.Config) { c.RegisterURL = "http://me:secret@a/" }, nil, `register_url = "http://…@a/": is for source api only`},
		{"register nowhere", func(c *users.Config) { c.RegisterURL = "http://a/" }, nil, `register_url = "http://a/": is for source api only`},
		{"separator", func(c *users.Config) { c.StripUserSuffix, c.UserSuffixSeparator = true, "." }, nil, `user_suffix_separator = ".": must be a text without "." and "+"`},
		{"nobody", func(c *users.Config) { c.Kind = "static" }, nil, `static: must name at least one user`},
		{"no id", func(c *users.Config) { c.Kind, c.Static = "static", map[string]int32{"a": 0} }, nil, `static has "a" = 0: must be a name and an id above 0`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := users.DefaultConfig()
			test.change(&cfg)
			err := cfg.Validate(test.others...)
			if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
