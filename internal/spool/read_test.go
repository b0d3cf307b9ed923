package spool_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"btcpool/internal/spool"
	"btcpool/internal/telemetry"
	"btcpool/internal/testkit"
)

// place is where a record stands in a segment.
type place struct{ from, to int }

// segmentOf returns a segment whose records have random sizes, some larger than what is read at a time leaves room for.
func segmentOf(r *rand.Rand, epoch uint32, n int) (segment []byte, places []place) {
	for seq := uint64(1); seq <= uint64(n); seq++ {
		value := fmt.Appendf(nil, "%d/%d/", epoch, seq)
		size := r.IntN(300)
		if r.IntN(200) == 0 {
			size = r.IntN(spool.MaxValue - len(value))
		}
		for range size {
			value = append(value, byte(r.Uint32()))
		}
		frame := spool.Frame(epoch, seq, r.Uint64(), value)
		places = append(places, place{len(segment), len(segment) + len(frame)})
		segment = append(segment, frame...)
	}
	return segment, places
}

// harm damages a segment: flipped bits, bytes overwritten by zeros, by noise or by what stands before them, an end cut
// off, noise behind it.
func harm(r *rand.Rand, segment []byte) []byte {
	segment = slices.Clone(segment)
	for range 1 + r.IntN(4) {
		at := r.IntN(len(segment))
		some := segment[at:min(len(segment), at+1+r.IntN(5000))]
		switch r.IntN(8) {
		case 0, 1, 2:
			segment[at] ^= 1 << r.IntN(8)
		case 3:
			clear(some)
		case 4:
			for i := range some {
				some[i] = byte(r.Uint32())
			}
		case 5:
			if at > len(some) {
				copy(some, segment[r.IntN(at-len(some)):])
			}
		case 6:
			if at > 0 && r.IntN(4) == 0 {
				segment = segment[:at]
			}
		case 7:
			for range r.IntN(1000) {
				segment = append(segment, byte(r.Uint32()))
			}
		}
	}
	return segment
}

// TestDamageAnywhere damages what a spool left at random: what is whole where it was is sent, nothing twice, out of order
// or changed, and what is lost is told.
func TestDamageAnywhere(t *testing.T) {
	t.Parallel()
	const rounds = 100 / testkit.Thin
	var damaged, told int
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 11))
		dir := t.TempDir()
		var order []string
		whole := map[string]bool{}
		for epoch := range uint32(1 + r.IntN(3)) {
			segment, places := segmentOf(r, epoch+1, 1+r.IntN(300))
			after := harm(r, segment)
			for _, p := range places {
				value := string(segment[p.from+spool.FrameSize : p.to])
				order = append(order, value)
				whole[value] = p.to <= len(after) && bytes.Equal(after[p.from:p.to], segment[p.from:p.to])
				if !whole[value] {
					damaged++
				}
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%08d.seg", epoch+1)), after, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		reg := prometheus.NewRegistry()
		s, err := spool.Open(spool.Config{Dir: dir, NoSync: true}, telemetry.Deps{Log: zerolog.Nop(), Metrics: reg}, "test")
		if err != nil {
			t.Fatal(err)
		}
		got := drain(t, s)
		closeSpool(t, s)
		for _, value := range order {
			switch {
			case len(got) > 0 && got[0] == value:
				got = got[1:]
			case whole[value]:
				t.Errorf("seed %d: %.9q is lost", seed, value)
			}
		}
		if len(got) > 0 {
			t.Errorf("seed %d: %.9q was sent again, out of order or changed", seed, got[0])
		}
		told += int(testkit.Metric(t, reg, "btcpool_spool_lost_records_total"))
	}
	t.Logf("%d records damaged in %d spools, %d told", damaged, rounds, told)
}

// TestSearchIsBounded reads bytes that look like the beginning of a record again and again, none of which is one.
func TestSearchIsBounded(t *testing.T) {
	t.Parallel()
	first := spool.Frame(1, 1, 0, nil)
	for name, seq := range map[string]func(i int) uint64{
		"any":      func(i int) uint64 { return uint64(i) + 1 },
		"expected": func(int) uint64 { return 3 },
	} {
		hostile := slices.Clone(first)
		if name == "any" {
			hostile = nil
		}
		for i := 0; len(hostile) < 16*spool.ReadBytes/testkit.Thin; i++ {
			head := spool.Frame(1, seq(i), 0, nil)
			binary.LittleEndian.PutUint32(head, spool.FrameSize-8+spool.MaxValue)
			hostile = append(hostile, head[:20]...)
		}
		n := 0
		skipped, _ := spool.Records(t, hostile, func(uint32, uint64, []byte) { n++ })
		if want := len(hostile) - n*len(first); skipped != int64(want) {
			t.Errorf("%s: %d records, %d bytes skipped, want %d", name, n, skipped, want)
		}
	}
}

// FuzzSegment reads any bytes: what is taken for a record stands there, in order, and all else is skipped.
func FuzzSegment(f *testing.F) {
	one, two, three := spool.Frame(1, 2, 3, []byte("value")), spool.Frame(1, 3, 3, nil), spool.Frame(2, 4, 3, []byte("v"))
	f.Add(one)
	f.Add(slices.Concat(one, two, three[:11]))
	f.Add(slices.Concat(one[:20], two, one, three))
	f.Add(slices.Concat(one, two[:9], []byte{1}, two[10:], three))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, in []byte) {
		var last uint64
		at, size := 0, 0
		skipped, records := spool.Records(t, in, func(epoch uint32, seq uint64, value []byte) {
			if seq <= last {
				t.Fatalf("record %d after %d", seq, last)
			}
			last = seq
			head := spool.Frame(epoch, seq, 0, value)[8:20]
			i := bytes.Index(in[at:], head)
			if i < 0 {
				t.Fatalf("record %d/%d is not there", epoch, seq)
			}
			at += i + len(head)
			size += spool.FrameSize + len(value)
		})
		if size+int(skipped) != len(in) || records > 0 && skipped == 0 {
			t.Fatalf("%d bytes of records, %d skipped in %d records, of %d", size, skipped, records, len(in))
		}
	})
}
