package switcher

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/config"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
)

// A switcher that stops takes nobody in, and disconnects its miners evenly over the time for that, by a reset.
func TestShutdown(t *testing.T) {
	t.Parallel()
	p := startPool(t, "a")
	cfg := testConfig(t, []Chain{chainOf("btc", p)})
	cfg.ShutdownGrace = config.Duration(time.Second)
	writeSnapshot(t, cfg, map[string]string{"alice": "btc"})
	s, err := New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	const n = 20
	ended := make(chan time.Time, n)
	for range n {
		m := dialMachine(t, s.Addrs()[0].String())
		m.login("alice")
		go func() {
			_ = m.SetReadDeadline(time.Now().Add(testkit.Patience))
			_, err := io.Copy(io.Discard, m.lines)
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a miner is disconnected by %v", err)
			}
			ended <- time.Now()
		}()
	}
	stop()
	var times []time.Time
	for range n {
		times = append(times, <-ended)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if first, last := times[0], times[n-1]; last.Sub(first) < 500*time.Millisecond {
		t.Errorf("miners are disconnected from %s to %s", first, last)
	}
}

// New closes what it has opened when it fails, and so does Close of one that has not run.
func TestCloseWithoutRun(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, []Chain{{Name: "btc", Servers: []Server{{Addr: "127.0.0.1:1"}}}})
	cfg.Listeners[0].Listen = testkit.FreeAddr(t)
	deps := func() service.Deps { return service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()} }
	taken := cfg
	taken.Status = cfg.Listeners[0].Listen
	if _, err := New(taken, deps()); err == nil {
		t.Fatal("two listen at one address")
	}
	for range 2 {
		s, err := New(cfg, deps())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Ready(); err == nil {
			t.Error("it is ready before it runs")
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}
