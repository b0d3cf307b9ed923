package service_test

import (
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
