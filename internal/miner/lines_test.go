package miner_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/miner"
)

func TestReadLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64<<10-1)
	tests := map[string]struct {
		in   string
		want []string
		err  bool // the line after want is refused
	}{
		"lines":         {in: "a\nb\r\n\nc\n", want: []string{"a", "b", "", "c"}},
		"no end":        {in: "a\nb", want: []string{"a"}},
		"longest":       {in: long + "\nb\n", want: []string{long, "b"}},
		"too long":      {in: "a\nx" + long + "\n", want: []string{"a"}, err: true},
		"without limit": {in: strings.Repeat("x", 1<<20), err: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := bufio.NewReaderSize(iotest.HalfReader(strings.NewReader(test.in)), 2<<10)
			var got []string
			var err error
			for {
				var line []byte
				if line, err = miner.ReadLine(r); err != nil {
					break
				}
				got = append(got, string(line))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if errors.Is(err, io.EOF) == test.err {
				t.Errorf("error %v", err)
			}
		})
	}
}

// FuzzReadLine: lines do not depend on how the stream is cut.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte("a\r\n\nb\n"), uint16(1))
	f.Add(bytes.Repeat([]byte("x"), 5000), uint16(4096))
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		read := func(r io.Reader) (lines []string, err error) {
			buffered := bufio.NewReaderSize(r, 16)
			for {
				line, err := miner.ReadLine(buffered)
				if err != nil {
					return lines, err
				}
				lines = append(lines, string(line))
			}
		}
		at := min(int(cut), len(in))
		whole, wholeErr := read(bytes.NewReader(in))
		pieces, piecesErr := read(io.MultiReader(bytes.NewReader(in[:at]), bytes.NewReader(in[at:])))
		if diff := cmp.Diff(whole, pieces); diff != "" || !errors.Is(piecesErr, wholeErr) {
			t.Fatalf("errors %v and %v\n%s", wholeErr, piecesErr, diff)
		}
	})
}
