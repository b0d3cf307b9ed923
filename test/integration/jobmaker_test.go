//go:build integration

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/bus/embedded"
	"btcpool/internal/job"
	"btcpool/internal/service"
	"btcpool/test/integration/rig"
)

// TestStandby runs two jobmakers on one lock: one makes jobs, and when it is
// killed the other goes on within 5 s.
func TestStandby(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	broker, err := embedded.Start(filepath.Join(dir, "kafka"), "127.0.0.1:0", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{broker.Addr()}
	client, err := bus.New(cfg, service.Deps{Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := client.EnsureTopics(t.Context(), cfg.Topics.RawGBT, cfg.Topics.Job); err != nil {
		t.Fatal(err)
	}

	// Templates each second, as a gbtmaker would send them; jobs as a sserver would see them.
	response, err := os.ReadFile(filepath.Join(rig.Root(t), "internal/job/testdata/core.gbt"))
	if err != nil {
		t.Fatal(err)
	}
	jobs := make(chan job.ID, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() {
		for n := 0; ctx.Err() == nil; n++ {
			raw := job.NewRawGBT(append(response, fmt.Sprintf("%*s", n, "")...), time.Now()) // no two are the same
			if err := client.Write(ctx, cfg.Topics.RawGBT, bus.Message{Value: raw.AppendTo(nil)}); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		done <- nil
	}()
	go func() {
		done <- client.Read(ctx, cfg.Topics.Job, bus.Earliest(), func(m bus.Message) error {
			j, err := job.ParseStratumJob(m.Value)
			if err == nil {
				jobs <- j.ID
			}
			return err
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})

	program := rig.Bin(t, "jobmaker")
	start := func(name string) *exec.Cmd {
		config := filepath.Join(dir, name+".toml")
		text := fmt.Sprintf("network = \"regtest\"\npayout_address = %q\njob_interval = \"1s\"\nserver_id = 0\nleader_lock_path = \"/locks/jobmaker_lead\"\n"+
			"[zookeeper]\nservers = [%q]\n[kafka]\nbrokers = [%q]\n", rig.PayoutAddress, z.Addr, broker.Addr())
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "-config", config)
		cmd.Stderr = t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		return cmd
	}
	next := func(limit time.Duration) job.ID {
		select {
		case id := <-jobs:
			return id
		case <-time.After(limit):
			t.Fatalf("no job within %v", limit)
			return 0
		}
	}

	conn := observer(t, z.Addr)
	leader := start("first")
	if id := next(30 * time.Second); id.Server() != 1 {
		t.Fatalf("job %x is not of the first jobmaker", uint64(id))
	}
	start("second")
	waitFor(t, conn, "/locks/jobmaker_lead", "lock", "lock")
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		if id := next(5 * time.Second); id.Server() != 1 {
			t.Fatalf("job %x while the first jobmaker leads", uint64(id))
		}
	}
	killed := time.Now()
	if err := leader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for next(5*time.Second-time.Since(killed)).Server() != 2 {
	}
	t.Logf("jobs go on after %v", time.Since(killed).Round(time.Millisecond))
}
