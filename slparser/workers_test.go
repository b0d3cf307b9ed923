package slparser

import (
	"math/rand/v2"
	"testing"
)

// TestWorkersAreFound puts many workers into a table, of ids that differ in few bits or all, and wants each back.
func TestWorkersAreFound(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	table, want := newWorkers(), map[key]*worker{}
	add := func(k key) {
		if want[k] == nil {
			want[k] = &worker{entry: entry{key: k}}
			if w := table.get(k); w != nil {
				t.Fatalf("%v is there as %v before it was put", k, w.key)
			}
			table.put(want[k])
		}
	}
	for n := range int64(20_000) {
		add(key{n % 7, 0})
		add(key{1, n << 40})
		add(key{n, -n})
		add(key{int64(random.Int32()), int64(random.Uint64())})
	}
	for k, w := range want {
		if got := table.get(k); got != w {
			t.Fatalf("%v: found %v", k, got)
		}
	}
	for w := range table.all {
		if want[w.key] != w {
			t.Fatalf("%v comes twice, or was not put", w.key)
		}
		delete(want, w.key)
	}
	if len(want) > 0 || table.count == 0 {
		t.Errorf("%d of %d are missing", len(want), table.count)
	}
}
