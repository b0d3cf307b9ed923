//go:build integration

package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestKilledOverTemplate kills gbtmaker (kill -9) while the whole of a template waits behind its light form, of which
// there are jobs already: the next start sends what blocks found on them need.
func TestKilledOverTemplate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kafka := rig.StartKafka(t, dir)
	node := startBranchNode(t, 0xaa, 976_500, 0x17021fff, 2)
	node.full.Store(true)
	brokers := fmt.Sprintf("[kafka]\nbrokers = [%q]\n", kafka.Addr)
	rig.StartService(t, dir, "jobmaker", "jobmaker", fmt.Sprintf("network = \"mainnet\"\npayout_address = %q\n", mainnetAddress)+brokers)
	gbtmaker := rig.StartService(t, dir, "gbtmaker", "gbtmaker", fmt.Sprintf("network = \"mainnet\"\ndata_dir = %q\nwhole_after = \"30s\"\n",
		filepath.Join(dir, "gbtmaker"))+brokers+fmt.Sprintf("[[nodes]]\nrpc_url = %q\nrpc_user = \"u\"\nrpc_password = \"p\"\n", node.URL))

	cfg := bus.DefaultConfig()
	cfg.Brokers = []string{kafka.Addr}
	reader := testkit.Bus(t, cfg, cfg.Topics.Job, cfg.Topics.RawGBT)
	var of, whole atomic.Pointer[string] // the first job's template, and the first that is whole
	read := func(topic string, first *atomic.Pointer[string], hash func([]byte) (string, error)) {
		testkit.Run(t, func(ctx context.Context) error {
			return reader.Read(ctx, topic, bus.Earliest(), func(m bus.Message) error {
				h, err := hash(m.Value)
				first.CompareAndSwap(nil, &h)
				return err
			})
		})
	}
	read(cfg.Topics.Job, &of, func(message []byte) (string, error) {
		j, err := job.ParseStratumJob(message)
		if err != nil {
			return "", err
		}
		return j.GBTHash, nil
	})
	read(cfg.Topics.RawGBT, &whole, func(message []byte) (string, error) {
		raw, err := job.ParseRawGBT(message)
		return raw.Hash, err
	})
	testkit.Until(t, testkit.Patience, "a job", func(context.Context) error {
		if of.Load() == nil {
			return errors.New("none")
		}
		return nil
	})
	gbtmaker.Kill()
	if h := whole.Load(); h != nil {
		t.Fatalf("template %s is whole: gbtmaker was killed too late", *h)
	}
	gbtmaker.Start()
	testkit.Until(t, testkit.Patience, "a whole template", func(context.Context) error {
		if whole.Load() == nil {
			return errors.New("none")
		}
		return nil
	})
	if *whole.Load() != *of.Load() {
		t.Errorf("template %s came first, the job is of %s", *whole.Load(), *of.Load())
	}
}
