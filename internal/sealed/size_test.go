package sealed_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"math"
	"testing"

	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

var sizeShares = flag.Int("size-shares", 20_000, "shares of TestSize")

// TestSize measures what a share takes in each form, and in none at all: with -v it prints the table.
//
//	go test -count=1 -v -run 'TestSize$' ./internal/sealed -size-shares 2000000
func TestSize(t *testing.T) {
	t.Parallel()
	dir, n := t.TempDir(), *sizeShares
	writeDay(t, dir, newFarm(1, 10_000), n, 1000)
	if _, err := sealed.Seal(t.Context(), dir, "BTC", day); err != nil {
		t.Fatal(err)
	}
	var old48, old80 []byte
	f, columns := newFarm(1, 10_000), newEntropy()
	for i := range n {
		s := f.share(int64(i / 1000))
		old48 = append(old48, testkit.OldShare(*s, share.SizeV1)...)
		old80 = append(old80, testkit.OldShare(*s, share.SizeV2)...)
		columns.add(s)
	}
	each := func(bytes float64) float64 { return bytes / float64(n) }
	live, parquet := each(float64(size(t, sharefile.Path(dir, "BTC", day)))), each(float64(size(t, sealed.Path(dir, "BTC", day))))
	least := each(columns.bits() / 8)
	t.Logf("live %.1f, sealed %.1f, gzip of 48-byte records %.1f, of 80-byte ones %.1f, entropy %.1f bytes a share, of %d shares",
		live, parquet, each(float64(zipped(t, old48))), each(float64(zipped(t, old80))), least, n)
	if parquet < least || live < parquet {
		t.Errorf("live %.2f, sealed %.2f, entropy %.2f bytes a share", live, parquet, least)
	}
}

func zipped(t *testing.T, b []byte) int {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Len()
}

// entropy estimates how many bits shares have: what is the same in all of a worker's is told once and costs nothing here,
// and the job follows from the time; of the rest, the workers' order and each column by how often its values are. What a
// hash makes random counts as all its bits: nonce 32, version bits 16, bits reached 23.
type entropy struct {
	shares                   float64
	workers, statuses, steps map[int64]float64
	last                     [4]share.Share // by server
}

func newEntropy() *entropy {
	return &entropy{workers: make(map[int64]float64), statuses: make(map[int64]float64), steps: make(map[int64]float64)}
}

const randomBits = 32 + 16 + 23

func (e *entropy) add(s *share.Share) {
	last := &e.last[s.ID.Server-1]
	e.shares++
	e.workers[s.WorkerID]++
	e.statuses[int64(s.Status)]++
	e.steps[s.Time-last.Time]++
	*last = *s
}

func (e *entropy) bits() float64 {
	bits := e.shares * randomBits
	for _, values := range []map[int64]float64{e.workers, e.statuses, e.steps} {
		for _, n := range values {
			bits -= n * math.Log2(n/e.shares)
		}
	}
	return bits
}
