package blkmaker

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/job"
	"btcpool/internal/store"
)

// Blocks of other chains are followed to their confirmation, and off the chain when they are left behind; chains whose
// nodes are away wait.
func TestFollowMerged(t *testing.T) {
	t.Parallel()
	p := startPool(t)
	o := startOthers(t, 3) // the second has an old node
	o.configure(&p.cfg)
	p.cfg.Confirmations = 3
	s, _ := p.start(t)
	aux, rsk := o.publish(t, p, func(*job.StratumJob) {})
	p.write(t, p.cfg.Kafka.Topics.AuxSolved, aux)
	p.write(t, p.cfg.Kafka.Topics.RSKSolved, rsk)
	created := p.merged(t, 4)["a"].CreatedAt

	type row struct {
		State         store.BlockState
		Confirmations int64
	}
	look := func(step string, after time.Duration, wrong bool, want map[string]row) {
		t.Helper()
		if err := s.followMergedOnce(t.Context(), created.Add(after)); (err != nil) != wrong {
			t.Errorf("%s: %v", step, err)
		}
		got := make(map[string]row)
		for chain, b := range p.merged(t, 4) {
			got[chain] = row{b.State, b.Confirmations}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", step, diff)
		}
	}
	accepted := func(n int64) row { return row{store.Accepted, n} }
	look("taken", time.Second, false, map[string]row{"a": accepted(1), "b": accepted(1), "c": accepted(1), "rsk": accepted(1)})
	o.aux[0].Advance()
	o.rsk.Advance()
	o.aux[2].SetDown(true)
	look("one node away", time.Minute, true, map[string]row{"a": accepted(2), "b": accepted(1), "c": accepted(1), "rsk": accepted(2)})
	o.aux[2].SetDown(false)
	o.aux[0].Advance()
	o.aux[1].Orphan()
	o.rsk.Orphan()
	look("two left behind, perhaps", time.Hour, false,
		map[string]row{"a": {store.Confirmed, 3}, "b": accepted(0), "c": accepted(1), "rsk": accepted(0)})
	look("two left behind", mergedRace, false,
		map[string]row{"a": {store.Confirmed, 3}, "b": {store.Orphaned, 0}, "c": accepted(1), "rsk": {store.Orphaned, 0}})
	o.aux[0].Orphan()
	look("a deep reorganisation", mergedRace, false,
		map[string]row{"a": {store.Orphaned, 0}, "b": {store.Orphaned, 0}, "c": accepted(1), "rsk": {store.Orphaned, 0}})
}
