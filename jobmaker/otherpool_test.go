package jobmaker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/job"
)

// An empty template of poolwatcher's makes a job at once, until our own node has the block.
func TestOtherPool(t *testing.T) {
	t.Parallel()
	p := start(t, regtestConfig(), nil)
	p.sendTemplate("core.gbt", 500, time.Now())
	own := p.nextJob()

	block := chainhash.Hash{1, 2, 3}
	fromPool := func(height int32) {
		t.Helper()
		now := time.Now()
		raw := job.NewRawGBT(fmt.Appendf(nil,
			`{"result":{"version":%d,"previousblockhash":%q,"transactions":[],"coinbasevalue":5000000000,"mintime":%[4]d,"curtime":%[4]d,"bits":"%08[5]x","height":%[3]d},"error":null,"id":"1"}`,
			own.Version, block, height, now.Unix(), own.Bits), now)
		raw.FromPool = "other"
		p.send(raw.AppendTo(nil))
	}
	fromPool(501)
	if j := p.nextJob(); j.Height != 501 || j.PrevHash != block || len(j.MerkleBranch) != 0 || j.WitnessCommitment != nil {
		t.Errorf("job %+v", j)
	}
	fromPool(502) // no ladder
	p.sendTemplate("core.gbt", 501, time.Now(), func(template map[string]any) {
		template["previousblockhash"] = strings.Repeat("0", 62) + "aa"
	})
	if j := p.nextJob(); j.Height != 501 || j.PrevHash != (chainhash.Hash{0xaa}) || len(j.MerkleBranch) == 0 {
		t.Errorf("job %+v", j)
	}
	p.counts(1, "templates_total", "result", "other_pool")
	p.counts(1, "jobs_total", "reason", "branch")
}
