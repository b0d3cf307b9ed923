package job_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"btcpool/internal/job"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	at := time.Unix(0x6553f100, int64(7*time.Millisecond))
	ids := job.NewIDs(0xab)
	for i, step := range []struct {
		now  time.Time
		want job.ID
	}{
		{at, 0x6553f100_000007ab},
		{at, 0x6553f100_000008ab},
		{at.Add(time.Millisecond), 0x6553f100_000009ab},
		{at.Add(-10 * time.Second), 0x6553f100_00000aab},
		{at.Add(-time.Hour), 0x6553e2f0_000407ab}, // the clock was set back
		{at.Add(-time.Hour), 0x6553e2f0_000408ab},
		{at, 0x6553f100_000407ab}, // a second time, another id
		{at.Add(time.Second - 7*time.Millisecond), 0x6553f101_000400ab},
		{time.Unix(1<<31, 0), 0x80000000_000400ab}, // 2038
	} {
		got := ids.Next(step.now)
		if got != step.want {
			t.Errorf("id %d = %x, want %x", i, uint64(got), uint64(step.want))
		}
		if want := time.Unix(int64(step.want>>32), 0); !got.Time().Equal(want) || got.Server() != 0xab {
			t.Errorf("id %x has time %v and server %x", uint64(got), got.Time(), got.Server())
		}
	}
}

func TestIDsRiseWhateverTheClockDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		server := rapid.Uint8().Draw(t, "server")
		ids := job.NewIDs(server)
		var last job.ID
		for range 20 {
			now := time.UnixMilli(rapid.Int64Range(1e12, 1e12+5000).Draw(t, "now"))
			id := ids.Next(now)
			if id <= last || id.Server() != server || id.Time().Before(now.Truncate(time.Second)) {
				t.Fatalf("%x follows %x at %v", uint64(id), uint64(last), now)
			}
			last = id
		}
	})
}

func TestIDsFollowTheClock(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ids := job.NewIDs(1)
		seen := make(map[job.ID]bool)
		now := time.UnixMilli(1e12)
		for range 200 {
			now = now.Add(time.Duration(rapid.IntRange(-4000, 4000).Draw(t, "seconds")) * time.Second)
			id := ids.Next(now)
			if off := id.Time().Sub(now).Abs(); off > 11*time.Second {
				t.Fatalf("id is %s off the clock", off)
			}
			if seen[id] {
				t.Fatalf("id %x again", uint64(id))
			}
			seen[id] = true
		}
	})
}
