package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/service"
)

// reloader is a service that goes over to any configuration but one with an interval.
type reloader struct {
	runner
	log  zerolog.Logger
	took chan testConfig
}

func (r *reloader) Reload(_ context.Context, cfg testConfig) error {
	if cfg.Interval > 0 {
		return errors.New("port taken")
	}
	r.log.Debug().Msg("going over")
	r.took <- cfg
	return nil
}

// On SIGHUP file, environment and flags are read again. What is wrong changes nothing; what needs a restart is named.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	path, logPath := filepath.Join(dir, "frame.toml"), filepath.Join(dir, "frame.log")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("BTCPOOL_NAME", "of the environment")
	write("admin = \"127.0.0.1:0\"\nname = \"of the file\"")
	took := make(chan testConfig, 1)
	p := startMain(t, func(stderr io.Writer) int {
		return service.Program[testConfig, *reloader]{
			Name: "frame", Stderr: stderr, LogFile: logPath, AlsoStderr: true,
			Defaults: func() (testConfig, []string, error) { return defaults(), nil, nil },
			Build: func(_ testConfig, deps service.Deps) (*reloader, error) {
				return &reloader{runner{
					run:   func(ctx context.Context) error { <-ctx.Done(); return nil },
					ready: func() error { return nil },
				}, deps.Log, took}, nil
			},
		}.Main([]string{"-config", path})
	})
	admin := "http://" + p.logged("admin listening")["addr"].(string)
	p.logged("ready")
	hangUp := func() {
		t.Helper()
		if err := signalSelf(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	successful := func(want int) {
		t.Helper()
		if _, metrics := get(t, admin+"/metrics"); !strings.Contains(metrics, fmt.Sprintf("\nbtcpool_config_last_reload_successful %d\n", want)) {
			t.Errorf("btcpool_config_last_reload_successful is not %d", want)
		}
	}
	successful(1)

	if err := os.Rename(logPath, logPath+".old"); err != nil {
		t.Fatal(err)
	}
	for text, fault := range map[string]string{
		"nome = \"x\"":                        `unknown key "nome"`,
		"[log]\nlevel = \"loud\"":             `log.level = "loud"`,
		"interval = \"1s\"\nname = \"taken\"": "port taken",
	} {
		write(text)
		hangUp()
		line := p.logged("the new configuration is not used, the old one stays")
		if got, _ := line["error"].(string); !strings.Contains(got, fault) || line["level"] != "error" {
			t.Errorf("%s: got %v", text, line)
		}
		successful(0)
	}
	if text, err := os.ReadFile(logPath); err != nil || strings.Count(string(text), "the old one stays") != 3 {
		t.Errorf("the log file was not opened again: %v, %s", err, text)
	}

	write("admin = \"127.0.0.1:1\"\n[kafka]\nbrokers = [\"a:1\"]\n[log]\nlevel = \"debug\"\nformat = \"console\"")
	hangUp()
	cfg := <-took
	if cfg.Name != "of the environment" || cfg.Admin != "127.0.0.1:0" || cfg.Log != (service.Log{Level: "debug"}) {
		t.Errorf("took %+v", cfg)
	}
	if diff := cmp.Diff([]any{"admin", "log.format"}, p.logged("these keys have changed and need a restart")["keys"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]any{"log.level", "kafka.brokers"}, p.logged("configuration read again")["changed"]); diff != "" {
		t.Error(diff)
	}
	successful(1)
	hangUp()
	<-took
	p.logged("going over") // which is debug now
	if changed := p.logged("configuration read again")["changed"].([]any); len(changed) > 0 {
		t.Errorf("changed: %v", changed)
	}
	p.kill()
	p.exits(0)
}
