package store_test

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/store"
)

func TestMinutesKeepWhatIsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var m, again store.Minutes
		m.From = rapid.IntRange(0, 60).Draw(t, "from")
		m.To = rapid.IntRange(m.From, 60).Draw(t, "to")
		for _, series := range []*[60]float64{&m.Accept, &m.Stale, &m.Reject} {
			unit := math.Ldexp(1, rapid.IntRange(-4, 90).Draw(t, "unit"))
			for i := m.From; i < m.To; i++ {
				if rapid.Bool().Draw(t, "any") {
					series[i] = float64(rapid.Uint64Range(0, 1<<40).Draw(t, "shares")) * unit
				}
			}
		}
		packed := m.AppendTo(nil)
		if err := again.Parse(packed); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
		if len(packed) > 2000 {
			t.Fatalf("%d bytes do not fit the column", len(packed))
		}
	})
}

// A worker of a share each 10 s takes few bytes an hour.
func TestMinutesAreSmall(t *testing.T) {
	t.Parallel()
	m := store.Minutes{To: 60}
	for i := range m.Accept {
		m.Accept[i] = float64(4+i%5) * math.Ldexp(1, 32+17)
	}
	m.Reject[17], m.Stale[59] = math.Ldexp(1, 32+17), math.Ldexp(1, 32+17)
	if size := len(m.AppendTo(nil)); size > 85 {
		t.Errorf("%d bytes", size)
	}
}

func FuzzMinutes(f *testing.F) {
	m := store.Minutes{From: 3, To: 60}
	m.Accept[5], m.Stale[59], m.Reject[3] = 1<<40, 3, 7<<33
	f.Add(m.AppendTo(nil))
	f.Add([]byte{1, 0, 60})
	f.Fuzz(func(t *testing.T, in []byte) {
		var m, again store.Minutes
		if err := m.Parse(in); err != nil {
			if !errors.Is(err, store.ErrMinutes) {
				t.Fatal(err)
			}
			return
		}
		if err := again.Parse(m.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		for _, v := range m.Accept {
			if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("%v hashes", v)
			}
		}
		if m.From != again.From || m.To != again.To {
			t.Fatalf("%d to %d, again %d to %d", m.From, m.To, again.From, again.To)
		}
	})
}
