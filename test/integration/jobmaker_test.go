//go:build integration

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/retry"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestStandby runs two jobmakers on one lock: one makes jobs, and when it is killed the other goes on within 5 s.
func TestStandby(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	cfg := testkit.Broker(t)
	client := testkit.Bus(t, cfg, cfg.Topics.RawGBT, cfg.Topics.Job)

	// Templates each second, as a gbtmaker would send them; jobs as a sserver would see them.
	response, err := os.ReadFile(filepath.Join(rig.Root(t), "internal/job/testdata/core.gbt"))
	if err != nil {
		t.Fatal(err)
	}
	jobs := make(chan job.ID, 1000)
	testkit.Run(t, func(ctx context.Context) error {
		for n := 0; ctx.Err() == nil; n++ {
			raw := job.NewRawGBT(append(response, fmt.Sprintf("%*s", n, "")...), time.Now()) // no two are the same
			if err := client.Write(ctx, cfg.Topics.RawGBT, bus.Message{Value: raw.AppendTo(nil)}); err != nil && ctx.Err() == nil {
				return err
			}
			retry.Sleep(ctx, time.Second)
		}
		return nil
	})
	testkit.Run(t, func(ctx context.Context) error {
		return client.Read(ctx, cfg.Topics.Job, bus.Earliest(), func(m bus.Message) error {
			j, err := job.ParseStratumJob(m.Value)
			if err == nil {
				jobs <- j.ID
			}
			return err
		})
	})

	start := func(name string) *rig.Process {
		return rig.StartService(t, dir, name, "jobmaker", fmt.Sprintf(
			"network = \"regtest\"\npayout_address = %q\njob_interval = \"1s\"\nserver_id = 0\nleader_lock_path = \"/locks/jobmaker_lead\"\n"+
				"[zookeeper]\nservers = [%q]\n[kafka]\nbrokers = [%q]\n", rig.PayoutAddress, z.Addr, cfg.Brokers[0]))
	}
	next := func() job.ID {
		select {
		case id := <-jobs:
			return id
		case <-time.After(testkit.Patience):
			t.Fatal("no job")
			return 0
		}
	}

	conn := observer(t, z.Addr)
	leader := start("first")
	if id := next(); id.Server() != 1 {
		t.Fatalf("job %x is not of the first jobmaker", uint64(id))
	}
	standby := start("second")
	waitFor(t, conn, "/locks/jobmaker_lead", "lock", "lock")
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		if id := next(); id.Server() != 1 {
			t.Fatalf("job %x while the first jobmaker leads", uint64(id))
		}
	}
	for was, tries := uint8(1), 0; ; tries++ { // the machine itself may be slow now and then
		killed := time.Now()
		leader.Kill()
		now := next().Server()
		for now == was {
			now = next().Server()
		}
		took := time.Since(killed)
		t.Logf("jobs of %d go on after %v", now, took.Round(time.Millisecond))
		if tries == 0 && now != 2 {
			t.Fatalf("job of %d, want the second's", now)
		}
		if took <= 5*time.Second {
			return
		}
		if tries == 3 {
			t.Fatal("never within 5 s")
		}
		leader.Start()
		waitFor(t, conn, "/locks/jobmaker_lead", "lock", "lock")
		leader, standby, was = standby, leader, now
	}
}
