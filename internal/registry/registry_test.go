package registry_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"btcpool/internal/config"
	"btcpool/internal/registry"
	"btcpool/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newRegistry(t *testing.T, servers ...string) *registry.Registry {
	t.Helper()
	cfg := registry.DefaultConfig()
	cfg.Servers = servers
	r, err := registry.New(cfg, telemetry.Deps{Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*registry.Config)
		want   []string
	}{
		"default":  {func(*registry.Config) {}, nil},
		"ensemble": {func(c *registry.Config) { c.Servers = []string{"zk1:2181", "[::1]:2181"} }, nil},
		"all wrong": {
			func(c *registry.Config) {
				c.Servers = []string{"zk1", ":2181", "zk1:0", "zk1:x"}
				c.SessionTimeout = config.Duration(time.Second)
			},
			[]string{
				`zookeeper.servers has "zk1": must be host:port`,
				`zookeeper.servers has ":2181": must be host:port`,
				`zookeeper.servers has "zk1:0": must be host:port`,
				`zookeeper.servers has "zk1:x": must be host:port`,
				`zookeeper.session_timeout = "1s": must be 2s to 5m`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := registry.DefaultConfig()
			tc.change(&cfg)
			var got []string
			if err := cfg.Validate(); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestValidatePath(t *testing.T) {
	t.Parallel()
	for path, ok := range map[string]bool{
		"/locks/sserver_btc":           true,
		"/a":                           true,
		"":                             false,
		"/":                            false,
		"locks":                        false,
		"/locks/":                      false,
		"/locks//a":                    false,
		"/locks/../a":                  false,
		"/locks/\x00":                  false,
		"/" + strings.Repeat("a", 255): false,
	} {
		if err := registry.ValidatePath(path); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestWithoutZooKeeper(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	ours := errors.New("ours")
	err := r.Lease(t.Context(), "", 7, func(ctx context.Context, l registry.Lease) error {
		if epoch, err := l.Epoch(ctx, 5); l.ID != 7 || epoch != 5 || err != nil {
			t.Errorf("id %d, epoch %d, %v", l.ID, epoch, err)
		}
		return ours
	})
	if !errors.Is(err, ours) {
		t.Errorf("Lease: %v", err)
	}
	if err := r.Lead(t.Context(), "/locks/a", func(context.Context) error { return ours }); !errors.Is(err, ours) {
		t.Errorf("Lead: %v", err)
	}
	if err := r.Lease(t.Context(), "/locks/a", 0, func(context.Context, registry.Lease) error { return nil }); err == nil {
		t.Error("an id out of nothing")
	}
}

// TestNoServer has servers that refuse, say nothing, hang up or talk nonsense.
func TestNoServer(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"refuses": nil,
		"silent":  func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"hangs up": func(c net.Conn) {
			c.Close()
		},
		"nonsense": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			if serve == nil {
				ln.Close()
			} else {
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						go func() {
							defer c.Close()
							serve(c)
						}()
					}
				}()
			}
			r := newRegistry(t, ln.Addr().String())
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			ran := func() { t.Error("ran without ZooKeeper") }
			done := make(chan error)
			go func() {
				done <- r.Lead(ctx, "/locks/a", func(context.Context) error { ran(); return nil })
			}()
			err = r.Lease(ctx, "/locks/a", 0, func(context.Context, registry.Lease) error { ran(); return nil })
			if err := errors.Join(err, <-done); err != nil {
				t.Errorf("after the end of ctx: %v", err)
			}
		})
	}
}
