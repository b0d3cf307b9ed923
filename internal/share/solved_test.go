package share_test

import (
	"bytes"
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

// The longest address of today and a worker, beside btcpool's layout.
func TestSolvedWithName(t *testing.T) {
	t.Parallel()
	s := solved()
	s.WorkerName = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr.garage-1"
	value := s.AppendTo(nil)
	message := share.WithName(s.WorkerName, value)
	got, err := share.ParseSolved(message)
	if diff := cmp.Diff(s, got); err != nil || diff != "" {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	if name, solved := share.CutName(message); name != s.WorkerName || !bytes.Equal(solved, value) {
		t.Errorf("name %q, value %x", name, solved)
	}
	for name, add := range map[string]string{
		"another name": "bc1q" + s.WorkerName[4:],
		"the field":    s.WorkerName[:share.MaxWorkerName],
		"nothing":      "",
		"a line end":   s.WorkerName + "\r\nX: y",
		"too long":     s.WorkerName + strings.Repeat("x", 255),
	} {
		if got := share.WithName(add, value); !bytes.Equal(got, value) {
			t.Errorf("%s was added", name)
		}
	}
	if got := share.WithName(s.WorkerName, message); !bytes.Equal(got, message) {
		t.Error("the name was added twice")
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
		"only a name":  append(make([]byte, 8), "\x03abc"...),
		"half a name":  append(make([]byte, 8), "\x04abc"...),
	} {
		if _, err := share.ParseSolved(in); !errors.Is(err, share.ErrSolved) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzParseSolved(f *testing.F) {
	f.Add(testkit.Hex(f, "solved.hex"))
	long := solved()
	long.WorkerName = strings.Repeat("long.name-", 7)
	f.Add(share.WithName(long.WorkerName, long.AppendTo(nil)))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := share.ParseSolved(in)
		if err != nil {
			return
		}
		again, err := share.ParseSolved(share.WithName(s.WorkerName, s.AppendTo(nil)))
		if diff := cmp.Diff(s, again); err != nil || diff != "" {
			t.Fatalf("%x is not stable: %v\n%s", in, err, diff)
		}
	})
}
