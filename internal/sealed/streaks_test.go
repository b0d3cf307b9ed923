package sealed_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

// counted is what statistics are made of in a record.
type counted struct {
	malformed, invalid, job bool
	user, ext               int32
	worker                  int64
	status                  share.Status
	difficulty              bitcoin.Difficulty
	bits, height            uint32
	hour                    int64
}

func countedOf(s *share.Share) counted {
	return counted{
		invalid: s.Validate() != nil, job: s.JobID != 0, user: s.UserID, ext: s.ExtUserID, worker: s.WorkerID, status: s.Status,
		difficulty: s.Difficulty, bits: s.Bits, height: s.Height, hour: s.Time / 3600,
	}
}

// byStreak reads a sealed file in streaks, and takes them apart.
func byStreak(ctx context.Context, path string) (all []counted, longest int64, err error) {
	r, err := sealed.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	err = r.Streaks(ctx, func(streaks []sealed.Streak) {
		for i := range streaks {
			k := counted{malformed: true}
			if !streaks[i].Malformed {
				k = countedOf(&streaks[i].Share)
			}
			longest = max(longest, streaks[i].Records)
			all = append(all, slices.Repeat([]counted{k}, int(streaks[i].Records))...)
		}
	})
	return all, longest, err
}

func byRecord(path string) (all []counted, err error) {
	r, err := sealed.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		k, s := counted{malformed: true}, share.Share{}
		if s.ParseBody(record) == nil {
			k = countedOf(&s)
		}
		all = append(all, k)
	}
}

// odd makes of a share one that is nobody's, of no job, of the hour of the first block, or otherwise rare.
func odd(f *farm, s *share.Share) {
	switch f.IntN(12) {
	case 0:
		s.JobID = 0
	case 1:
		s.UserID = -s.UserID
	case 2:
		s.Time = 1231006505 + int64(f.IntN(5)) - 2
	case 3:
		s.Time = -int64(f.IntN(7200))
	case 4:
		s.Difficulty = bitcoin.Difficulty(int(bitcoin.MinDifficulty) + f.IntN(int(bitcoin.MaxDifficulty)-int(bitcoin.MinDifficulty)+1))
	case 5:
		s.Status = share.Status(f.Int32()) - 1<<30
	case 6:
		s.ExtUserID = int32(f.IntN(3)) - 1
	case 7:
		s.Bits = 0
	}
}

// TestStreaks holds days of many kinds, read in streaks, against the same read record by record.
func TestStreaks(t *testing.T) {
	t.Parallel()
	for seed := uint64(0); seed < 12; seed += testkit.Thin {
		dir, f := t.TempDir(), newFarm(seed, 1+int(seed)*2)
		var all [][]byte
		for i := range 2500 {
			s := f.share(int64(i) * 86400 / 2500)
			if seed%3 == 1 && f.IntN(4) == 0 {
				odd(f, s)
			}
			all = append(all, s.AppendBody(nil))
		}
		if seed%3 == 2 {
			all = slices.Concat(all[:1000], strange(), all[1000:], strange())
		}
		add(t, dir, 0, all...)
		if _, err := sealed.SealInRuns(t.Context(), dir, "BTC", day); err != nil {
			t.Fatal(err)
		}
		want, err := byRecord(sealed.Path(dir, "BTC", day))
		if err != nil {
			t.Fatal(err)
		}
		got, longest, err := byStreak(t.Context(), sealed.Path(dir, "BTC", day))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(counted{})); diff != "" || len(want) != len(all) {
			t.Errorf("seed %d, %d records (-records +streaks):\n%s", seed, len(want), diff)
		}
		if seed == 0 && longest < 10 {
			t.Errorf("one worker's longest streak has %d records", longest)
		}
	}
}

// TestStreaksDamaged flips bits all over a sealed file: reading it in streaks gives an error or what was sealed.
func TestStreaksDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	add(t, dir, 0, append(some(newFarm(7, 10), 400), strange()...)...)
	if _, err := sealed.SealInRuns(t.Context(), dir, "BTC", day); err != nil {
		t.Fatal(err)
	}
	path := sealed.Path(dir, "BTC", day)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := byStreak(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	refused, tried := 0, 0
	for i := 52; i < len(whole); i += 64 * testkit.Thin { // among these are places where no page's checksum tells
		tried++
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << (i * 5 % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := byStreak(t.Context(), path)
		switch {
		case err == nil && !slices.Equal(want, got):
			t.Errorf("byte %d of %d: other shares, and no error", i, len(whole))
		case err != nil && !errors.Is(err, sealed.ErrCorrupt):
			t.Errorf("byte %d: %v, want ErrCorrupt", i, err)
		case err != nil:
			refused++
		}
	}
	if refused < tried/8 {
		t.Errorf("of %d damaged files %d were refused", tried, refused)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := byStreak(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
