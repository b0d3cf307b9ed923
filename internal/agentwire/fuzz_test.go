package agentwire_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/agentwire"
)

// Any stream means the same however it is cut, and what was understood of it can be said again.
func FuzzParseFrame(f *testing.F) {
	var stream []byte
	golden := goldenFrames(f)
	for _, name := range slices.Sorted(maps.Keys(golden)) {
		f.Add(golden[name], 3)
		stream = append(stream, golden[name]...)
	}
	f.Add(append(stream, frame(0x21, "unknown")...), 50)
	f.Add(frame(0x01, "\x00\x00no NUL"), 8)
	f.Add([]byte("\x7f\x04\x03\x00"), 2)
	f.Add([]byte("\x7f\x01\xff\xff{\"id\":1}\n"), 4)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		if cut < 0 || cut > len(in) {
			return
		}
		whole, rest, err := parseAll(bytes.Clone(in))
		pieces, part, err1 := parseAll(bytes.Clone(in[:cut]))
		if err1 == nil {
			var more []message
			more, part, err1 = parseAll(append(bytes.Clone(part), in[cut:]...))
			pieces = append(pieces, more...)
		} else {
			part = append(part, in[cut:]...)
		}
		if diff := cmp.Diff(whole, pieces); diff != "" || !errors.Is(err1, err) || !bytes.Equal(rest, part) {
			t.Fatalf("errors %v and %v, rests %x and %x\n%s", err, err1, rest, part, diff)
		}
		for _, m := range whole {
			if m == nil {
				continue
			}
			again, rest, err := parseAll(m.AppendTo(nil))
			if diff := cmp.Diff([]message{m}, again); diff != "" || err != nil || len(rest) > 0 {
				t.Fatalf("%+v is not stable: error %v, rest %x\n%s", m, err, rest, diff)
			}
		}
		if err == nil && len(rest) >= agentwire.MaxFrame {
			t.Fatalf("waits for more behind %d bytes", len(rest))
		}
	})
}
