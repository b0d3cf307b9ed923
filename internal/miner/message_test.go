package miner_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/btcsuite/btcd/chaincfg/v2"
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

// appendNotify is the inverse of the parser.
func appendNotify(dst []byte, n *miner.Notify) []byte {
	prev := n.PrevHash
	for i := 0; i < len(prev); i += 4 {
		slices.Reverse(prev[i : i+4])
	}
	branch := []string{}
	for _, h := range n.Branch {
		branch = append(branch, fmt.Sprintf("%x", h[:]))
	}
	text, err := json.Marshal([]any{
		n.JobID, fmt.Sprintf("%x", prev[:]), fmt.Sprintf("%x", n.Coinbase1), fmt.Sprintf("%x", n.Coinbase2), branch,
		fmt.Sprintf("%08x", n.Version), fmt.Sprintf("%08x", n.Bits), fmt.Sprintf("%08x", n.Time), n.Clean,
	})
	if err != nil {
		panic(err) // strings and a boolean
	}
	return append(append(append(dst, `{"method":"mining.notify","params":`...), text...), '}')
}

// FuzzNotify: a notify that is taken says all it says, and reads the same when written again.
func FuzzNotify(f *testing.F) {
	for _, block := range []string{"genesis", "100000"} {
		b := chaincfg.MainNetParams.GenesisBlock
		if block == "100000" {
			b = block100000(f)
		}
		line, _, _ := notifyLine(f, b)
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"params":[[[[[[[`))
	f.Add([]byte(`{"method":"mining.notify","params":["\ud800","","","",[],"","","",false]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := miner.ParseNotifyLine(in)
		if err != nil {
			return
		}
		again, err := miner.ParseNotifyLine(appendNotify(nil, n))
		if diff := cmp.Diff(n, again, cmp.Comparer(bytes.Equal)); err != nil || diff != "" {
			t.Fatalf("%q is not stable: %v\n%s", in, err, diff)
		}
	})
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

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h miner.Histogram
	for ms := range int64(1000) {
		h.Add((ms + 1) * 1e6)
	}
	got := h.Percentiles()
	near := cmp.Comparer(func(a, b float64) bool { return a >= b/1.02 && a <= b*1.02 })
	want := miner.Percentiles{Count: 1000, P50: 500, P90: 900, P99: 990, Max: 1000}
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Error(diff)
	}
	var extremes miner.Histogram
	for _, ns := range []int64{-1, 0, 1, 63, 64, 127, 128, 1<<62 + 1, 1<<63 - 1} {
		extremes.Add(ns)
	}
	if got := extremes.Percentiles(); got.Count != 9 || got.P99 != got.Max {
		t.Errorf("%+v", got)
	}
	if got, want := new(miner.Histogram).Percentiles(), (miner.Percentiles{}); got != want {
		t.Errorf("empty: %+v", got)
	}
}
