//go:build integration

package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/job"
	"btcpool/internal/registry"
	"btcpool/internal/service"
	"btcpool/internal/testkit"
	"btcpool/internal/upgrade/upgradetest"
	"btcpool/sserver"
	"btcpool/test/integration/rig"
)

// TestLeasePasses has an id pass from holder to holder while somebody waits for it, who never gets it: not when the old
// holder has ended before the node is the new one's, either.
func TestLeasePasses(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	conn := observer(t, z.Addr)
	holder := registryAt(t, z.Addr, nil)
	estates, leave := make(chan registry.Estate), make(chan struct{})
	ended := make(chan error, 1)
	held := func(ctx context.Context, l registry.Lease) error {
		estates <- l.Estate()
		select {
		case <-leave:
			l.Leave()
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	go func() { ended <- holder.Lease(t.Context(), lockPath, 0, held) }()
	estate := <-estates
	owner := estate.Owner
	for range 5 {
		heir, err := registryAt(t, z.Addr, nil).Heir(lockPath)
		if err != nil {
			t.Fatal(err)
		}
		epoch, err := heir.Epoch(t.Context(), 5)
		if err != nil || epoch < 5 {
			t.Fatal(epoch, err)
		}
		if err := heir.Knows(estate); err != nil {
			t.Fatal(err)
		}
		if heir.Knows(registry.Estate{ID: 2, Owner: estate.Owner}) == nil || heir.Knows(registry.Estate{ID: estate.ID, Owner: 1}) == nil {
			t.Error("anything is known")
		}
		leave <- struct{}{}
		select {
		case err := <-ended:
			t.Fatalf("the node was not waited for: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		next := make(chan error, 1)
		go func() { next <- heir.Lease(t.Context(), estate, held) }()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		estate, ended = <-estates, next
		if estate.ID != 1 {
			t.Fatalf("%+v", estate)
		}
		testkit.Until(t, testkit.Patience, "the node is of another session", func(context.Context) error {
			there, stat, err := conn.Exists(lockPath + "/1")
			if err != nil || !there {
				t.Fatalf("the id was free: %v", err)
			}
			if stat.EphemeralOwner == owner {
				return errors.New("not yet")
			}
			owner = stat.EphemeralOwner
			return nil
		})
		estate.Owner = owner
	}
	other := lease(t, registryAt(t, z.Addr, nil))
	if id := <-other.id; id != 2 {
		t.Errorf("another got id %d", id)
	}
	if err := other.stop(); err != nil {
		t.Error(err)
	}
	leave <- struct{}{}
	if err := <-ended; err != nil { // nobody goes on: for as long as the lease is valid
		t.Fatal(err)
	}
	waitFor(t, conn, lockPath)
}

// TestLeasedIDPasses has a new process go on with the miners of a sserver that leases its id, and with the id.
func TestLeasedIDPasses(t *testing.T) {
	t.Parallel()
	z := rig.StartZooKeeper(t, t.TempDir())
	conn := observer(t, z.Addr)
	kafka := testkit.Broker(t)
	client := testkit.Bus(t, kafka, kafka.Topics.Job, kafka.Topics.Share, kafka.Topics.CommonEvents)
	sendJob(t, client, kafka.Topics.Job, job.NewIDs(1))
	dir := t.TempDir()
	cfg := leasingConfig(dir, z.Addr, kafka)
	first := leasingIn(t, dir, z.Addr, kafka)
	miner := first.miner(1)
	answers := bufio.NewReader(miner)
	second := leasing(t, z.Addr, kafka)
	second.miner(2)
	testkit.Eventually(t, "ready", func() bool { return first.Ready() == nil })
	addr := first.Addr().String()
	for i := range 3 {
		before, moved := upgradetest.Offer(t, first)
		log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
		s, err := sserver.New(cfg, service.Deps{Log: log, Metrics: prometheus.NewRegistry(), Predecessor: before})
		if err != nil {
			t.Fatal(err)
		}
		next := &stratumServer{Service: s, t: t, stop: testkit.Run(t, s.Run)}
		if err := (<-moved).Err; err != nil {
			t.Fatal(err)
		}
		first.stop()
		testkit.Eventually(t, "ready", func() bool { return next.Ready() == nil })
		fmt.Fprintf(miner, `{"id":%d,"method":"mining.ping","params":[]}`+"\n", i)
		if answer, err := answers.ReadString('\n'); err != nil || !strings.Contains(answer, "pong") {
			t.Fatalf("%q, %v", answer, err)
		}
		if got := next.Addr().String(); got != addr {
			t.Errorf("it listens at %s instead of %s", got, addr)
		}
		next.miner(1)
		first = next
	}
	third := leasing(t, z.Addr, kafka)
	third.miner(3)
	third.stop()
	first.stop()
	waitFor(t, conn, serverPath, "2")
}
