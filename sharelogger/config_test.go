package sharelogger_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/sharelogger"
)

func TestShippedConfig(t *testing.T) {
	t.Parallel()
	got := sharelogger.DefaultConfig()
	if err := service.Load("../configs/sharelogger.toml", &got); err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(); err != nil {
		t.Fatal(err)
	}
	got.Common = service.Common{} // the file shows values that have no default
	got.DataDir = sharelogger.DefaultConfig().DataDir
	if diff := cmp.Diff(sharelogger.DefaultConfig(), got); diff != "" {
		t.Errorf("the file does not show the defaults (-default +file):\n%s", diff)
	}
	testkit.SampleNames(t, "../configs/sharelogger.toml", got, "kafka.topics.")
}

func TestValidate(t *testing.T) {
	t.Parallel()
	cfg := sharelogger.DefaultConfig()
	cfg.DataDir = ""
	cfg.Chain = "../x"
	cfg.FlushInterval = config.Duration(time.Hour)
	cfg.FlushBytes, cfg.CompressionLevel = 1, 10
	cfg.FileMode = "0755"
	cfg.Start = "now"
	cfg.Kafka.Brokers = nil
	cfg.Seal.Archive.Folder = "archive"
	cfg.Repair, cfg.VerifyDay = 20240101, 20240101
	if _, err := sharelogger.New(cfg, service.Deps{}); err == nil {
		t.Error("a service was made of it")
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{
		`data_dir = "": must name a folder`,
		`chain = "../x": chain must be 1 to 16 letters and digits`,
		`flush_interval = "1h0m0s": must be 10ms to 1m`,
		"flush_bytes = 1: must be 65536 to 67108864",
		"compression_level = 10: must be -1 to 9",
		`file_mode = "0755": must be an octal number from 0600 to 0666, or empty`,
		`start = "now": must be earliest, latest or empty`,
		"kafka.brokers",
		"seal.archive: needs seal.after",
		"-repair, -seal, -verify: only one of them",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}

func TestFileModeText(t *testing.T) {
	t.Parallel()
	for text, valid := range map[string]bool{
		"": true, "0640": true, "600": true, "0666": true,
		"0": false, "0440": false, "0777": false, "01640": false, "rw-r-----": false, "0680": false, "-1": false, "0o640": false,
	} {
		cfg := sharelogger.DefaultConfig()
		cfg.FileMode = text
		if err := cfg.Validate(); (err == nil) != valid {
			t.Errorf("file_mode %q: %v", text, err)
		}
	}
}
