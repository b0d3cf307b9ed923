package upgrade

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Codec writes values into bytes or reads them from there, field by field: one description serves both, so that the two
// cannot differ.
//
//	func (s *session) code(c *upgrade.Codec) {
//		upgrade.Uint(c, &s.ID)
//		c.Text(&s.Agent, maxAgent)
//	}
//
// Reading is bounded by the limits given and by the bytes there are; the first fault ends it, and what follows is left
// as it is.
type Codec struct {
	// Version is that of the format. Fields that a version does not have are left out by whoever describes them.
	Version uint32
	// Now is what times are written relative to, and read: the clocks of two processes may differ in how they count.
	Now time.Time

	reading bool
	buf     []byte // what was written, or is still to be read
	err     error
}

// ErrMalformed is what reading fails with.
var ErrMalformed = errors.New("malformed state")

// NewWriter returns a Codec that appends to buf.
func NewWriter(version uint32, now time.Time, buf []byte) *Codec {
	return &Codec{Version: version, Now: now, buf: buf}
}

// NewReader returns a Codec that reads from buf, and keeps nothing of it.
func NewReader(version uint32, now time.Time, buf []byte) *Codec {
	return &Codec{Version: version, Now: now, buf: buf, reading: true}
}

// Reading reports whether values are read.
func (c *Codec) Reading() bool { return c.reading }

// Bytes returns what was written.
func (c *Codec) Bytes() []byte { return c.buf }

// Left returns how many bytes have not been read.
func (c *Codec) Left() int { return len(c.buf) }

// Err returns the first fault.
func (c *Codec) Err() error { return c.err }

// Fail makes what is read a fault.
func (c *Codec) Fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
		c.buf = nil
	}
}

func (c *Codec) uvarint() uint64 {
	v, n := binary.Uvarint(c.buf)
	if n <= 0 {
		c.Fail("cut off")
		return 0
	}
	c.buf = c.buf[n:]
	return v
}

// Uint is for all unsigned numbers.
func Uint[T ~uint8 | ~uint16 | ~uint32 | ~uint64](c *Codec, v *T) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, uint64(*v))
		return
	}
	n := c.uvarint()
	if c.err == nil && uint64(T(n)) != n {
		c.Fail("%d is too large", n)
	}
	if c.err == nil {
		*v = T(n)
	}
}

// Int is for all signed numbers.
func Int[T ~int | ~int8 | ~int16 | ~int32 | ~int64](c *Codec, v *T) {
	u := uint64(int64(*v)<<1) ^ uint64(int64(*v)>>63)
	Uint(c, &u)
	n := int64(u>>1) ^ -int64(u&1)
	if c.reading && c.err == nil {
		if int64(T(n)) != n {
			c.Fail("%d is too large", n)
			return
		}
		*v = T(n)
	}
}

// Bool is for true and false.
func (c *Codec) Bool(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	if Uint(c, &n); n > 1 {
		c.Fail("%d is neither true nor false", n)
	}
	if c.reading && c.err == nil {
		*v = n == 1
	}
}

// Float is for numbers, but for those that are none.
func (c *Codec) Float(v *float64) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, math.Float64bits(*v))
		return
	}
	if b := c.take(8); b != nil {
		f := math.Float64frombits(binary.LittleEndian.Uint64(b))
		if math.IsNaN(f) || math.IsInf(f, 0) {
			c.Fail("no number")
			return
		}
		*v = f
	}
}

// Fixed is for arrays of bytes.
func (c *Codec) Fixed(v []byte) {
	if !c.reading {
		c.buf = append(c.buf, v...)
		return
	}
	copy(v, c.take(len(v)))
}

// take returns the next bytes, or nil when there are not as many.
func (c *Codec) take(n int) []byte {
	if len(c.buf) < n {
		c.Fail("cut off")
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

// count is the length of something that has at most limit parts, each of a byte or more.
func (c *Codec) count(n, limit int) int {
	length := uint64(n)
	Uint(c, &length)
	if !c.reading {
		return n
	}
	if length > uint64(limit) || length > uint64(len(c.buf)) {
		c.Fail("%d parts are too many", length)
	}
	if c.err != nil {
		return 0
	}
	return int(length)
}

// Data is for up to limit bytes. None are nil.
func (c *Codec) Data(v *[]byte, limit int) {
	n := c.count(len(*v), limit)
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	if c.err == nil {
		*v = append([]byte(nil), c.take(n)...)
	}
}

// Text is for up to limit bytes of text.
func (c *Codec) Text(v *string, limit int) {
	n := c.count(len(*v), limit)
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	if c.err == nil {
		*v = string(c.take(n))
	}
}

// Time is for a moment.
func (c *Codec) Time(v *time.Time) {
	known := !v.IsZero()
	c.Bool(&known)
	if !known {
		if c.reading && c.err == nil {
			*v = time.Time{}
		}
		return
	}
	d := v.Sub(c.Now)
	Int(c, &d)
	if c.reading && c.err == nil {
		*v = c.Now.Add(d)
	}
}

// Addr is for an address, or none.
func (c *Codec) Addr(v *netip.Addr) {
	b := v.AsSlice()
	c.Data(&b, 16)
	if !c.reading || c.err != nil {
		return
	}
	ip, ok := netip.AddrFromSlice(b)
	if !ok && len(b) > 0 {
		c.Fail("no address")
		return
	}
	*v = ip
}

// List is for up to limit values. None are nil.
func List[T any](c *Codec, v *[]T, limit int, each func(*Codec, *T)) {
	n := c.count(len(*v), limit)
	if c.reading {
		if c.err != nil {
			return
		}
		*v = nil
		if n > 0 {
			*v = make([]T, 0, min(n, 1024)) // what is claimed is not believed
		}
	}
	for i := range n {
		if c.err != nil {
			return
		}
		if !c.reading {
			each(c, &(*v)[i])
			continue
		}
		var one T
		each(c, &one)
		*v = append(*v, one)
	}
}

// Map is for up to limit values by their keys, in any order. An empty one is not nil.
func Map[K comparable, V any](c *Codec, v *map[K]V, limit int, key func(*Codec, *K), value func(*Codec, *V)) {
	mapBy(c, v, maps.Keys(*v), limit, key, value)
}

// SortedMap is Map in the order of the keys: equal maps are written alike.
func SortedMap[K cmp.Ordered, V any](c *Codec, v *map[K]V, limit int, key func(*Codec, *K), value func(*Codec, *V)) {
	keys := maps.Keys(*v)
	if len(*v) > 1 && !c.reading {
		keys = slices.Values(slices.Sorted(keys))
	}
	mapBy(c, v, keys, limit, key, value)
}

func mapBy[K comparable, V any](c *Codec, v *map[K]V, keys iter.Seq[K], limit int, key func(*Codec, *K), value func(*Codec, *V)) {
	n := c.count(len(*v), limit)
	if !c.reading {
		for k := range keys {
			one := (*v)[k]
			key(c, &k)
			value(c, &one)
		}
		return
	}
	all := make(map[K]V, min(n, 1024))
	for range n {
		var k K
		var one V
		key(c, &k)
		value(c, &one)
		if c.err != nil {
			return
		}
		all[k] = one
	}
	if c.err == nil {
		*v = all
	}
}

// Maybe is for a value that may be missing.
func Maybe[T any](c *Codec, v **T, value func(*Codec, *T)) {
	has := *v != nil
	c.Bool(&has)
	if c.err != nil {
		return
	}
	if !has {
		*v = nil
		return
	}
	if c.reading {
		*v = new(T)
	}
	value(c, *v)
}
