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

func TestLines(t *testing.T) {
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
			got, err := readLines(iotest.HalfReader(strings.NewReader(test.in)))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if errors.Is(err, bufio.ErrTooLong) != test.err {
				t.Errorf("error %v", err)
			}
		})
	}
}

func readLines(r io.Reader) (all []string, err error) {
	lines := miner.NewLines(r)
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	return all, lines.Err()
}

// FuzzLines: lines do not depend on how the stream is cut.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n\nb\n"), uint16(1))
	f.Add(bytes.Repeat([]byte("x"), 5000), uint16(4096))
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		at := min(int(cut), len(in))
		whole, wholeErr := readLines(bytes.NewReader(in))
		pieces, piecesErr := readLines(io.MultiReader(bytes.NewReader(in[:at]), bytes.NewReader(in[at:])))
		if diff := cmp.Diff(whole, pieces); diff != "" || !errors.Is(piecesErr, wholeErr) {
			t.Fatalf("errors %v and %v\n%s", wholeErr, piecesErr, diff)
		}
	})
}
