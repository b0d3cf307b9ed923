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
		FlushDBInterval: config.Duration(2 * time.Hour), SingleUserPUID: -1,
		Earnings: slparser.Earnings{BlockFeesSat: -1, PoolFeePercent: 101},
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
		"single_user_puid = -1: must not be negative",
		"earnings.block_fees_sat = -1: must be 0 to 1000000000000",
		"earnings.pool_fee_percent = 101: must be 0 to 100",
		"keep_days.workers_hour = 0: must be 1 to 36500",
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
	if err != nil || cfg.Day != 20231120 || cfg.Print.User != "0" || cfg.Base().Admin != "" {
		t.Errorf("%+v, %v", cfg, err)
	}
	cfg, err = parse("-d", "20231120-20240105", "-u", "7", "-format", "csv", "-worker", "rig", "-status", "22,stale", "-from", "08:00", "-to", "2024-01-05T12:00:00Z")
	if err != nil || cfg.Day != 20231120 || cfg.LastDay != 20240105 {
		t.Errorf("%+v, %v", cfg, err)
	}
	for _, args := range [][]string{{}, {"-u", "alice"}, {"-u", "0", "-worker", "rig*"}} {
		if _, err := parse(append([]string{"-d", "20231120"}, args...)...); err == nil || !strings.Contains(err.Error(), "database.dsn") {
			t.Errorf("%v without a database: %v", args, err)
		}
	}
	for _, args := range [][]string{
		{"-d", "20231320"},
		{"-d", "0"},
		{"-d", "20231120-20231119"},
		{"-d", "20231120-x"},
		{"-u", "1"},
		{"-d", "20231120", "-u", "-1"},
		{"-d", "20231120", "-u", "2147483648"},
		{"-d", "20231120", "-format", "csv"},
		{"-d", "20231120", "-u", "1", "-format", "xml"},
		{"-d", "20231120", "-u", "1", "-worker", "id=x"},
		{"-d", "20231120", "-u", "1", "-status", "good"},
		{"-d", "20231120", "-u", "1", "-status", ","},
		{"-d", "20231120", "-u", "1", "-from", "25:00"},
		{"-d", "20231120", "-u", "1", "-to", "yesterday"},
	} {
		if _, err := parse(args...); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	var stderr bytes.Buffer
	if code := service.Main("slparser", []string{"-u", "1"}, &stderr, slparser.DefaultConfig(), slparser.New); code != 2 || !strings.Contains(stderr.String(), "-u: needs -d") {
		t.Errorf("code %d, %s", code, stderr.String())
	}
}
