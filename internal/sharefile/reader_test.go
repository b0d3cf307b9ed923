package sharefile_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

// ownFile returns a file of three flushes of two shares each.
func ownFile(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	w := openWriter(t, dir)
	defer w.Close()
	for nonce := uint64(1); nonce <= 6; nonce++ {
		add(t, w, int(nonce%2), int64(nonce), newShare(nonce, monday))
		if nonce%2 == 0 {
			flush(t, w)
		}
	}
	b, err := os.ReadFile(sharefile.Path(dir, "BTC", 20231120))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oldFile returns the same file as earlier versions wrote it.
func oldFile(t testing.TB) []byte {
	t.Helper()
	dump, err := os.ReadFile(filepath.Join("testdata", "format-1.hex"))
	if err != nil {
		t.Fatal(err)
	}
	var file []byte
	for line := range strings.Lines(string(dump)) { // of hex.Dump
		hexadecimal, _, _ := strings.Cut(line[8:], "|")
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(hexadecimal), " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, b...)
	}
	return file
}

// samples are files with the shares 1 to 6, each of another origin.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	var shares []share.Share
	for nonce := uint64(1); nonce <= 6; nonce++ {
		shares = append(shares, newShare(nonce, monday))
	}
	all := records(shares...)
	own := ownFile(t)
	var old []byte
	for _, s := range shares {
		old = append(old, testkit.OldShare(s, share.SizeV2)...)
	}
	return map[string][]byte{
		"own":                   own,
		"of an earlier version": oldFile(t),
		"plain":                 all,
		"raw":                   old,
		"one foreign member":    foreignMember(t, all),
		"members cut anywhere":  append(foreignMember(t, all[:150]), foreignMember(t, all[150:])...),
		"with an empty member":  append(foreignMember(t, nil), foreignMember(t, all)...),
		"continued by us":       append(foreignMember(t, nil), own...),
		"continued by another":  append(bytes.Clone(own), foreignMember(t, nil)...),
		"both in turns":         append(append(foreignMember(t, all[:0]), own...), foreignMember(t, nil)...),
	}
}

// TestGolden pins the header's layout: the same file must be readable for ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	testkit.Golden(t, "three-flushes.hex", []byte(hex.Dump(ownFile(t))))
}

// TestContinuesOldFile: a checkpoint of before tells where to go on, not what stood there, and the flush that it is of is
// read again.
func TestContinuesOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, sharefile.Path(dir, "BTC", 20231120), oldFile(t))
	w := openWriter(t, dir)
	defer w.Close()
	last, ok := w.Resume()
	if diff := cmp.Diff(map[int]bus.Mark{0: {Offset: 4}, 1: {Offset: 3}}, last); diff != "" || !ok {
		t.Errorf("%t (-want +got):\n%s", ok, diff)
	}
	for nonce := uint64(5); nonce <= 7; nonce++ {
		if isNew := add(t, w, int(nonce%2), int64(nonce), newShare(nonce, monday)); isNew != (nonce == 7) {
			t.Errorf("share %d is new: %t", nonce, isNew)
		}
	}
	flush(t, w)
	if diff := cmp.Diff([]uint32{1, 2, 3, 4, 5, 6, 7}, readDay(t, dir, 20231120)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFollow reads each sample while it grows, stopping at every length.
func TestFollow(t *testing.T) {
	t.Parallel()
	for name, file := range samples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "file")
			for cut := range len(file) {
				write(t, path, file[:cut])
				r, err := sharefile.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				got, err := nonces(t, r)
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				if pos := r.Position(); pos > int64(cut) {
					t.Fatalf("cut at %d: position %d", cut, pos)
				}
				write(t, path, file)
				rest, err := nonces(t, r)
				if !errors.Is(err, io.EOF) {
					t.Fatalf("cut at %d, then whole: %v", cut, err)
				}
				if diff := cmp.Diff([]uint32{1, 2, 3, 4, 5, 6}, append(got, rest...)); diff != "" {
					t.Fatalf("cut at %d (-want +got):\n%s", cut, diff)
				}
				if pos := r.Position(); pos != int64(len(file)) {
					t.Fatalf("cut at %d: ends at %d of %d", cut, pos, len(file))
				}
				r.Close()
			}
		})
	}
}

// TestFollowReplacedEnd has the writer cut off a torn member and write another one in its place.
func TestFollowReplacedEnd(t *testing.T) {
	t.Parallel()
	file := ownFile(t)
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, file[:len(file)-1])
	r, err := sharefile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := nonces(t, r)
	if diff := cmp.Diff([]uint32{1, 2, 3, 4}, got); diff != "" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	write(t, path, append(file[:r.Position()], foreignMember(t, records(newShare(9, monday)))...))
	got, err = nonces(t, r)
	if diff := cmp.Diff([]uint32{9}, got); diff != "" || !errors.Is(err, io.EOF) {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
}

func TestCorrupt(t *testing.T) {
	t.Parallel()
	own := ownFile(t)
	foreign := foreignMember(t, records(newShare(1, monday)))
	spoil := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x55
		return b
	}
	for name, file := range map[string][]byte{
		"own member's data":     spoil(own, len(own)-10),
		"foreign member's data": spoil(foreign, len(foreign)-10),
		"foreign checksum":      spoil(foreign, len(foreign)-6),
		"something behind":      append(bytes.Clone(own), "hello"...),
		"record too long":       append([]byte{1, 0, 1, 0}, make([]byte, 44)...),
	} {
		path := filepath.Join(t.TempDir(), "file")
		write(t, path, file)
		r, err := sharefile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err = r.Next(); err != nil {
				break
			}
		}
		if !errors.Is(err, sharefile.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		r.Close()
	}
}

// FuzzReader: whatever a file holds, and wherever it ended for a while, its records are the same. Behind damage a member
// may be sound in one of both only, but reading comes to an end.
func FuzzReader(f *testing.F) {
	for _, file := range samples(f) {
		f.Add(file, len(file)/2)
	}
	f.Add(rawFile(share.SizeV1, 6), 100)
	f.Fuzz(func(t *testing.T, file []byte, cut int) {
		if cut < 0 || cut > len(file) || len(file) >= share.SizeV1 && cut < min(len(file), 2*share.SizeV2) { // which tell the file's form
			return
		}
		path := filepath.Join(t.TempDir(), "file")
		whole, wholeDamage, wholeErr := drain(t, path, file)
		parts, partsDamage, partsErr := drain(t, path, file[:cut], file)
		sameInBatches(t, path)
		if wholeDamage+partsDamage > 0 {
			return
		}
		if diff := cmp.Diff(whole, parts); diff != "" || errors.Is(wholeErr, io.EOF) != errors.Is(partsErr, io.EOF) {
			t.Fatalf("cut at %d of %x: %v, then %v (-whole +parts):\n%s", cut, file, wholeErr, partsErr, diff)
		}
	})
}

// sameInBatches reads a file record by record, and in batches of members that were inflated side by side: all has to
// be the same, damage and end included.
func sameInBatches(t testing.TB, path string) {
	t.Helper()
	read := func(ahead bool) (all []string) {
		r, err := sharefile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if ahead {
			r.ReadAhead(3)
		}
		for {
			if !ahead {
				var record []byte
				if record, err = r.Next(); err == nil {
					all = append(all, string(record))
				}
			} else {
				var batch, record []byte
				for batch, err = r.NextBatch(); len(batch) > 0; {
					record, batch = sharefile.CutRecord(batch)
					all = append(all, string(record))
				}
			}
			if err != nil {
				all = append(all, fmt.Sprintf("%v, position %d", err, r.Position()))
			}
			if err != nil && !errors.As(err, new(*sharefile.Damage)) {
				return all
			}
		}
	}
	if diff := cmp.Diff(read(false), read(true)); diff != "" {
		t.Fatalf("(-records +batches):\n%s", diff)
	}
}

// TestBatches reads files of several members, of ours and of others, sound and with up to three bits turned over or an
// end cut off.
func TestBatches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	for nonce := uint64(1); nonce <= 400; nonce++ {
		add(t, w, 0, int64(nonce), newShare(nonce, monday))
		if nonce%20 == 0 {
			flush(t, w)
		}
	}
	w.Close()
	testkit.AppendShares(t, dir, "BTC", []share.Share{newShare(500, monday), newShare(501, monday)})
	w = openWriter(t, dir)
	for nonce := uint64(600); nonce <= 700; nonce++ {
		add(t, w, 0, int64(nonce), newShare(nonce, monday))
		if nonce%10 == 0 {
			flush(t, w)
		}
	}
	w.Close()
	path := sharefile.Path(dir, "BTC", 20231120)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sameInBatches(t, path)
	rapid.Check(t, func(rt *rapid.T) {
		file := bytes.Clone(whole)
		if rapid.Bool().Draw(rt, "cut") {
			file = file[:rapid.IntRange(0, len(file)).Draw(rt, "size")]
		}
		for range rapid.IntRange(0, 3).Draw(rt, "bits") {
			if len(file) > 0 {
				file[rapid.IntRange(0, len(file)-1).Draw(rt, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			}
		}
		write(t, path, file)
		sameInBatches(t, path)
	})
}

// drain reads all records of a file that has one content after the other, past what is damaged.
func drain(t *testing.T, path string, contents ...[]byte) (all [][]byte, damages int, err error) {
	write(t, path, contents[0])
	r, err := sharefile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, content := range contents {
		write(t, path, content)
		for {
			var body []byte
			body, err = r.Next()
			if errors.As(err, new(*sharefile.Damage)) {
				if damages++; damages > len(content)+1 {
					t.Fatal("the same stretch is left out again and again")
				}
				continue
			}
			if err != nil {
				break
			}
			all = append(all, bytes.Clone(body))
		}
	}
	return all, damages, err
}

func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	w := openWriter(b, dir)
	for nonce := uint64(1); nonce <= 100000; nonce++ {
		s := newShare(nonce, monday)
		s.Nonce *= 2654435761
		add(b, w, 0, int64(nonce), s)
	}
	flush(b, w)
	w.Close()
	b.ReportAllocs()
	for b.Loop() {
		r, err := sharefile.Open(sharefile.Path(dir, "BTC", 20231120))
		if err != nil {
			b.Fatal(err)
		}
		bytes := 0
		for {
			body, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			bytes += 4 + len(body)
		}
		r.Close()
		b.SetBytes(int64(bytes))
	}
}
