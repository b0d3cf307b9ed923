package sserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/users"
)

// A server that loses its id hangs up and is not there any more; with the next id it is there again, at the same
// address.
func TestTerms(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = t.TempDir()
	cfg.Users.Kind = users.Static
	cfg.Users.Static = map[string]int32{"alice": 7}
	cfg.ServerID = 0
	cfg.ZooKeeper.Servers = []string{"127.0.0.1:1"}
	cfg.Drain.Grace = config.Duration(time.Second) // of no meaning to who has lost its id
	s, err := New(cfg, service.Deps{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	gone := func(when string) {
		t.Helper()
		if conn, err := net.Dial("tcp", s.Addr().String()); err == nil {
			conn.Close()
			t.Errorf("%s: it listens", when)
		}
		if err := s.Ready(); !errors.Is(err, errNoServerID) {
			t.Errorf("%s: ready: %v", when, err)
		}
	}
	gone("before the first id")
	for _, id := range []uint8{9, 200} {
		held, lose := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.term(t.Context(), t.Context(), held, id, func() { t.Error("it prepares to stop for good") })
		}()
		testkit.Eventually(t, "it has its id", func() bool { return s.serverID.Load() != 0 })
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(conn, `{"id":1,"method":"mining.subscribe","params":[]}`)
		r := bufio.NewReader(conn)
		line, err := r.ReadString('\n')
		if want := fmt.Sprintf(`,"%02x`, id); err != nil || !strings.Contains(line, want) {
			t.Errorf("extranonce1 of another server: %s, %v", line, err)
		}
		lose(fmt.Errorf("%w to a test", registry.ErrLost))
		if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil && errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the loss: %q, %v", rest, err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		gone("after the loss")
	}
}

func TestValidateID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, fault string
		change      func(*Config)
	}{
		{"fixed", "", func(*Config) {}},
		{"leased", "", func(c *Config) { c.ServerID, c.ZooKeeper.Servers = 0, []string{"10.0.0.1:2181"} }},
		{"neither", "server_id = 0", func(c *Config) { c.ServerID = 0 }},
		{"no path", "zookeeper_lock_path", func(c *Config) {
			c.ServerID, c.ZooKeeper.Servers, c.LockPath = 0, []string{"10.0.0.1:2181"}, "locks"
		}},
		{"a bad server", "zookeeper.servers", func(c *Config) { c.ZooKeeper.Servers = []string{"x"} }},
	} {
		cfg := DefaultConfig()
		test.change(&cfg)
		err := cfg.Validate()
		if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
