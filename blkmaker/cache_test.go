package blkmaker

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/job"
)

func testCache() *cache { return newCache(newMetrics(nil, 0)) }

func txData(txs []*transaction) []string {
	var data []string
	for _, tx := range txs {
		data = append(data, tx.data)
	}
	return data
}

func TestCacheSharesTransactions(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := testCache()
	c.addTemplate("one", [][]byte{[]byte("aaa"), []byte("bb")}, now.Add(-time.Minute), now)
	c.addTemplate("two", [][]byte{[]byte("aaa"), []byte("c"), []byte("bb")}, now, now)
	c.addTemplate("two", [][]byte{[]byte("other")}, now, now) // is there already
	if c.bytes != 6 || len(c.transactions) != 3 {
		t.Errorf("%d bytes in %d transactions, want 6 in 3", c.bytes, len(c.transactions))
	}
	c.addJob(&job.StratumJob{ID: 1, GBTHash: "two"}, now, now)
	_, txs, _, err := c.find(1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"aaa", "c", "bb"}, txData(txs)); diff != "" {
		t.Error(diff)
	}

	now = now.Add(keepFor - time.Second) // one expires, two does not
	c.addTemplate("three", [][]byte{[]byte("bb")}, now, now)
	if c.templates["one"] != nil || c.templates["two"] == nil || c.bytes != 6 {
		t.Errorf("%d templates with %d bytes left", len(c.templates), c.bytes)
	}
	now = now.Add(2 * time.Second)
	c.addJob(&job.StratumJob{ID: 2, GBTHash: "three"}, now, now)
	if c.templates["two"] != nil || c.bytes != 2 || len(c.transactions) != 1 || len(c.jobs) != 1 {
		t.Errorf("%d templates with %d bytes and %d jobs left", len(c.templates), c.bytes, len(c.jobs))
	}
}

// A template lives on while jobs are made of it.
func TestCacheKeepsTemplatesOfJobs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := testCache()
	c.addTemplate("old", [][]byte{[]byte("a")}, now, now)
	for range 5 {
		now = now.Add(keepFor - time.Minute)
		c.addJob(&job.StratumJob{ID: job.ID(now.Unix()), GBTHash: "old"}, now, now)
	}
	if _, _, _, err := c.find(job.ID(now.Unix())); err != nil {
		t.Error(err)
	}
	if len(c.jobs) != 2 {
		t.Errorf("%d jobs kept, want 2", len(c.jobs))
	}
}

func TestCacheBounds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := testCache()
	for n := range maxJobs + 10 {
		// Clocks that are ahead do not keep anything longer.
		c.addJob(&job.StratumJob{ID: job.ID(n)}, now.Add(time.Hour), now.Add(time.Duration(n)))
	}
	if c.jobs[9] != nil || c.jobs[10] == nil || len(c.jobs) != maxJobs {
		t.Errorf("%d jobs kept", len(c.jobs))
	}
	for n := range 5 {
		c.addTemplate(strconv.Itoa(n), [][]byte{make([]byte, n+1)}, now.Add(time.Duration(n)), now)
	}
	c.bytes += maxTransactionBytes
	c.addTemplate("new", nil, now.Add(time.Second), now)
	if len(c.templates) != 1 {
		t.Errorf("%d templates kept, want the last one", len(c.templates))
	}
}

func TestCacheAwait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		c := testCache()
		if _, _, _, err := c.find(1); !errors.Is(err, errUnknown) {
			t.Errorf("find: %v, want errUnknown", err)
		}
		stop, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		found := make(chan error, 1)
		go func() {
			_, txs, err := c.await(t.Context(), 1, stop.Done())
			if len(txs) != 1 {
				t.Errorf("%d transactions, want 1", len(txs))
			}
			found <- err
		}()
		synctest.Wait()
		c.addJob(&job.StratumJob{ID: 1, GBTHash: "late"}, now, now)
		synctest.Wait()
		c.addTemplate("late", [][]byte{{1}}, now, now)
		if err := <-found; err != nil {
			t.Error(err)
		}

		if _, _, err := c.await(t.Context(), 2, stop.Done()); !errors.Is(err, errUnknown) || time.Since(now) != time.Hour {
			t.Errorf("await: %v after %s, want errUnknown after an hour", err, time.Since(now))
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if _, _, err := c.await(ended, 2, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("await: %v, want the context's error", err)
		}
	})
}
