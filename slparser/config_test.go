package slparser_test

import (
	"bytes"
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/store"
	"btcpool/internal/testkit"
	"btcpool/slparser"
)

func TestShippedConfig(t *testing.T) {
	t.Parallel()
	got := slparser.DefaultConfig()
	if err := service.Load("../configs/slparser.toml", &got); err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	got.Common, got.Database = service.Common{}, store.Config{} // the file shows values that have no default
	got.DataDir = slparser.DefaultConfig().DataDir
	if diff := cmp.Diff(slparser.DefaultConfig(), got); diff != "" {
		t.Errorf("the file does not show the defaults (-default +file):\n%s", diff)
	}
	testkit.SampleNames(t, "../configs/slparser.toml", got)
}

func TestValidate(t *testing.T) {
	t.Parallel()
	cfg := slparser.Config{
		Network: "moon", Chain: "B-C", Listen: "8081", LateShares: -1,
		FlushDBInterval: config.Duration(2 * time.Hour),
	}
	if _, err := slparser.New(cfg, service.Deps{}); err == nil {
		t.Error("a service was made of it")
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{
		`network = "moon"`,
		`data_dir = "": must name a folder`,
		`chain = "B-C"`,
		`listen = "8081": must be host:port`,
		`flush_db_interval = "2h0m0s": must be 10ms to 1h`,
		`late_shares = "-1ns": must be 0s to 24h`,
		"database.dsn",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	parse := func(args ...string) (slparser.Config, error) {
		cfg := slparser.DefaultConfig()
		cfg.Admin = "127.0.0.1:1"
		flags := flag.NewFlagSet("slparser", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		cfg.Flags(flags)
		if err := flags.Parse(args); err != nil {
			return cfg, err
		}
		return cfg, cfg.Validate()
	}
	cfg, err := parse("-d", "20231120", "-u", "0")
	if err != nil || cfg.Day != 20231120 || cfg.User == nil || *cfg.User != 0 || cfg.Base().Admin != "" {
		t.Errorf("%+v, %v", cfg, err)
	}
	if _, err := parse("-d", "20231120"); err == nil || !strings.Contains(err.Error(), "database.dsn") {
		t.Errorf("without a database: %v", err)
	}
	for _, args := range [][]string{{"-d", "20231320"}, {"-d", "0"}, {"-u", "-1"}, {"-u", "x"}, {"-u", "2147483648"}, {"-u", "1"}} {
		if _, err := parse(args...); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	var stderr bytes.Buffer
	if code := service.Main("slparser", []string{"-u", "1"}, &stderr, slparser.DefaultConfig(), slparser.New); code != 2 || !strings.Contains(stderr.String(), "-u: needs -d") {
		t.Errorf("code %d, %s", code, stderr.String())
	}
}
