package poolwatcher

import (
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"

	"btcpool/internal/job"
)

const easyBits = 0x207fffff // every hash below 2^255

var now = time.Unix(1_700_000_000, 0)

func ownJob(height int32, on byte) *job.StratumJob {
	return &job.StratumJob{
		ID: job.NewIDs(1).Next(now.Add(-time.Second)), Height: height, PrevHash: chainhash.Hash{on}, Bits: easyBits, MinTime: uint32(now.Unix()) - 600,
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	at := uint32(now.Unix())
	good := claim{chainhash.Hash{'b'}, 101, easyBits, at}
	old := ownJob(100, 'a')
	old.ID = job.NewIDs(1).Next(now.Add(-jobLifetime - time.Second))
	ahead := ownJob(100, 'a')
	ahead.ID = job.NewIDs(1).Next(now.Add(time.Hour))
	harder := ownJob(100, 'a')
	harder.Bits = 0x1d00ffff
	for name, tt := range map[string]struct {
		claim claim
		own   *job.StratumJob
		want  verdict
	}{
		"new":                      {good, ownJob(100, 'a'), verdictNew},
		"no own job":               {good, nil, verdictNoJob},
		"own job of a while ago":   {good, old, verdictNoJob},
		"own job of a wrong clock": {good, ahead, verdictNoJob},
		"block of our own job":     {claim{chainhash.Hash{'a'}, 101, easyBits, at}, ownJob(100, 'a'), verdictKnown},
		"our height":               {good, ownJob(101, 'a'), verdictKnown},
		"behind us":                {good, ownJob(102, 'a'), verdictHeight},
		"far ahead":                {good, ownJob(99, 'a'), verdictHeight},
		"other bits":               {claim{chainhash.Hash{'b'}, 101, 0x1f00ffff, at}, ownJob(100, 'a'), verdictBits},
		"retarget":                 {claim{chainhash.Hash{'b'}, 2016, easyBits, at}, ownJob(2015, 'a'), verdictBits},
		"no block has the hash":    {claim{chainhash.Hash{'b', 31: 0x80}, 101, easyBits, at}, ownJob(100, 'a'), verdictWork},
		"nor one of mainnet":       {claim{chainhash.Hash{31: 1}, 101, 0x1d00ffff, at}, harder, verdictWork},
		"but this one":             {claim{chainhash.Hash{'b'}, 101, 0x1d00ffff, at}, harder, verdictNew},
		"time before the chain's":  {claim{chainhash.Hash{'b'}, 101, easyBits, at - 601}, ownJob(100, 'a'), verdictTime},
		"time far ahead":           {claim{chainhash.Hash{'b'}, 101, easyBits, at + 601}, ownJob(100, 'a'), verdictTime},
	} {
		if got := tt.claim.check(tt.own, now); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func TestHear(t *testing.T) {
	t.Parallel()
	v := view{agree: 2, own: ownJob(100, 'a'), pools: make(map[string]chainhash.Hash)}
	says := func(pool string, on byte, height int32, want verdict) {
		t.Helper()
		if got := v.hear(pool, claim{chainhash.Hash{on}, height, easyBits, uint32(now.Unix())}, now); got != want {
			t.Errorf("%s says %c: %s, want %s", pool, on, got, want)
		}
	}
	says("one", 'a', 100, verdictSame) // what a pool says first is only noted
	says("two", 'b', 101, verdictSame)
	says("three", 'a', 100, verdictSame)
	says("one", 'a', 100, verdictSame)
	says("one", 'c', 101, verdictWaiting)
	says("one", 'c', 101, verdictSame)
	says("three", 'b', 101, verdictNew) // with two
	v.sent = chainhash.Hash{'b'}
	says("one", 'b', 101, verdictRepeated)
	v.own = ownJob(101, 'b')
	says("one", 'd', 102, verdictWaiting)
	v.forget("one")
	says("two", 'd', 102, verdictWaiting)
	says("one", 'd', 102, verdictSame)
	says("three", 'd', 102, verdictNew)
}
