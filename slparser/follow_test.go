package slparser

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/config"
	"btcpool/internal/sharefile"
)

// TestChooseDays goes through two midnights.
func TestChooseDays(t *testing.T) {
	t.Parallel()
	s := &Service{
		cfg:   Config{LateShares: config.Duration(time.Hour)},
		files: make(map[sharefile.Day]*dayFile),
	}
	at := func(clock string) time.Time {
		now, err := time.Parse(time.DateTime, "2023-11-"+clock)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	for _, step := range []struct {
		clock  string
		change func(yesterday *dayFile)
		want   []sharefile.Day
	}{
		{clock: "20 00:30:00", want: []sharefile.Day{20231120, 20231119}},
		{clock: "20 00:59:59", change: func(f *dayFile) { f.atEnd = true }, want: []sharefile.Day{20231120, 20231119}},
		{clock: "20 01:00:00", change: func(f *dayFile) { f.dirty = true }, want: []sharefile.Day{20231120, 20231119}},
		{clock: "20 01:00:01", change: func(f *dayFile) { f.dirty, f.flying = false, true }, want: []sharefile.Day{20231120, 20231119}},
		{clock: "20 01:00:02", change: func(f *dayFile) { f.flying = false }, want: []sharefile.Day{20231120}},
		{clock: "20 23:59:59", want: []sharefile.Day{20231120}},
		{clock: "21 00:00:00", want: []sharefile.Day{20231121, 20231120}},
		{clock: "21 05:00:00", want: []sharefile.Day{20231121, 20231120}}, // not read to its end
		{clock: "23 05:00:00", change: func(f *dayFile) { f.atEnd = true }, want: []sharefile.Day{20231123, 20231122, 20231121}},
	} {
		if step.change != nil {
			step.change(s.files[s.first])
		}
		if diff := cmp.Diff(step.want, s.chooseDays(at(step.clock))); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", step.clock, diff)
		}
	}
}
