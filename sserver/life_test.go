package sserver_test

import (
	"os"
	"path/filepath"
	"testing"

	"btcpool/internal/share"
)

// After kill -9 the next life says that the sessions of the one before are over.
func TestEarlierLife(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	serving := filepath.Join(cfg.DataDir, "serving")
	if err := os.WriteFile(serving, []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPool(t, cfg)
	p.dial().login()
	if text, err := os.ReadFile(serving); err != nil || string(text) != "1\n" {
		t.Errorf("served as %q, %v", text, err)
	}
	p.stop()
	if _, err := os.Stat(serving); !os.IsNotExist(err) {
		t.Errorf("still says that it serves: %v", err)
	}
	e, err := share.ParseEvent(readTopic(t, cfg, cfg.Kafka.Topics.CommonEvents, 3)[0])
	if err != nil || e.Action != share.ServerDead || e.SessionID != 7<<24 {
		t.Errorf("event %+v, %v", e, err)
	}
}
