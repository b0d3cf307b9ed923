package upgrade_test

import (
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/upgrade"
)

// thing has a field of each kind.
type thing struct {
	Small  uint8
	Large  uint64
	Signed int8
	Most   int64
	Yes    bool
	Real   float64
	Hash   [4]byte
	Data   []byte
	Text   string
	At     time.Time
	Never  time.Time
	IP     netip.Addr
	NoIP   netip.Addr
	List   []uint32
	Map    map[uint16]string
	None   *uint8
	Some   *uint8
}

func (t *thing) code(c *upgrade.Codec) {
	upgrade.Uint(c, &t.Small)
	upgrade.Uint(c, &t.Large)
	upgrade.Int(c, &t.Signed)
	upgrade.Int(c, &t.Most)
	c.Bool(&t.Yes)
	c.Float(&t.Real)
	c.Fixed(t.Hash[:])
	c.Data(&t.Data, 100)
	c.Text(&t.Text, 100)
	c.Time(&t.At)
	c.Time(&t.Never)
	c.Addr(&t.IP)
	c.Addr(&t.NoIP)
	upgrade.List(c, &t.List, 100, upgrade.Uint[uint32])
	upgrade.Map(c, &t.Map, 100, upgrade.Uint[uint16], func(c *upgrade.Codec, s *string) { c.Text(s, 10) })
	upgrade.Maybe(c, &t.None, upgrade.Uint[uint8])
	upgrade.Maybe(c, &t.Some, upgrade.Uint[uint8])
}

var now = time.Unix(1_700_000_000, 5)

func full() thing {
	some := uint8(9)
	return thing{
		Small: 255, Large: math.MaxUint64, Signed: -128, Most: math.MinInt64, Yes: true, Real: -1.5,
		Hash: [4]byte{1, 2, 3, 4}, Data: []byte("data"), Text: "text", At: now.Add(-time.Hour),
		IP: netip.MustParseAddr("2001:db8::1"), List: []uint32{1, math.MaxUint32}, Map: map[uint16]string{7: "seven"}, Some: &some,
	}
}

func TestCodec(t *testing.T) {
	t.Parallel()
	want := full()
	w := upgrade.NewWriter(1, now, nil)
	want.code(w)
	var got thing
	r := upgrade.NewReader(1, now, w.Bytes())
	got.code(r)
	if r.Err() != nil || r.Left() != 0 {
		t.Fatal(r.Err(), r.Left())
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Error(diff)
	}
	for n := range w.Bytes() { // whatever is cut off is a fault
		r := upgrade.NewReader(1, now, w.Bytes()[:n])
		new(thing).code(r)
		if !errors.Is(r.Err(), upgrade.ErrMalformed) {
			t.Fatalf("%d bytes: %v", n, r.Err())
		}
	}
}

func TestCodecLimits(t *testing.T) {
	t.Parallel()
	w := upgrade.NewWriter(1, now, nil)
	large, text := uint64(256), "too long"
	upgrade.Uint(w, &large)
	w.Text(&text, 100)
	var small uint8
	r := upgrade.NewReader(1, now, w.Bytes())
	if upgrade.Uint(r, &small); !errors.Is(r.Err(), upgrade.ErrMalformed) || small != 0 {
		t.Error(r.Err(), small)
	}
	r = upgrade.NewReader(1, now, w.Bytes())
	upgrade.Uint(r, &large)
	if r.Text(&text, 7); !errors.Is(r.Err(), upgrade.ErrMalformed) {
		t.Error(r.Err())
	}
}

func FuzzCodec(f *testing.F) {
	w := upgrade.NewWriter(1, now, nil)
	one := full()
	one.code(w)
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		var got thing
		r := upgrade.NewReader(1, now, in)
		if got.code(r); r.Err() != nil {
			return
		}
		w := upgrade.NewWriter(1, now, nil)
		got.code(w)
		var again thing
		r = upgrade.NewReader(1, now, w.Bytes())
		again.code(r)
		same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := cmp.Diff(got, again, same); r.Err() != nil || diff != "" {
			t.Fatal(r.Err(), diff)
		}
	})
}
