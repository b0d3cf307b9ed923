package service_test

import (
	"os"
	"path/filepath"
	"testing"

	"btcpool/internal/service"
)

func TestOldEnvironment(t *testing.T) {
	type section struct {
		Token string `toml:"token" env:"TOKEN" oldenv:"THING_TOKEN"`
	}
	type cfg struct {
		Section section `toml:"section" envPrefix:"SECTION_"`
		Dir     string  `toml:"data_dir" env:"DATA_DIR" oldenv:"THING_DIR"`
		Listen  string  `toml:"listen" env:"LISTEN" oldenv:"THING_LISTEN"`
		Name    string  `toml:"name" env:"NAME" oldenv:"THING_NAME"`
	}
	t.Setenv("BTCPOOL_THING_TOKEN", "old")
	t.Setenv("BTCPOOL_THING_DIR", "old")
	t.Setenv("BTCPOOL_THING_LISTEN", "old")
	t.Setenv("BTCPOOL_LISTEN", "new")
	got := cfg{Name: "default"}
	if err := service.Load("", &got); err != nil {
		t.Fatal(err)
	}
	if want := (cfg{section{"old"}, "old", "new", "default"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMistypedEnvironment(t *testing.T) {
	type node struct {
		URL string `toml:"rpc_url" env:"RPC_URL"`
	}
	type cfg struct {
		Dir   string `toml:"data_dir" env:"DATA_DIR" oldenv:"THING_DIR"`
		Nodes []node `toml:"nodes" envPrefix:"NODES_"`
	}
	for name, want := range map[string]string{
		"BTCPOOL_DATA_DIR":              "",
		"BTCPOOL_THING_DIR":             "",
		"BTCPOOL_NODES_12_RPC_URL":      "",
		"BTCPOOL_HANDOVER_TOKEN":        "", // of another service
		"BTCPOOL_AUX_NODES_0_RPC_URL":   "", // and of a third
		"BTCPOOL_PORT_8080_TCP_ADDR":    "", // what Kubernetes tells of a service btcpool
		"BTCPOOL_SSERVER_SERVICE_HOST":  "",
		"BTCPOOL_ADMIN_PORT":            "environment: unknown variable BTCPOOL_ADMIN_PORT",
		"NOT_BTCPOOL_DATA_DIR":          "",
		"BTCPOOL_DATADIR":               "environment: unknown variable BTCPOOL_DATADIR: BTCPOOL_DATA_DIR is known",
		"BTCPOOL_NODES_0_RPC_ULR":       "environment: unknown variable BTCPOOL_NODES_0_RPC_ULR: BTCPOOL_NODES_0_RPC_URL is known",
		"BTCPOOL_NODES_RPC_URL":         "environment: unknown variable BTCPOOL_NODES_RPC_URL: BTCPOOL_NODES_0_RPC_URL is known",
		"BTCPOOL_SOMETHING_ELSE_WHOLLY": "environment: unknown variable BTCPOOL_SOMETHING_ELSE_WHOLLY",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "x")
			err := service.Load("", &cfg{})
			if (err == nil) != (want == "") || err != nil && err.Error() != want {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "thing.toml")
	if err := os.WriteFile(file, []byte("\xef\xbb\xbfname = \"thing\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg struct {
		Name string `toml:"name"`
	}
	if err := service.Load(file, &cfg); err != nil || cfg.Name != "thing" {
		t.Errorf("got %q, %v", cfg.Name, err)
	}
}
