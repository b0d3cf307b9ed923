package sharefile_test

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

// checkpoints are the fields of some, by format.
func checkpoints(tb testing.TB) map[byte][][]byte {
	tb.Helper()
	all := map[byte][][]byte{
		sharefile.FormatOld: {
			nil,
			{7, 0, 1, 0, 3, 5},
			{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0},
		},
	}
	for _, c := range []sharefile.Checkpoint{
		{},
		{Flush: 3, Files: 1, From: map[int]bus.Mark{0: {Offset: 4, Checksum: 5}}, Last: map[int]bus.Mark{0: {Offset: 6, Checksum: 7}}, To: map[int]int64{0: 7}},
		{Flush: math.MaxUint64, Generation: math.MaxUint64, To: map[int]int64{0: math.MaxInt64, 1: 0}, Last: map[int]bus.Mark{0: {Offset: math.MaxInt64 - 2}}},
		{Flush: 1, Last: map[int]bus.Mark{0: {Offset: -1}}, To: map[int]int64{0: 0}, Files: 1},
	} {
		fields, err := c.Fields()
		if err != nil {
			tb.Fatal(err)
		}
		all[sharefile.Format] = append(all[sharefile.Format], fields)
	}
	return all
}

// FuzzCheckpoint: what is read of a header is what is written again.
func FuzzCheckpoint(f *testing.F) {
	for format, all := range checkpoints(f) {
		for _, fields := range all {
			f.Add(format == sharefile.FormatOld, fields)
		}
	}
	f.Fuzz(func(t *testing.T, old bool, fields []byte) {
		c, ok := sharefile.ParseMember(member(t, old, fields, nil))
		if !ok {
			return
		}
		again, err := c.Fields()
		if err != nil {
			return // the format of now needs more bytes
		}
		got, ok := sharefile.ParseMember(member(t, false, again, nil))
		if diff := cmp.Diff(c, got, cmpopts.EquateEmpty()); !ok || diff != "" {
			t.Fatalf("%x is not stable:\n%s", fields, diff)
		}
	})
}

func member(tb testing.TB, old bool, fields, records []byte) []byte {
	tb.Helper()
	format := byte(sharefile.Format)
	if old {
		format = sharefile.FormatOld
	}
	return sharefile.Member(tb, format, fields[:min(len(fields), sharefile.MaxFields)], records)
}

// FuzzOpenWriter goes on with a file of any content, damaged or not: it is refused, or a share that is new is there
// afterwards, once, and the next writer knows of it.
func FuzzOpenWriter(f *testing.F) {
	for format, all := range checkpoints(f) {
		for _, fields := range all {
			f.Add([]byte(nil), format == sharefile.FormatOld, fields, []byte(nil))
		}
	}
	for _, file := range samples(f) {
		f.Add(file, false, []byte(nil), file[:len(file)/2])
	}
	f.Fuzz(func(t *testing.T, before []byte, old bool, fields, behind []byte) {
		dir := t.TempDir()
		path := sharefile.Path(dir, "BTC", 20231120)
		own := member(t, old, fields, records(newShare(1, monday)))
		if c, ok := sharefile.ParseMember(own); ok && (c.Flush|c.Generation)>>63 != 0 {
			return // no writer counts that far
		}
		write(t, path, slices.Concat(before, own, behind))
		w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
		if err != nil {
			return
		}
		next, _ := resume(w)
		s := newShare(math.MaxUint32, monday)
		s.ID = share.ID{Server: 9, Epoch: math.MaxUint32, Seq: math.MaxUint64}
		body := s.AppendBody(nil)
		isNew, err := w.Add(&bus.Message{Offset: next[0], Value: body}, &s, body)
		if err != nil {
			t.Fatal(err)
		}
		n, err := w.Flush()
		w.Close()
		if err != nil || !isNew {
			return
		}
		all, _, _ := readAll(t, path)
		times := 0
		for _, nonce := range all {
			if nonce == s.Nonce {
				times++
			}
		}
		if n != 1 || times != 1 {
			t.Fatalf("wrote %d shares, the new one is there %d times", n, times)
		}
		w = openWriter(t, dir)
		defer w.Close()
		if again, ok := resume(w); !ok || again[0] != next[0]+1 {
			t.Fatalf("resumes at %d, %t, want %d", again[0], ok, next[0]+1)
		}
	})
}
