package switcher

import (
	"fmt"
	"testing"
	"time"

	"btcpool/internal/config"
	"btcpool/internal/testkit"
)

// A miner is moved to another chain: it hears what it has to in order, its late share goes to the old chain only, with
// the right answer, and after the grace period nowhere.
func TestSwitch(t *testing.T) {
	t.Parallel()
	btc, bch := startPool(t, "a"), startPool(t, "b", func(p *pool) { p.mask, p.difficulty = "00ffe000", "2048" })
	r := startRig(t, []Chain{chainOf("btc", btc), chainOf("bch", bch)}, map[string]string{"alice": "btc"}, func(c *Config) {
		c.Grace = config.Duration(time.Second)
	})
	m := r.machine()
	_, old := m.login("Alice.rig", "mining.configure")
	if got := m.submit(old.param(0)); string(got.Result) != "true" {
		t.Fatalf("share: %s", got.line)
	}
	r.says("alice", "bch")
	var heard []string
	var job message
	for job.Method == "" {
		got, err := m.read()
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, got.Method)
		if got.Method == "mining.notify" {
			job = got
		}
	}
	if want := fmt.Sprint([]string{"mining.set_version_mask", "mining.set_difficulty", "mining.notify"}); fmt.Sprint(heard) != want {
		t.Errorf("heard %v, want %v", heard, want)
	}
	if job.param(8) != "true" {
		t.Errorf("the job is not clean: %s", job.line)
	}
	if got := m.submit(old.param(0)); string(got.Result) != "true" {
		t.Errorf("late share: %s", got.line)
	}
	if a, b := btc.count("mining.submit"), bch.count("mining.submit"); a != 2 || b != 0 {
		t.Errorf("%d shares on the old chain, %d on the new one", a, b)
	}
	if got := m.submit(job.param(0)); string(got.Result) != "true" {
		t.Errorf("share: %s", got.line)
	}
	if a, b := btc.count("mining.submit"), bch.count("mining.submit"); a != 2 || b != 1 {
		t.Errorf("%d shares on the old chain, %d on the new one", a, b)
	}
	testkit.Eventually(t, "the old chain is over", func() bool {
		return string(m.submit(old.param(0)).Result) != "true"
	})
	if n := testkit.Metric(t, r.reg, "btcpool_switcher_switches_total", "chain", "bch"); n != 1 {
		t.Errorf("%v switches", n)
	}
}
