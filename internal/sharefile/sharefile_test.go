package sharefile_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/bus"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
)

const monday = 1700438400 // 2023-11-20 00:00:00 UTC

func newShare(seq uint64, time int64) share.Share {
	return share.Share{
		ID: share.ID{Server: 1, Epoch: 1700000000, Seq: seq}, JobID: 1, WorkerID: 2, UserID: 3, Status: share.StatusAccept,
		Time: time, IP: netip.MustParseAddr("192.0.2.1"), Difficulty: 10, Bits: 0x1d00ffff, Height: 1, Nonce: uint32(seq),
	}
}

// fataler is what the helpers need of a test.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// add adds a share as the service does.
func add(t fataler, w *sharefile.Writer, partition int, offset int64, s share.Share) bool {
	t.Helper()
	body := s.AppendBody(nil)
	isNew, err := w.Add(&bus.Message{Partition: partition, Offset: offset, Value: body}, &s, body)
	if err != nil {
		t.Fatal(err)
	}
	return isNew
}

// resume returns the offsets from which on shares have to be added.
func resume(w *sharefile.Writer) (map[int]int64, bool) {
	last, ok := w.Resume()
	next := make(map[int]int64)
	for p, mark := range last {
		next[p] = mark.Offset + 1
	}
	return next, ok
}

func flush(t fataler, w *sharefile.Writer) int {
	t.Helper()
	n, err := w.Flush()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func openWriter(t fataler, dir string) *sharefile.Writer {
	t.Helper()
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// nonces reads the nonces that r has now, and how it ended. Tests number their shares by nonce.
func nonces(t fataler, r *sharefile.Reader) ([]uint32, error) {
	t.Helper()
	var all []uint32
	for {
		body, err := r.Next()
		if err != nil {
			return all, err
		}
		var s share.Share
		if err := s.ParseBody(body); err != nil {
			t.Fatal(err)
		}
		all = append(all, s.Nonce)
	}
}

func readDay(t fataler, dir string, day sharefile.Day) []uint32 {
	t.Helper()
	r, err := sharefile.Open(sharefile.Path(dir, "BTC", day))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := nonces(t, r)
	if !errors.Is(err, io.EOF) {
		t.Fatalf("%d ends with %v", day, err)
	}
	return all
}

func records(shares ...share.Share) []byte {
	var b []byte
	for _, s := range shares {
		body := s.AppendBody(nil)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(body))), body...)
	}
	return b
}

// foreignMember is what other software appends.
func foreignMember(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o640); err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := sharefile.Path(dir, "BTC", sharefile.DayOf(monday+86399))
	if want := filepath.Join(dir, "sharelogBTC-2023-11-20.bin"); path != want {
		t.Errorf("path %s, want %s", path, want)
	}
	for _, name := range []string{"sharelogBTC-2023-11-21.bin", "sharelogBTC-2023-11-19.bin", "sharelogBCH-2023-11-20.bin", "sharelogBTC-2023-13-20.bin", "lock"} {
		write(t, filepath.Join(dir, name), nil)
	}
	days, err := sharefile.Days(dir, "BTC")
	if diff := cmp.Diff([]sharefile.Day{20231119, 20231121}, days); diff != "" || err != nil {
		t.Errorf("days (-want +got), %v:\n%s", err, diff)
	}
	if day, err := sharefile.ParseDay("20240229"); day != 20240229 || err != nil {
		t.Errorf("20240229 reads as %d, %v", day, err)
	}
	if day := sharefile.Day(20240229).Next(); day != 20240301 {
		t.Errorf("20240229 is followed by %d", day)
	}
	for _, text := range []string{"", "20230229", "2023-11-20", "202311200"} {
		if day, err := sharefile.ParseDay(text); err == nil {
			t.Errorf("%q reads as %d", text, day)
		}
	}
	for _, chain := range []string{"", "../BTC", "BT C", "01234567890123456"} {
		if _, err := sharefile.OpenWriter(dir, chain, zerolog.Nop()); !errors.Is(err, sharefile.ErrChain) {
			t.Errorf("chain %q: %v", chain, err)
		}
	}
}

// TestPlainGzip holds our files against the standard library, which stands for every other reader.
func TestPlainGzip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	defer w.Close()
	var want []byte
	for seq := uint64(1); seq <= 10; seq++ {
		s := newShare(seq, monday)
		want = append(want, records(s)...)
		add(t, w, 0, int64(seq), s)
		if seq%4 == 0 {
			flush(t, w)
		}
	}
	if n := flush(t, w); n != 2 {
		t.Errorf("the last flush wrote %d shares", n)
	}
	if n := flush(t, w); n != 0 {
		t.Errorf("an idle flush wrote %d shares", n)
	}
	f, err := os.Open(sharefile.Path(dir, "BTC", 20231120))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(gz)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, %d bytes, want %d", err, len(got), len(want))
	}
}

func TestOneWriterADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	if _, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop()); err == nil {
		t.Error("a second writer was let in")
	}
	w.Close()
	openWriter(t, dir).Close()
}

func TestResume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	if _, ok := resume(w); ok {
		t.Error("an empty directory knows where to resume")
	}
	add(t, w, 0, 10, newShare(1, monday))
	add(t, w, 2, 70, newShare(1, monday))
	flush(t, w)
	add(t, w, 0, 11, newShare(2, monday))
	flush(t, w)
	w.Close()

	w = openWriter(t, dir)
	defer w.Close()
	next, ok := resume(w)
	if diff := cmp.Diff(map[int]int64{0: 12, 2: 71}, next); diff != "" || !ok {
		t.Errorf("%t (-want +got):\n%s", ok, diff)
	}
	for _, step := range []struct {
		partition int
		offset    int64
		seq       uint64
		want      bool
	}{
		{0, 12, 2, false}, // delivered again
		{0, 13, 3, true},
		{2, 71, 2, true},
	} {
		if got := add(t, w, step.partition, step.offset, newShare(step.seq, monday)); got != step.want {
			t.Errorf("%+v: new %t", step, got)
		}
	}
}

func TestTopicMadeAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	foreign := newShare(0, monday)
	foreign.ID = share.ID{}
	for offset := range int64(5) {
		add(t, w, 0, 1000+offset, foreign)
		flush(t, w)
	}
	w.Close()
	w = openWriter(t, dir)
	for offset := range int64(3) {
		if !add(t, w, 0, offset, foreign) {
			t.Fatalf("offset %d is taken for an old one", offset)
		}
	}
	flush(t, w)
	w.Close()
	w = openWriter(t, dir)
	defer w.Close()
	if next, _ := resume(w); next[0] != 3 {
		t.Errorf("resumes at %v, want 3", next)
	}
	if !add(t, w, 0, 3, foreign) {
		t.Error("offset 3 is taken for an old one")
	}
	flush(t, w)
	if n := len(readDay(t, dir, 20231120)); n != 9 {
		t.Errorf("%d shares, want 9", n)
	}
}

// TestTopicLostItsEnd reads a topic again that lost records of the last flush, whose shares were sent again in part and
// in part never, and has others in their place.
func TestTopicLostItsEnd(t *testing.T) {
	t.Parallel()
	for _, again := range [][]uint64{{1, 2, 4, 5, 6, 7, 8}, {1, 2, 6, 7, 8}} {
		dir := t.TempDir()
		w := openWriter(t, dir)
		for _, part := range [][]uint64{{1, 2, 3}, {4, 5}} {
			for _, seq := range part {
				add(t, w, 0, int64(seq)-1, newShare(seq, monday))
			}
			flush(t, w)
		}
		w.Close()
		w = openWriter(t, dir)
		last, _ := w.Resume()
		lost := bus.Message{Value: newRecord(5)}
		if want := (bus.Mark{Offset: 4, Checksum: lost.Mark().Checksum}); last[0] != want {
			t.Errorf("resumes after %+v, want %+v", last[0], want)
		}
		for offset, seq := range again {
			if isNew := add(t, w, 0, int64(offset), newShare(seq, monday)); isNew != (seq > 5) {
				t.Errorf("%v: share %d is new: %t", again, seq, isNew)
			}
		}
		flush(t, w)
		w.Close()
		if diff := cmp.Diff([]uint32{1, 2, 3, 4, 5, 6, 7, 8}, readDay(t, dir, 20231120)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", again, diff)
		}
	}
}

func newRecord(seq uint64) []byte {
	s := newShare(seq, monday)
	return s.AppendBody(nil)
}

// TestTornEnd cuts the last member at every length.
func TestTornEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	path := sharefile.Path(dir, "BTC", 20231120)
	add(t, w, 0, 0, newShare(1, monday))
	flush(t, w)
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 1, newShare(2, monday))
	flush(t, w)
	w.Close()
	both, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	zeros := append(bytes.Clone(first), make([]byte, len(both)-len(first))...)
	broken := bytes.Clone(both)
	broken[len(broken)-10] ^= 1
	ends := [][]byte{zeros, broken}
	for cut := len(first) + 1; cut < len(both); cut++ {
		ends = append(ends, both[:cut])
	}
	for _, end := range ends {
		write(t, path, end)
		w := openWriter(t, dir)
		if next, ok := resume(w); !ok || next[0] != 1 {
			t.Fatalf("%d bytes: resumes at %v, %t", len(end), next, ok)
		}
		for offset := int64(1); offset < 3; offset++ {
			if !add(t, w, 0, offset, newShare(uint64(offset)+1, monday)) {
				t.Fatalf("%d bytes: offset %d is taken for an old one", len(end), offset)
			}
		}
		flush(t, w)
		w.Close()
		if diff := cmp.Diff([]uint32{1, 2, 3}, readDay(t, dir, 20231120)); diff != "" {
			t.Fatalf("%d bytes (-want +got):\n%s", len(end), diff)
		}
	}
}

// TestOtherSoftwareBefore continues a day that btcpool began, was killed in, and took over again in between.
func TestOtherSoftwareBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := sharefile.Path(dir, "BTC", 20231120)
	begun := append(foreignMember(t, records(newShare(101, monday), newShare(102, monday))), foreignMember(t, records(newShare(103, monday)))...)
	torn := foreignMember(t, records(newShare(104, monday)))
	write(t, path, append(begun, torn[:len(torn)-3]...))

	w := openWriter(t, dir)
	if _, ok := resume(w); ok {
		t.Error("resumes from a file without checkpoints")
	}
	add(t, w, 0, 0, newShare(1, monday))
	flush(t, w)
	w.Close()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, append(append(file, foreignMember(t, records(newShare(105, monday)))...), torn[:7]...))
	w = openWriter(t, dir)
	defer w.Close()
	if next, ok := resume(w); !ok || next[0] != 1 {
		t.Errorf("resumes at %v, %t", next, ok)
	}
	add(t, w, 0, 1, newShare(2, monday))
	flush(t, w)
	if diff := cmp.Diff([]uint32{101, 102, 103, 1, 105, 2}, readDay(t, dir, 20231120)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRefusesUncompressedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, sharefile.Path(dir, "BTC", 20231120), records(newShare(1, monday)))
	if _, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop()); err == nil {
		t.Error("appends to a file that is not compressed")
	}
}

// TestFlushGoesOnAfterError has a flush fail between two files.
func TestFlushGoesOnAfterError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	tuesday := sharefile.Path(dir, "BTC", 20231121)
	add(t, w, 0, 0, newShare(1, monday))
	add(t, w, 0, 1, newShare(2, monday+86400))
	if err := os.Mkdir(tuesday, 0o750); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Flush(); n != 1 || err == nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	add(t, w, 0, 2, newShare(3, monday))
	add(t, w, 0, 3, newShare(4, monday+86400))
	if n, err := w.Flush(); n != 1 || err == nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if err := os.Remove(tuesday); err != nil {
		t.Fatal(err)
	}
	w.Close() // a crash in this state
	w = openWriter(t, dir)
	if next, ok := resume(w); !ok || len(next) != 0 {
		t.Errorf("resumes at %v, %t", next, ok)
	}
	for offset := range int64(4) {
		at := int64(monday) + offset%2*86400
		if isNew := add(t, w, 0, offset, newShare(uint64(offset)+1, at)); isNew != (at != monday) {
			t.Errorf("offset %d is new: %t", offset, isNew)
		}
	}
	if err := os.Mkdir(tuesday, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Flush(); err == nil {
		t.Fatal("wrote to a directory")
	}
	add(t, w, 0, 4, newShare(5, monday+86400))
	if err := os.Remove(tuesday); err != nil {
		t.Fatal(err)
	}
	if n := flush(t, w); n != 3 {
		t.Errorf("wrote %d shares, want 3", n)
	}
	w.Close()
	got := [][]uint32{readDay(t, dir, 20231120), readDay(t, dir, 20231121)}
	if diff := cmp.Diff([][]uint32{{1, 3}, {2, 4, 5}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestManyDays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openWriter(t, dir)
	defer w.Close()
	seq := uint64(0)
	for round := range int64(2) {
		for day := range int64(12) {
			seq++
			add(t, w, 0, int64(seq), newShare(seq, monday+day*86400+round))
			if day%5 == 0 {
				flush(t, w)
			}
		}
	}
	flush(t, w)
	days, err := sharefile.Days(dir, "BTC")
	if err != nil || len(days) != 12 {
		t.Fatalf("days %v, %v", days, err)
	}
	for i, day := range days {
		if diff := cmp.Diff([]uint32{uint32(i) + 1, uint32(i) + 13}, readDay(t, dir, day)); diff != "" {
			t.Errorf("%d (-want +got):\n%s", day, diff)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, perFlush := range []int{1000, 100000} {
		b.Run(fmt.Sprintf("flush=%d", perFlush), func(b *testing.B) {
			w := openWriter(b, b.TempDir())
			defer w.Close()
			s := newShare(0, monday)
			var body []byte
			b.ReportAllocs()
			for b.Loop() {
				s.ID.Seq++
				s.Nonce = uint32(s.ID.Seq) * 2654435761
				body = s.AppendBody(body[:0])
				if _, err := w.Add(&bus.Message{Offset: int64(s.ID.Seq), Value: body}, &s, body); err != nil {
					b.Fatal(err)
				}
				if s.ID.Seq%uint64(perFlush) == 0 {
					flush(b, w)
				}
			}
			b.SetBytes(int64(len(body)) + 4)
		})
	}
}
