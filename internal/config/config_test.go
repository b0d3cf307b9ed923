package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/config"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	var f config.Faults
	f.Add(nil)
	f.In("kafka", nil)
	if err := f.Err(); err != nil {
		t.Fatalf("without faults: %v", err)
	}
	f.Listen("listen", "0.0.0.0:3333")
	f.Listen("listen", ":0")
	f.Listen("listen", "3333")
	f.Listen("http", "localhost:http")
	f.AtLeast("interval", config.Duration(time.Second), time.Second)
	f.AtLeast("interval", config.Duration(time.Millisecond), time.Second)
	f.AtLeast("grace", -1, 0)
	f.In("nodes[1]", errors.Join(errors.New("rpc_url: is empty"), errors.Join(errors.New("name: is empty"))))
	f.In("users", fmt.Errorf("list: %w: %w", errors.New("a"), errors.New("b")))
	want := `listen = "3333": must be host:port
http = "localhost:http": port must be 0 to 65535
interval = "1ms": must be at least 1s
grace = "-1ns": must not be negative
nodes[1].rpc_url: is empty
nodes[1].name: is empty
users.list: a: b`
	if diff := cmp.Diff(want, f.Err().Error()); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestPeer(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"", "host", "host:", ":1", "host:0", "host:65536", "host:http"} {
		if _, _, err := config.Peer(addr); err == nil {
			t.Errorf("%q was taken", addr)
		}
	}
	if host, port, err := config.Peer("[::1]:8332"); host != "::1" || port != 8332 || err != nil {
		t.Errorf("got %q, %d, %v", host, port, err)
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		"0.0.0.0:1": false, ":1": false, "[::]:1": false, "10.0.0.1:1": false, "127.0.0.1": false,
	} {
		if got := config.IsLoopback(addr); got != want {
			t.Errorf("%q: got %v", addr, got)
		}
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("\n swordfish and chips \r\nof May\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []config.Secret{{Key: "a"}, {Key: "a", Value: "v"}, {Key: "a", File: file}} {
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if err := (config.Secret{Key: "node.password", Value: "v", File: file}).Validate(); err == nil {
		t.Error("both value and file were taken")
	}
	if got, err := (config.Secret{File: file}).Read(); got != "swordfish and chips" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := config.Secret{Key: "node.password", File: file + ".missing"}.Read()
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for _, token := range []config.Token{{Key: "t", Value: "too short"}, {Key: "t", Value: "has a space in the middle"}} {
		if err := token.Validate(); err == nil {
			t.Errorf("%q was taken", token.Value)
		}
	}
	if _, err := (config.Token{Key: "t", File: file}).Read(); err == nil {
		t.Error("a file's text with spaces was taken for a token")
	}
}
