package sealed_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/sealed"
	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

// add writes records to the log, at offsets from first on. Those that are no shares, or older than Bitcoin, go to the day, too.
func add(t *testing.T, dir string, first int64, records ...[]byte) {
	t.Helper()
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	for i, record := range records {
		var s share.Share
		if s.ParseBody(record) != nil {
			s = share.Share{Time: midnight}
		}
		if sharefile.DayOf(s.Time) <= 20090103 {
			s.Time = midnight
		}
		s.ID = share.ID{} // or those in another order than they were made in would be repetitions
		if _, err := w.Add(&bus.Message{Offset: first + int64(i)}, &s, record); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 {
			if _, err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func some(f *farm, n int) (records [][]byte) {
	for range n {
		records = append(records, f.share(int64(f.IntN(86400))).AppendBody(nil))
	}
	return records
}

// strange are records that no sserver of ours writes.
func strange() [][]byte {
	s := newFarm(9, 1).share(5)
	plain := s.AppendBody(nil)
	unknown := append(bytes.Clone(plain), 0xf8, 0x07, 1) // field 127
	v6, none, farmed, negative := *s, *s, *s, *s
	v6.IP = netip.MustParseAddr("2001:db8::1")
	none.IP = netip.Addr{}
	farmed.ExtUserID, farmed.ID = 77, share.ID{}
	negative.WorkerID, negative.UserID, negative.Status, negative.Difficulty = -5, -1, -3, bitcoin.MinDifficulty
	var all [][]byte
	for _, s := range []*share.Share{&v6, &none, &farmed, &negative} {
		all = append(all, s.AppendBody(nil))
	}
	return append(all, plain, plain, unknown, []byte{}, []byte("no share"), bytes.Repeat([]byte{0xff}, 5000))
}

// records reads all of r, by worker.
func records(t *testing.T, r interface{ Next() ([]byte, error) }) map[[2]int64][]string {
	t.Helper()
	all, err := readAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readAll(r interface{ Next() ([]byte, error) }) (map[[2]int64][]string, error) {
	all := make(map[[2]int64][]string)
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var s share.Share
		if s.ParseBody(record) != nil {
			s = share.Share{}
		}
		k := [2]int64{int64(s.UserID), s.WorkerID}
		all[k] = append(all[k], string(record))
	}
}

func tryAll(path string) (all map[[2]int64][]string, err error) {
	r, err := sealed.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return readAll(r)
}

func live(t *testing.T, dir string) map[[2]int64][]string {
	t.Helper()
	r, err := sharefile.Open(sharefile.Path(dir, "BTC", day))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return records(t, r)
}

func kept(t *testing.T, dir string) map[[2]int64][]string {
	t.Helper()
	r, err := sealed.Open(sealed.Path(dir, "BTC", day))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return records(t, r)
}

// whole reads the day, wherever it is.
func whole(t *testing.T, dir string) map[[2]int64][]string {
	t.Helper()
	all, err := tryWhole(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func tryWhole(t *testing.T, dir string) (map[[2]int64][]string, error) {
	t.Helper()
	d, err := sealed.OpenDay(dir, "BTC", day)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var l list
	for {
		batch, err := d.NextBatch()
		if errors.Is(err, io.EOF) {
			return records(t, &l), nil
		}
		if err != nil {
			return nil, err
		}
		for len(batch) > 0 {
			var record []byte
			record, batch = sharefile.CutRecord(batch)
			l.records = append(l.records, bytes.Clone(record))
		}
	}
}

func verify(t *testing.T, dir string, withSource bool) *sealed.Footer {
	t.Helper()
	v, err := sealed.Verify(t.Context(), dir, "BTC", day)
	if err != nil || v.Source != withSource {
		t.Fatalf("source compared: %t, %v", v.Source, err)
	}
	return v.Footer
}

func seal(t *testing.T, dir string) {
	t.Helper()
	if _, err := sealed.SealInRuns(t.Context(), dir, "BTC", day); err != nil {
		t.Fatal(err)
	}
}

// TestSeal wants a sealed day to have each record as it was, those of a worker in their order, and the footer to say
// what they add up to.
func TestSeal(t *testing.T) {
	t.Parallel()
	dir, f := t.TempDir(), newFarm(1, 40)
	all := append(some(f, 3000), strange()...)
	f.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	add(t, dir, 1000, all...)
	seal(t, dir)
	if diff := cmp.Diff(live(t, dir), kept(t, dir)); diff != "" {
		t.Errorf("(-live +sealed):\n%s", diff)
	}
	footer := verify(t, dir, true)
	if want := []sharefile.Range{{From: 0, To: 1000 + int64(len(all))}}; !cmp.Equal(want, footer.Offsets) {
		t.Errorf("offsets %v, want %v", footer.Offsets, want)
	}
	sums := make(map[share.Status]bitcoin.Work)
	for _, record := range all {
		var s share.Share
		if s.ParseBody(record) == nil {
			sums[s.Status] = sums[s.Status].Add(s.Difficulty.Hashes())
		}
	}
	got := make(map[share.Status]bitcoin.Work)
	for _, sum := range footer.ByStatus {
		work, err := bitcoin.ParseWork(sum.Hashes)
		if err != nil {
			t.Fatal(err)
		}
		got[sum.Status] = work
	}
	if !maps.Equal(got, sums) || footer.Records != int64(len(all)) || footer.Malformed != 3 {
		t.Errorf("footer %+v, want %v", footer, sums)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "sealing")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLate wants what came to a day after it was sealed to be noticed, and added.
func TestLate(t *testing.T) {
	t.Parallel()
	for name, removed := range map[string]bool{"file grew": false, "file was removed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, f := t.TempDir(), newFarm(2, 10)
			all := some(f, 900)
			add(t, dir, 0, all[:500]...)
			seal(t, dir)
			if removed {
				// A file of the next day says how far the topic was read.
				next := f.share(86400 + 5).AppendBody(nil)
				add(t, dir, 500, next)
				if err := os.Remove(sharefile.Path(dir, "BTC", day)); err != nil {
					t.Fatal(err)
				}
				verify(t, dir, false)
				if diff := cmp.Diff(records(t, &list{all[:500]}), whole(t, dir)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			for from := 500; from < 900; from += 200 {
				add(t, dir, int64(from+1), all[from:from+200]...)
				if _, err := sealed.Verify(t.Context(), dir, "BTC", day); !errors.Is(err, sealed.ErrDiffers) {
					t.Errorf("late shares: %v, want ErrDiffers", err)
				}
				want := records(t, &list{all[:from+200]})
				if diff := cmp.Diff(want, whole(t, dir)); diff != "" {
					t.Errorf("not sealed yet (-want +got):\n%s", diff)
				}
				seal(t, dir)
				if diff := cmp.Diff(want, whole(t, dir)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if footer := verify(t, dir, true); footer.Records != int64(from+200) {
					t.Errorf("%d records, want %d", footer.Records, from+200)
				}
			}
			want := records(t, &list{all})
			if diff := cmp.Diff(want, kept(t, dir)); diff != "" {
				t.Errorf("(-want +sealed):\n%s", diff)
			}
		})
	}
}

type list struct{ records [][]byte }

func (l *list) Next() ([]byte, error) {
	if len(l.records) == 0 {
		return nil, io.EOF
	}
	record := l.records[0]
	l.records = l.records[1:]
	return record, nil
}

// TestOtherSoftware seals a day that btcpool has written, compressed or not.
func TestOtherSoftware(t *testing.T) {
	t.Parallel()
	var plain []byte
	for _, record := range some(newFarm(3, 10), 500) {
		plain = append(binary.LittleEndian.AppendUint32(plain, uint32(len(record))), record...)
	}
	var packed bytes.Buffer
	for i := 0; i < len(plain); i += 20_000 {
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(plain[i:min(i+20_000, len(plain))])
		_ = w.Close()
	}
	for name, content := range map[string][]byte{"plain": plain, "gzip": packed.Bytes()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(sharefile.Path(dir, "BTC", day), content, 0o600); err != nil {
				t.Fatal(err)
			}
			seal(t, dir)
			if footer := verify(t, dir, true); len(footer.Offsets) != 0 {
				t.Errorf("offsets %v of a file that has none", footer.Offsets)
			}
			if diff := cmp.Diff(live(t, dir), kept(t, dir)); diff != "" {
				t.Errorf("(-live +sealed):\n%s", diff)
			}
		})
	}
}

// TestRoom wants a day not to be sealed when that may fill the disk, which today's file is written to: twice what is read
// may be needed besides what is to be left, the sealed file only if late shares are added to what it has.
func TestRoom(t *testing.T) {
	t.Parallel()
	dir, all := t.TempDir(), some(newFarm(4, 10), 600)
	source, sealedFile := sharefile.Path(dir, "BTC", day), sealed.Path(dir, "BTC", day)
	add(t, dir, 0, all[:300]...)
	const spare = 1 << 60
	refused := func(files ...string) {
		t.Helper()
		need := int64(spare)
		for _, file := range files {
			need += 2 * size(t, file)
		}
		_, err := sealed.SealSparing(t.Context(), dir, "BTC", day, spare)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("and %d may be needed", need)) {
			t.Errorf("got %v, want %d to be needed", err, need)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "sealing")); err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	accepted := func() {
		t.Helper()
		if _, err := sealed.SealSparing(t.Context(), dir, "BTC", day, 0); err != nil {
			t.Error(err)
		}
	}
	refused(source)
	accepted()
	add(t, dir, 300, all[300:400]...)
	refused(source)
	accepted()
	add(t, dir, 400, newFarm(6, 10).share(86400+5).AppendBody(nil))
	if err := os.Remove(source); err != nil {
		t.Fatal(err)
	}
	add(t, dir, 401, all[400:]...)
	refused(source, sealedFile)
	accepted()
}

// TestMode wants a sealed day to be for who may read the day's file.
func TestMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o600, 0o664} {
		dir := t.TempDir()
		add(t, dir, 0, some(newFarm(4, 10), 300)...)
		if err := os.Chmod(sharefile.Path(dir, "BTC", day), mode); err != nil {
			t.Fatal(err)
		}
		seal(t, dir)
		if info, err := os.Stat(sealed.Path(dir, "BTC", day)); err != nil || info.Mode() != mode {
			t.Errorf("%v, %v, want %v", info.Mode(), err, mode)
		}
	}
}

// TestUnsound wants a day whose file is not whole not to be sealed.
func TestUnsound(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(file []byte) []byte{
		"torn end":            func(file []byte) []byte { return file[:len(file)-3] },
		"damage at the start": func(file []byte) []byte { file[0] ^= 1; return file },
		"damage":              func(file []byte) []byte { file[len(file)/2] ^= 1; return file },
		"empty":               func([]byte) []byte { return nil },
		"foreign":             func([]byte) []byte { return []byte("this is no share log, whatever its name says") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			add(t, dir, 0, some(newFarm(4, 10), 1000)...)
			path := sharefile.Path(dir, "BTC", day)
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, harm(file), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := sealed.Seal(t.Context(), dir, "BTC", day); !errors.Is(err, sealed.ErrUnsound) {
				t.Errorf("got %v, want ErrUnsound", err)
			}
			if _, err := os.Stat(sealed.Path(dir, "BTC", day)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("sealed file: %v", err)
			}
		})
	}
}

// TestFewer wants a sealed day to stay when the day's file lost shares.
func TestFewer(t *testing.T) {
	t.Parallel()
	dir, all := t.TempDir(), some(newFarm(5, 10), 300)
	add(t, dir, 0, all...)
	seal(t, dir)
	want := kept(t, dir)
	if err := os.Remove(sharefile.Path(dir, "BTC", day)); err != nil {
		t.Fatal(err)
	}
	add(t, dir, 0, all[:200]...)
	if _, err := sealed.Seal(t.Context(), dir, "BTC", day); !errors.Is(err, sealed.ErrFewer) {
		t.Errorf("got %v, want ErrFewer", err)
	}
	if _, err := tryWhole(t, dir); !errors.Is(err, sealed.ErrFewer) {
		t.Errorf("reading gives %v, want ErrFewer", err)
	}
	if diff := cmp.Diff(want, kept(t, dir)); diff != "" {
		t.Errorf("(-had +has):\n%s", diff)
	}
}

// TestRemovedSource wants what is left of a removed file not to be lost to a file that has more records, but not those.
func TestRemovedSource(t *testing.T) {
	t.Parallel()
	dir, all, f := t.TempDir(), some(newFarm(5, 10), 600), newFarm(6, 10)
	path := sharefile.Path(dir, "BTC", day)
	add(t, dir, 0, all[:50]...)
	seal(t, dir)
	add(t, dir, 50, f.share(86400+5).AppendBody(nil))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	add(t, dir, 51, all[50:450]...)
	seal(t, dir)
	want := kept(t, dir)
	if err := errors.Join(os.Remove(path), os.Remove(sharefile.Path(dir, "BTC", day.Next()))); err != nil {
		t.Fatal(err)
	}
	add(t, dir, 51, all[50:]...) // in one file with other members
	if _, err := sealed.Seal(t.Context(), dir, "BTC", day); !errors.Is(err, sealed.ErrFewer) {
		t.Errorf("sealing gives %v, want ErrFewer", err)
	}
	if _, err := tryWhole(t, dir); !errors.Is(err, sealed.ErrFewer) {
		t.Errorf("reading gives %v, want ErrFewer", err)
	}
	if diff := cmp.Diff(want, kept(t, dir)); diff != "" {
		t.Errorf("(-had +has):\n%s", diff)
	}
}

// TestHeal wants a damaged sealed day to be sealed again of its source.
func TestHeal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	add(t, dir, 0, some(newFarm(5, 10), 300)...)
	seal(t, dir)
	path := sealed.Path(dir, "BTC", day)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file[100] ^= 1
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sealed.Verify(t.Context(), dir, "BTC", day); !errors.Is(err, sealed.ErrCorrupt) {
		t.Fatalf("got %v, want ErrCorrupt", err)
	}
	add(t, dir, 300, some(newFarm(6, 10), 5)...) // late
	seal(t, dir)
	verify(t, dir, true)
}

// TestUnknownOffsets wants shares of which nothing proves that they came later not to be added to the sealed ones: the
// same day may have been taken from the topic again.
func TestUnknownOffsets(t *testing.T) {
	t.Parallel()
	all := some(newFarm(3, 10), 500)
	late := newFarm(4, 10)
	var plain []byte
	for _, record := range all {
		plain = append(binary.LittleEndian.AppendUint32(plain, uint32(len(record))), record...)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(plain)
	_ = w.Close()
	for name, write := range map[string]func(dir, path string) error{
		"other software": func(_, path string) error { return os.WriteFile(path, plain, 0o600) },
		"mixed": func(dir, path string) error {
			if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
				return err
			}
			add(t, dir, 500, late.share(7).AppendBody(nil))
			add(t, dir, 501, late.share(86400+5).AppendBody(nil))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := sharefile.Path(dir, "BTC", day)
			if err := write(dir, path); err != nil {
				t.Fatal(err)
			}
			seal(t, dir)
			if footer := verify(t, dir, true); len(footer.Offsets) != 0 {
				t.Errorf("offsets %v, some of which are not known", footer.Offsets)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			add(t, dir, 502, all...)
			has, err := tryWhole(t, dir)
			if n := count(has); n > 501 || err != nil && !errors.Is(err, sealed.ErrFewer) {
				t.Errorf("%d records are read, %v", n, err)
			}
			_, err = sealed.Seal(t.Context(), dir, "BTC", day)
			if err != nil && !errors.Is(err, sealed.ErrFewer) {
				t.Fatal(err)
			}
			if n := count(kept(t, dir)); n > 501 {
				t.Errorf("%d records are sealed", n)
			}
		})
	}
}

func count(records map[[2]int64][]string) (n int) {
	for _, of := range records {
		n += len(of)
	}
	return n
}

// TestGap wants a day not to be sealed whose file says that shares are gone.
func TestGap(t *testing.T) {
	t.Parallel()
	dir, all := t.TempDir(), some(newFarm(6, 10), 300)
	w, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	path := sharefile.Path(dir, "BTC", day)
	for i, record := range all {
		var s share.Share
		if err := s.ParseBody(record); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Add(&bus.Message{Offset: int64(i)}, &s, record); err != nil {
			t.Fatal(err)
		}
		if i == 150 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if i%100 == 99 {
			if _, err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := sealed.Seal(t.Context(), dir, "BTC", day); !errors.Is(err, sealed.ErrUnsound) {
		t.Errorf("got %v, want ErrUnsound", err)
	}
}

// TestDamaged flips bits of a sealed file, all bytes of its metadata: it is refused, or still gives the same records to
// who reads it to the end.
func TestDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	add(t, dir, 0, append(some(newFarm(7, 10), 300), strange()...)...)
	seal(t, dir)
	path := sealed.Path(dir, "BTC", day)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := kept(t, dir)
	refused, tried, step := 0, 0, 41*testkit.Thin
	for i := 0; i < len(whole); i += step {
		if i >= len(whole)-4<<10 {
			step = testkit.Thin
		}
		tried++
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << (i % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		has, err := tryAll(path)
		if err != nil {
			if !errors.Is(err, sealed.ErrCorrupt) {
				t.Errorf("byte %d: %v, want ErrCorrupt", i, err)
			}
			refused++
			continue
		}
		if !maps.EqualFunc(want, has, slices.Equal) {
			t.Errorf("byte %d: other records, and no error", i)
		}
	}
	if refused < tried/8 {
		t.Errorf("of %d damaged files %d were refused", tried, refused)
	}
	for _, n := range []int{0, 3, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := sealed.Open(path); !errors.Is(err, sealed.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v, want ErrCorrupt", n, err)
		}
	}
}

// TestKilled kills who seals at many moments: the sealed day is not there or whole, and sealing it then succeeds.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("SEAL_DIR"); dir != "" {
		seal(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir()
	add(t, dir, 0, some(newFarm(8, 20), 4000)...)
	want := live(t, dir)
	for wait := time.Millisecond; ; wait += wait / 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "SEAL_DIR="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
		ended := cmd.Wait()
		timer.Stop()
		_, err := os.Stat(sealed.Path(dir, "BTC", day))
		switch {
		case err == nil:
			verify(t, dir, true)
		case !errors.Is(err, fs.ErrNotExist) || ended == nil:
			t.Fatalf("sealed file: %v", err)
		}
		if ended == nil {
			break
		}
	}
	if diff := cmp.Diff(want, kept(t, dir)); diff != "" {
		t.Errorf("(-live +sealed):\n%s", diff)
	}
}

func FuzzParseFooter(f *testing.F) {
	f.Add(`{"format":1,"chain":"BTC","day":20240131,"offsets":[{"generation":0,"partition":0,"from":1,"to":9}],` +
		`"sources":[{"bytes":9,"sha256":"aa","records":1,"digest":"0000000000000001"}],"records":1,"malformed":0,` +
		`"digest":"0000000000000001","by_status":[{"status":21,"shares":1,"hashes":"4294967296"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		footer, err := sealed.ParseFooter(text)
		if err != nil {
			return
		}
		again, err := footer.Encode()
		if err != nil {
			t.Fatal(err)
		}
		same, err := sealed.ParseFooter(again)
		if err != nil || !cmp.Equal(footer, same) {
			t.Fatalf("%s is not stable: %v", again, err)
		}
	})
}

// FuzzOpen wants a file to be refused or read, whatever is in it, and the same in streaks as record by record.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	writeDay(f, dir, newFarm(1, 3), 20, 10)
	if _, err := sealed.Seal(f.Context(), dir, "BTC", day); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(sealed.Path(dir, "BTC", day))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "sealed")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := byRecord(path)
		got, _, errStreaks := byStreak(t.Context(), path)
		if err == nil && (errStreaks != nil || !slices.Equal(want, got)) {
			t.Fatalf("%d records, in streaks %d: %v", len(want), len(got), errStreaks)
		}
	})
}
