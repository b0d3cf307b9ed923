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

// BenchmarkWorkers finds workers of 10,000 in any order, in the table and in a map.
func BenchmarkWorkers(b *testing.B) {
	const n = 10_000
	random := rand.New(rand.NewPCG(1, 2))
	table, inMap := newWorkers(), map[key]*worker{}
	var keys []key
	for len(keys) < n {
		k := key{int64(len(keys) % 500), int64(random.Uint64())}
		keys = append(keys, k)
		inMap[k] = &worker{entry: entry{key: k}}
		table.put(inMap[k])
	}
	order := random.Perm(n)
	for name, get := range map[string]func(key) *worker{"table": table.get, "map": func(k key) *worker { return inMap[k] }} {
		b.Run(name, func(b *testing.B) {
			at := 0
			for b.Loop() {
				if k := keys[order[at]]; get(k) == nil {
					b.Fatal(k)
				}
				at = (at + 1) % n
			}
		})
	}
}
