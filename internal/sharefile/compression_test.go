package sharefile_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/sharefile"
)

// TestCompression has a day's file written by one level after another: none makes it large, and it reads as one.
func TestCompression(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []uint32
	sizes := make(map[int]int64)
	before := int64(0)
	for _, level := range []int{0, 1, 9, -1} {
		w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop(), sharefile.Compression(level))
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			n := uint32(len(want) + 1)
			want = append(want, n)
			add(t, w, 0, int64(n), newShare(uint64(n), monday))
		}
		flush(t, w)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(sharefile.Path(dir, "BTC", sharefile.DayOf(monday)))
		if err != nil {
			t.Fatal(err)
		}
		sizes[level], before = info.Size()-before, info.Size()
	}
	if diff := cmp.Diff(want, readDay(t, dir, sharefile.DayOf(monday))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if sizes[0] < 2*sizes[1] || sizes[1] < sizes[9] {
		t.Errorf("bytes by level: %v", sizes)
	}
	if _, err := sharefile.OpenWriter(t.TempDir(), "BTC", zerolog.Nop(), sharefile.Compression(77)); err == nil {
		t.Error("level 77 is taken")
	}
}
