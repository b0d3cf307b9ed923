package statshttpd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/config"
	"btcpool/internal/notify"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/statshttpd"
)

// The shipped file must load, and say what the defaults are.
func TestShippedConfig(t *testing.T) {
	t.Parallel()
	got := statshttpd.DefaultConfig()
	if err := service.Load("../configs/statshttpd.toml", &got); err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	want := statshttpd.DefaultConfig()
	want.Admin = "127.0.0.1:9107"
	want.StopTimeout = config.Duration(30 * time.Second)
	want.Log = service.Log{Level: "info", Format: "json"}
	want.Network = "mainnet"
	want.Notify.DataDir = "/var/lib/btcpool/statshttpd"
	want.StratumURL = "stratum+tcp://pool.example.org:3333"
	want.CheckpointFile = "/var/lib/btcpool/statshttpd/checkpoint"
	want.Database.DSN = "mysql://btcpool:password@tcp(127.0.0.1:3306)/btcpool"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configs/statshttpd.toml (-default +file):\n%s", diff)
	}
	testkit.SampleNames(t, "../configs/statshttpd.toml", got, "kafka.topics.")
}

func TestConfigNamesEveryFault(t *testing.T) {
	t.Parallel()
	cfg := statshttpd.DefaultConfig()
	cfg.Listen = "8080"
	cfg.MaxConnections = 0
	cfg.StratumURL = "pool.example.org:3333"
	cfg.FlushDBInterval = config.Duration(time.Millisecond)
	cfg.MaxWorkers = 0
	cfg.Kafka.Brokers = nil
	err := cfg.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, part := range []string{`listen = "8080"`, "max_connections = 0", `stratum_url: "pool.example.org:3333"`, `flush_db_interval = "1ms"`, "max_workers = 0", "kafka.brokers", "database.dsn"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in:\n%v", part, err)
		}
	}
	if _, err := statshttpd.New(cfg, service.Deps{}); err == nil {
		t.Error("a service was made of it")
	}
}

// A checkpoint is of use for 50 minutes: the next one comes well before these are over.
func TestCheckpointInterval(t *testing.T) {
	t.Parallel()
	cfg := statshttpd.DefaultConfig()
	cfg.Database.DSN = "sqlite:pool.db"
	for d, valid := range map[time.Duration]bool{
		time.Millisecond: false, time.Second: true, 30 * time.Minute: true, 30*time.Minute + time.Second: false, time.Hour: false,
	} {
		cfg.CheckpointInterval = config.Duration(d)
		if err := cfg.Validate(); (err == nil) != valid || !valid && !strings.Contains(err.Error(), "checkpoint_interval") {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// Where files are may come from the environment.
func TestFilesFromEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "statshttpd.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BTCPOOL_CHECKPOINT_FILE", "/data/checkpoint")
	t.Setenv("BTCPOOL_REDIS_URL_FILE", "/run/secrets/redis")
	cfg := statshttpd.DefaultConfig()
	if err := service.Load(file, &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.CheckpointFile != "/data/checkpoint" || cfg.Redis.URLFile != "/run/secrets/redis" {
		t.Errorf("checkpoint_file %q, redis.url_file %q", cfg.CheckpointFile, cfg.Redis.URLFile)
	}
}

// What is secret may come from the environment, for a target that the file has.
func TestNotifyFromEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "statshttpd.toml")
	if err := os.WriteFile(file, []byte("[[notify.targets]]\nname = 'a'\nkind = 'ntfy'\nto = ['x']\n[[notify.targets]]\nname = 'b'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BTCPOOL_NOTIFY_TARGETS_0_SECRET", "tk_1")
	t.Setenv("BTCPOOL_NOTIFY_TARGETS_1_URL", "https://example.org/hook")
	cfg := statshttpd.DefaultConfig()
	if err := service.Load(file, &cfg); err != nil {
		t.Fatal(err)
	}
	want := []notify.Target{{Name: "a", Kind: notify.Ntfy, To: []string{"x"}, Secret: "tk_1"}, {Name: "b", URL: "https://example.org/hook"}}
	if diff := cmp.Diff(want, cfg.Notify.Targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}
