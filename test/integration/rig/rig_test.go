//go:build integration

package rig_test

import (
	"context"
	"testing"

	"btcpool/test/integration/rig"
)

// TestServers starts each real server once, so that a machine that cannot have one says so plainly.
func TestServers(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(t *testing.T, dir string){
		"Kafka": func(t *testing.T, dir string) {
			k := rig.StartKafka(t, dir)
			k.Kill()
			k.Start()
			k.WaitReady(t)
		},
		"MariaDB": func(t *testing.T, dir string) {
			if _, err := rig.StartMariaDB(t, dir).Open(t).Exec("CREATE TABLE ok (id int)"); err != nil {
				t.Fatal(err)
			}
		},
		"ZooKeeper": func(t *testing.T, dir string) { rig.StartZooKeeper(t, dir) },
		"btcd": func(t *testing.T, dir string) {
			var template struct{ Height int }
			node := rig.StartBtcd(t, dir, rig.PayoutAddress)
			if err := node.Call(context.Background(), "getblocktemplate", &template, map[string]any{"rules": []string{"segwit"}}); err != nil || template.Height != 1 {
				t.Fatalf("template of height %d, %v", template.Height, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, t.TempDir())
		})
	}
}
