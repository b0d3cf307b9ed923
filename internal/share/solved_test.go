package share_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/share"
	"btcpool/internal/testkit"
)

func TestParseSolved(t *testing.T) {
	t.Parallel()
	got, err := share.ParseSolved(testkit.Hex(t, "solved.hex"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(solved(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSolvedCutsName(t *testing.T) {
	t.Parallel()
	s := solved()
	s.WorkerName = strings.Repeat("x", 60)
	got, err := share.ParseSolved(s.AppendTo(nil))
	if err != nil || got.WorkerName != strings.Repeat("x", share.MaxWorkerName) {
		t.Errorf("name %q, error %v", got.WorkerName, err)
	}
}

func TestParseSolvedRefuses(t *testing.T) {
	t.Parallel()
	whole := testkit.Hex(t, "solved.hex")
	endless := testkit.Hex(t, "solved.hex")
	copy(endless[104:], strings.Repeat("x", 40))
	for name, in := range map[string][]byte{
		"nothing":      nil,
		"no coinbase":  whole[:144],
		"endless name": endless,
	} {
		if _, err := share.ParseSolved(in); !errors.Is(err, share.ErrSolved) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzParseSolved(f *testing.F) {
	f.Add(testkit.Hex(f, "solved.hex"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := share.ParseSolved(in)
		if err != nil {
			return
		}
		again, err := share.ParseSolved(s.AppendTo(nil))
		if diff := cmp.Diff(s, again); err != nil || diff != "" {
			t.Fatalf("%x is not stable: %v\n%s", in, err, diff)
		}
	})
}
