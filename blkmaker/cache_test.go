package blkmaker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"btcpool/internal/job"
)

func testCache(t testing.TB, dir string) *cache {
	t.Helper()
	c, err := openCache(dir, zerolog.Nop(), newMetrics(nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

// name makes a template's hash of a letter.
func name(letter string) string { return strings.Repeat(letter, hashSize) }

// jobOn returns a job that can be written to disk.
func jobOn(t *testing.T, id job.ID, height int32, template string) *job.StratumJob {
	t.Helper()
	_, j, _ := solve(t, nil, false)
	j.ID, j.Height, j.GBTHash = id, height, template
	return j
}

func wantFound(t *testing.T, c *cache, id job.ID, want ...string) {
	t.Helper()
	j, txs, _, err := c.find(id)
	if err != nil || j.ID != id {
		t.Errorf("job %d: %v", id, err)
	}
	if diff := cmp.Diff(want, txs, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("job %d: %s", id, diff)
	}
}

// What was there before a restart is there after it.
func TestCacheSurvives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for run := range 3 {
		c := testCache(t, dir)
		if run > 0 {
			wantFound(t, c, 1, "aaa", "c", "bb")
			wantFound(t, c, 2)
			wantFound(t, c, 3, "aaa")
		}
		c.addTemplate(7, name("1"), [][]byte{[]byte("aaa"), []byte("bb")}, time.Now())
		c.addTemplate(7, name("2"), [][]byte{[]byte("aaa"), []byte("c"), []byte("bb")}, time.Now())
		c.addTemplate(7, name("2"), [][]byte{[]byte("other")}, time.Now()) // is there already
		c.addJob(jobOn(t, 1, 7, name("2")), time.Now())
		c.addTemplate(8, name("3"), nil, time.Now())
		c.addTemplate(8, name("4"), [][]byte{[]byte("aaa")}, time.Now())
		c.addJob(jobOn(t, 2, 8, name("3")), time.Now())
		c.addJob(jobOn(t, 3, 8, name("4")), time.Now())
		if n := len(c.heights[0].transactions); n != 3 {
			t.Errorf("%d transactions at height 7, want 3", n)
		}
		if n := testutil.ToFloat64(c.metrics.jobs); n != 3 {
			t.Errorf("%v jobs, want 3", n)
		}
		must(t, c.close())
	}
}

// However a file ends, what is before that is there, and what comes then too.
func TestCacheCorruptTail(t *testing.T) {
	t.Parallel()
	origin := t.TempDir()
	c := testCache(t, origin)
	c.addTemplate(7, name("1"), [][]byte{[]byte("aaa")}, time.Now())
	c.addJob(jobOn(t, 1, 7, name("1")), time.Now())
	good, err := os.ReadFile(filepath.Join(origin, "0-7.frames"))
	if err != nil {
		t.Fatal(err)
	}
	c.addTemplate(7, name("2"), [][]byte{[]byte("bb")}, time.Now())
	whole, err := os.ReadFile(filepath.Join(origin, "0-7.frames"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(good); cut < len(whole); cut++ {
		for _, content := range [][]byte{whole[:cut], append(bytes.Clone(whole[:cut]), make([]byte, len(whole)-cut)...)} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "0-7.frames"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				c := testCache(t, dir)
				wantFound(t, c, 1, "aaa")
				c.addTemplate(7, name("3"), [][]byte{[]byte("aaa"), []byte("new")}, time.Now())
				c.addJob(jobOn(t, 2, 7, name("3")), time.Now())
				wantFound(t, c, 2, "aaa", "new")
				must(t, c.close())
			}
		}
	}
}

// Files of releases whose records were no frames are removed, others are left alone.
func TestCacheOldFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"0-7.cache", "notes"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	testCache(t, dir)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	if diff := cmp.Diff([]string{filepath.Join(dir, "notes")}, files); diff != "" {
		t.Error(diff)
	}
}

// The heights of the youngest messages are kept, in memory and on disk, whatever their numbers, and over a restart.
func TestCacheBounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := testCache(t, dir)
	start := time.Now().Add(-time.Hour)
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	c.addJob(jobOn(t, 1000, 1<<30, name("1")), at(0))
	for n := range keepHeights {
		c.addJob(jobOn(t, job.ID(n), int32(n), name("1")), at(1+n))
	}
	c.addTemplate(0, name("2"), nil, at(100)) // height 0 is young again
	c.addTemplate(2000, name("3"), nil, at(101))
	c.addJob(jobOn(t, 1001, 3000, name("1")), at(2)) // too old
	for id, want := range map[job.ID]bool{1000: false, 0: true, 1: false, 2: true, 1001: false} {
		if got := c.job(id) != nil; got != want {
			t.Errorf("job %d kept: %t", id, got)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != keepHeights || len(c.heights) != keepHeights {
		t.Errorf("%d files of %d heights: %v", len(files), len(c.heights), err)
	}
	full := c.heights[0]
	full.bytes = maxHeightBytes
	c.addTemplate(full.number, name("4"), nil, at(200))
	if len(c.heights) != keepHeights || len(full.templates) != 0 && full.templates[name("4")] != nil {
		t.Error("a full height still grows")
	}
	must(t, c.close())

	// Kafka's past, read again, displaces nothing of what was there.
	c = testCache(t, dir)
	for n := range 2 * keepHeights {
		c.addJob(jobOn(t, job.ID(2000+n), int32(5000+n), name("1")), at(n-100))
	}
	if c.job(0) == nil || c.job(2000) != nil {
		t.Error("old messages displaced younger ones")
	}
}

// A disk that fails costs the restart only.
func TestCacheDiskFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := testCache(t, dir)
	c.addTemplate(7, name("1"), nil, time.Now())
	c.heights[0].file.Close()
	c.addTemplate(7, name("2"), [][]byte{[]byte("a")}, time.Now())
	c.addJob(jobOn(t, 1, 7, name("2")), time.Now())
	wantFound(t, c, 1, "a")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	c.addTemplate(8, name("3"), nil, time.Now())
	c.addJob(jobOn(t, 2, 8, name("3")), time.Now())
	wantFound(t, c, 2)
	if n := testutil.ToFloat64(c.metrics.diskErrors); n != 2 {
		t.Errorf("%v failures counted, want 2", n)
	}
}

func TestCacheAwait(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		c := testCache(t, dir)
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
		c.addJob(&job.StratumJob{ID: 1, GBTHash: name("l")}, time.Now())
		synctest.Wait()
		c.addTemplate(0, name("l"), [][]byte{{1}}, time.Now())
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

// What is taken up of any file, is taken up again of that part of it alone.
func FuzzHeightRead(f *testing.F) {
	_, j, _ := solve(f, nil, false)
	records := appendRecord(nil, recordTransaction, []byte("a"))
	records = appendRecord(records, recordTemplate, append([]byte(name("1")), 0, 0, 0, 0))
	records = appendRecord(records, recordJob, j.AppendTo(nil))
	f.Add(records)
	f.Add(records[:len(records)-1])
	f.Add(appendRecord(records, recordTemplate, append([]byte(name("2")), 1, 0, 0, 0)))
	f.Fuzz(func(t *testing.T, content []byte) {
		one, two := newHeight(7), newHeight(7)
		n := one.read(content)
		if again := two.read(content[:n]); again != n {
			t.Fatalf("%d of %d bytes the second time", again, n)
		}
		if diff := cmp.Diff(one.templates, two.templates); diff != "" || one.bytes != two.bytes || len(one.jobs) != len(two.jobs) {
			t.Fatalf("%d and %d bytes, %s", one.bytes, two.bytes, diff)
		}
		for _, places := range one.templates {
			for _, place := range places {
				_ = one.transactions[place]
			}
		}
	})
}

// Clocks that were ahead, or that differ, do not keep out what is new after a restart.
func TestCacheClocks(t *testing.T) {
	t.Parallel()
	for clocks, ahead := range map[string]time.Duration{
		"files from the future":            50 * time.Minute,
		"messages behind the disk's clock": -5 * time.Hour,
		"all clocks right":                 -time.Minute,
	} {
		t.Run(clocks, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := testCache(t, dir)
			sent := time.Now().Add(min(ahead, 0) - time.Minute)
			for i := range keepHeights {
				c.addTemplate(int32(i), name(string(rune('a'+i))), [][]byte{{byte(i)}}, sent.Add(time.Duration(i)*time.Second))
			}
			must(t, c.close())
			if ahead > 0 {
				files, err := filepath.Glob(filepath.Join(dir, "*.frames"))
				must(t, err)
				for _, file := range files {
					must(t, os.Chtimes(file, time.Time{}, time.Now().Add(ahead)))
				}
			}
			c = testCache(t, dir)
			for i := keepHeights; i < 2*keepHeights; i++ {
				id := job.ID(i)
				when := sent.Add(time.Duration(i) * time.Second)
				c.addTemplate(int32(i), name(string(rune('a'+i))), [][]byte{{byte(i)}}, when)
				c.addJob(jobOn(t, id, int32(i), name(string(rune('a'+i)))), when)
			}
			for i := keepHeights; i < 2*keepHeights; i++ {
				wantFound(t, c, job.ID(i), string([]byte{byte(i)}))
			}
		})
	}
}
