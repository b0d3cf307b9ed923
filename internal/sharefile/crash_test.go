package sharefile_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// topicShare is a share that stands in the topic.
type topicShare struct {
	partition int
	offset    int64
	share     share.Share
}

// TestCrash stops writers in the middle of flushes, at any byte of any file, and has others go on, until every share of
// the topic is on disk. The topic holds shares of several days, repeated ones, and ones without an id.
func TestCrash(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		topic, want := drawTopic(t)
		dir := tempDir(t)
		for crashes := rapid.IntRange(0, 6).Draw(t, "crashes"); ; crashes-- {
			w := openWriter(t, dir)
			next, _ := resume(w)
			if crashes == 0 {
				consume(t, w, topic, next, len(topic))
				flush(t, w)
				w.Close()
				break
			}
			for range rapid.IntRange(0, 3).Draw(t, "whole flushes") {
				consume(t, w, topic, next, rapid.IntRange(0, 15).Draw(t, "shares"))
				flush(t, w)
			}
			consume(t, w, topic, next, rapid.IntRange(0, 15).Draw(t, "shares"))
			before := sizes(t, dir)
			flush(t, w)
			w.Close()
			tear(t, dir, before)
		}
		got := make(map[sharefile.Day][]uint32)
		days, err := sharefile.Days(dir, "BTC")
		if err != nil {
			t.Fatal(err)
		}
		for _, day := range days {
			got[day] = slices.Sorted(slices.Values(readDay(t, dir, day)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// tempDir is t.TempDir, which rapid does not have.
func tempDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "sharefile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// drawTopic makes a topic of three partitions, and tells the shares that belong into each file, by their nonces.
func drawTopic(t *rapid.T) ([]topicShare, map[sharefile.Day][]uint32) {
	var topic []topicShare
	want := make(map[sharefile.Day][]uint32)
	offsets, seqs := make([]int64, 3), make([]uint64, 3)
	for i := range rapid.IntRange(1, 60).Draw(t, "length") {
		p := rapid.IntRange(0, 2).Draw(t, "partition")
		offsets[p] += rapid.Int64Range(1, 2).Draw(t, "gap")
		var old []topicShare
		for _, m := range topic {
			if m.partition == p && m.share.ID.Epoch != 0 {
				old = append(old, m)
			}
		}
		m := topicShare{partition: p, offset: offsets[p]}
		if len(old) > 0 && rapid.IntRange(0, 3).Draw(t, "repeat") == 0 {
			m.share = rapid.SampledFrom(old).Draw(t, "which").share
		} else {
			seqs[p]++
			m.share = newShare(seqs[p], monday+86400*rapid.Int64Range(0, 2).Draw(t, "day"))
			m.share.Nonce = uint32(i)
			if rapid.IntRange(0, 4).Draw(t, "foreign") == 0 {
				m.share.ID = share.ID{}
			}
			day := sharefile.DayOf(m.share.Time)
			want[day] = append(want[day], uint32(i))
		}
		topic = append(topic, m)
	}
	return topic, want
}

// consume adds up to n shares of the topic from next on, now of one partition and now of another.
func consume(t *rapid.T, w *sharefile.Writer, topic []topicShare, next map[int]int64, n int) {
	for range n {
		first := make(map[int]topicShare)
		for _, m := range topic {
			if _, ok := first[m.partition]; !ok && m.offset >= next[m.partition] {
				first[m.partition] = m
			}
		}
		if len(first) == 0 {
			return
		}
		m := first[rapid.SampledFrom(slices.Sorted(maps.Keys(first))).Draw(t, "from partition")]
		add(t, w, m.partition, m.offset, m.share)
		next[m.partition] = m.offset + 1
	}
}

// tear undoes a part of what was written since the sizes were taken: files are written oldest day first.
func tear(t *rapid.T, dir string, before map[string]int64) {
	after := sizes(t, dir)
	var written []string
	for name, size := range after {
		if size > before[name] {
			written = append(written, name)
		}
	}
	if len(written) == 0 {
		return
	}
	slices.Sort(written)
	at := rapid.IntRange(0, len(written)-1).Draw(t, "torn file")
	for i, name := range written[at:] {
		size := before[name]
		if i == 0 {
			size = rapid.Int64Range(before[name], after[name]).Draw(t, "torn size")
		}
		path := filepath.Join(dir, name)
		if size == 0 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
}

func sizes(t *rapid.T, dir string) map[string]int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	sizes := make(map[string]int64)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		sizes[e.Name()] = info.Size()
	}
	return sizes
}
