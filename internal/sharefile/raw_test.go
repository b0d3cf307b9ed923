package sharefile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/share"
	"btcpool/internal/sharefile"
	"btcpool/internal/testkit"
)

// oldShare is one whose job tells it from others, because the older form has no nonce.
func oldShare(job int) share.Share {
	s := newShare(0, monday+int64(job))
	s.ID, s.Height, s.JobID = share.ID{}, 570000, 1700468000<<32|0xa1070000|uint64(job)
	if job%3 == 0 {
		s.Status = share.StatusRejectNoReason
	}
	return s
}

// rawFile has the shares 1 to n.
func rawFile(size, n int) []byte {
	var file []byte
	for job := 1; job <= n; job++ {
		file = append(file, testkit.OldShare(oldShare(job), size)...)
	}
	return file
}

// sharesOf reads a file, and tells the places of damage and the end.
func sharesOf(t *testing.T, r *sharefile.Reader) (all []share.Share, flaws []string) {
	t.Helper()
	for {
		record, err := r.Next()
		damage := new(sharefile.Damage)
		switch {
		case errors.As(err, &damage):
			flaws = append(flaws, fmt.Sprintf("%d at %d", damage.Bytes, damage.At))
			continue
		case errors.Is(err, io.EOF):
			return all, flaws
		case err != nil:
			return all, append(flaws, err.Error())
		}
		var s share.Share
		if err := s.ParseBody(record); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
}

// TestRaw reads what old btcpool wrote, as it was and damaged.
func TestRaw(t *testing.T) {
	t.Parallel()
	const n = 5000 // more than are read at once
	for _, size := range []int{share.SizeV1, share.SizeV2} {
		whole := rawFile(size, n)
		without := func(jobs ...int) (all []share.Share) {
			for job := 1; job <= n; job++ {
				if !slices.Contains(jobs, job) {
					all = append(all, oldShare(job))
				}
			}
			return all
		}
		at := func(job int) int { return (job - 1) * size }
		spoil := func(job int) []byte {
			file := bytes.Clone(whole)
			file[at(job)+40] ^= 0x10 // the old form's result, the newer one's address
			return file
		}
		for name, c := range map[string]struct {
			file  []byte
			want  []share.Share
			flaws []string
		}{
			"whole":       {whole, without(), nil},
			"one share":   {whole[:size], []share.Share{oldShare(1)}, nil},
			"a bit":       {spoil(1000), without(1000), []string{fmt.Sprintf("%d at %d", size, at(1000))}},
			"the first":   {spoil(1), without(1), []string{fmt.Sprintf("%d at 0", size)}},
			"torn inside": {slices.Delete(bytes.Clone(whole), at(2000)+7, at(2001)), without(2000), []string{fmt.Sprintf("7 at %d", at(2000))}},
			"torn":        {whole[:len(whole)-1], without(n), []string{"unexpected EOF"}},
			"the last":    {spoil(n), without(n), []string{fmt.Sprintf("share file is corrupt: FILE at %d: ", at(n))}},
			"junk inside": {
				slices.Insert(bytes.Clone(whole), at(9), bytes.Repeat([]byte("<html>"), 30_000)...), without(), []string{fmt.Sprintf("180000 at %d", at(9))},
			},
		} {
			path := filepath.Join(t.TempDir(), "file")
			write(t, path, c.file)
			r, err := sharefile.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			got, flaws := sharesOf(t, r)
			for i := range flaws {
				if flaws[i] = strings.Replace(flaws[i], path, "FILE", 1); i < len(c.flaws) && strings.HasPrefix(flaws[i], c.flaws[i]) {
					flaws[i] = c.flaws[i]
				}
			}
			if diff := cmp.Diff(c.flaws, flaws); diff != "" || !slices.Equal(got, c.want) {
				t.Errorf("%d bytes, %s: %d shares, want %d (-want +got):\n%s", size, name, len(got), len(c.want), diff)
			}
			r.Close()
			sameInBatches(t, path)
		}
	}
}

// TestRawFirst spoils each bit of the first share: the others are there all the same.
func TestRawFirst(t *testing.T) {
	t.Parallel()
	for _, size := range []int{share.SizeV1, share.SizeV2} {
		path := filepath.Join(t.TempDir(), "file")
		for bit := range 8 * size {
			file := rawFile(size, 4)
			file[bit/8] ^= 1 << (bit % 8)
			write(t, path, file)
			r, err := sharefile.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			got, flaws := sharesOf(t, r)
			if n := len(got); n < 3 || !slices.Equal(got[n-3:], []share.Share{oldShare(2), oldShare(3), oldShare(4)}) {
				t.Errorf("%d bytes, bit %d: %d shares, %v", size, bit, n, flaws)
			}
			r.Close()
		}
	}
}

// TestRawGrows reads the older form while it grows, stopping at every length.
func TestRawGrows(t *testing.T) {
	t.Parallel()
	file := rawFile(share.SizeV1, 4)
	path := filepath.Join(t.TempDir(), "file")
	for cut := range file {
		write(t, path, file[:cut])
		r, err := sharefile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := sharesOf(t, r)
		write(t, path, file)
		rest, flaws := sharesOf(t, r)
		if got = append(got, rest...); len(got) != 4 || flaws != nil || got[3] != oldShare(4) || r.Position() != int64(len(file)) {
			t.Fatalf("cut at %d: %d shares, %v", cut, len(got), flaws)
		}
		r.Close()
	}
}

// TestRawFirstGrows reads a file of which there was but one share at first, which is damaged.
func TestRawFirstGrows(t *testing.T) {
	t.Parallel()
	file := rawFile(share.SizeV1, 3)
	file[40] ^= 0x10
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, file[:share.SizeV1])
	r, err := sharefile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, flaws := sharesOf(t, r); len(got) != 0 || len(flaws) != 1 {
		t.Errorf("%d shares, %v of a file that holds none that is sound", len(got), flaws)
	}
	write(t, path, file)
	if got, flaws := sharesOf(t, r); !slices.Equal(got, []share.Share{oldShare(2), oldShare(3)}) {
		t.Errorf("%d shares, %v", len(got), flaws)
	}
}

// TestRawIsNotContinued: shares of now do not go into a file that cannot have them, and it stays where it is.
func TestRawIsNotContinued(t *testing.T) {
	t.Parallel()
	for _, size := range []int{share.SizeV1, share.SizeV2} {
		dir := t.TempDir()
		path := sharefile.Path(dir, "BTC", 20231120)
		file := rawFile(size, 3)
		write(t, path, file)
		if _, err := sharefile.OpenWriter(dir, "BTC", zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "is not compressed") {
			t.Errorf("%d bytes: %v", size, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, file) {
			t.Errorf("%d bytes: the file was changed, %v", size, err)
		}
	}
}
