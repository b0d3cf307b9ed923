//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/registry"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// set writes a node, whether it is there or not, with those above it.
func set(t *testing.T, conn *zk.Conn, path, text string) {
	t.Helper()
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			if _, err := conn.Create(path[:i], nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
				t.Fatal(err)
			}
		}
	}
	_, err := conn.Create(path, []byte(text), 0, zk.WorldACL(zk.PermAll))
	if errors.Is(err, zk.ErrNodeExists) {
		_, err = conn.Set(path, []byte(text), -1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatch follows a node that comes, changes, goes and comes back, over a server that is killed.
func TestWatch(t *testing.T) {
	t.Parallel()
	const path = "/watched/node"
	z := rig.StartZooKeeper(t, t.TempDir())
	conn := observer(t, z.Addr)
	r := registryAt(t, z.Addr, nil)
	taken := make(chan string, 100)
	testkit.Run(t, func(ctx context.Context) error {
		return r.Watch(ctx, path, func(content []byte, self registry.Host) []byte {
			if self.IP != "127.0.0.1" || self.Hostname == "" {
				t.Errorf("answered by %+v", self)
			}
			taken <- string(content)
			return append([]byte("took "), content...)
		})
	})
	wants := func(want string) {
		t.Helper()
		select {
		case got := <-taken:
			if got != want {
				t.Fatalf("took %q, want %q", got, want)
			}
		case <-time.After(testkit.Patience):
			t.Fatalf("%q is not taken", want)
		}
		testkit.Until(t, testkit.Patience, "the answer", func(context.Context) error {
			got, _, err := conn.Get(path + "/ack")
			if err == nil && string(got) != "took "+want {
				err = fmt.Errorf("answer %q", got)
			}
			return err
		})
	}
	set(t, conn, path, "one")
	wants("one")
	set(t, conn, path, "two")
	wants("two")
	for _, node := range []string{path + "/ack", path} {
		if err := conn.Delete(node, -1); err != nil {
			t.Fatal(err)
		}
	}
	set(t, conn, path, "three")
	wants("three")
	z.Kill()
	z.Start()
	z.WaitReady(t)
	testkit.Until(t, testkit.Patience, "the other client has its session again", func(context.Context) error {
		_, _, err := conn.Exists(path)
		return err
	})
	set(t, conn, path, "four")
	wants("four")
	select {
	case got := <-taken:
		t.Errorf("took %q again", got)
	default:
	}
}

// TestSubPoolUpdate changes the coinbase of a sub-pool in a running jobmaker.
func TestSubPoolUpdate(t *testing.T) {
	t.Parallel()
	const path = "/jobmaker/subpool/farm"
	dir := t.TempDir()
	z := rig.StartZooKeeper(t, dir)
	cfg := testkit.Broker(t)
	client := testkit.Bus(t, cfg, cfg.Topics.RawGBT, cfg.Topics.Job)
	rig.StartService(t, dir, "jobmaker", "jobmaker", fmt.Sprintf("network = \"regtest\"\npayout_address = %[1]q\njob_interval = \"1s\"\n"+
		"[[sub_pools]]\nname = \"farm\"\npayout_address = %[1]q\ncoinbase_text = \"/old/\"\nupdate_path = %[2]q\n"+
		"[zookeeper]\nservers = [%[3]q]\n[kafka]\nbrokers = [%[4]q]\n", rig.PayoutAddress, path, z.Addr, cfg.Brokers[0]))
	response, err := os.ReadFile(filepath.Join(rig.Root(t), "internal/job/testdata/core.gbt"))
	if err != nil {
		t.Fatal(err)
	}
	raw := job.NewRawGBT(response, time.Now())
	if err := client.Write(t.Context(), cfg.Topics.RawGBT, bus.Message{Value: raw.AppendTo(nil)}); err != nil {
		t.Fatal(err)
	}
	texts := make(chan string, 100) // of the sub-pool, one a job
	testkit.Run(t, func(ctx context.Context) error {
		return client.Read(ctx, cfg.Topics.Job, bus.Earliest(), func(m bus.Message) error {
			j, err := job.ParseStratumJob(m.Value)
			if err == nil {
				texts <- string(j.SubPools["farm"].Coinbase1)
			}
			return err
		})
	})
	has := func(text string) {
		t.Helper()
		deadline := time.After(testkit.Patience)
		for {
			select {
			case coinbase := <-texts:
				if strings.Contains(coinbase, text) {
					return
				}
			case <-deadline:
				t.Fatalf("no job with %q", text)
			}
		}
	}
	has("/old/")
	conn := observer(t, z.Addr)
	for _, step := range []struct {
		request, message, text string
	}{
		{`{"coinbase_info":"/new/","payout_addr":"` + rig.PayoutAddress + `"}`, "success", "/new/"},
		{`{"coinbase_info":"/bad/","payout_addr":"nobody"}`, "invalid payout address", "/new/"},
	} {
		set(t, conn, path, step.request)
		testkit.Until(t, testkit.Patience, step.message, func(context.Context) error {
			text, _, err := conn.Get(path + "/ack")
			if err != nil {
				return err
			}
			var answer struct {
				Message string `json:"err_msg"`
				Name    string `json:"subpool_name"`
			}
			if err := json.Unmarshal(text, &answer); err != nil || answer.Message != step.message || answer.Name != "farm" {
				return fmt.Errorf("answer %s", text)
			}
			return nil
		})
		for len(texts) > 0 {
			<-texts
		}
		has(step.text)
	}
}
