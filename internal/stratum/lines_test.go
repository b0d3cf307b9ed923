package stratum_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/stratum"
)

// cutLines returns the lines of in, what is left behind them, and the error that ended them.
func cutLines(in []byte) (lines []string, rest []byte, err error) {
	for {
		line, n, err := stratum.CutLine(in)
		if n == 0 || err != nil {
			return lines, in, err
		}
		lines = append(lines, string(line))
		in = in[n:]
	}
}

func TestCutLine(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", stratum.MaxLine)
	for _, test := range []struct {
		name, in string
		want     []string
		rest     string
		err      error
	}{
		{name: "nothing"},
		{name: "both line ends", in: "a\nb\r\n\n\r\nc", want: []string{"a", "b", "", ""}, rest: "c"},
		{name: "longest", in: "a\n" + longest + "\nb\n", want: []string{"a", longest, "b"}},
		{name: "too long", in: "a\n" + longest + "\r\nb\n", want: []string{"a"}, rest: longest + "\r\nb\n", err: stratum.ErrLineTooLong},
		{name: "endless", in: "a\n" + longest + "x", want: []string{"a"}, rest: longest + "x", err: stratum.ErrLineTooLong},
		{name: "not yet too long", in: longest, rest: longest},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, rest, err := cutLines([]byte(test.in))
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if string(rest) != test.rest {
				t.Errorf("%d bytes left, want %d", len(rest), len(test.rest))
			}
		})
	}
}

// Any input gives the same lines however it is cut.
func FuzzCutLine(f *testing.F) {
	for _, line := range requests(f) {
		f.Add(append(line, '\n'), 10)
	}
	f.Add([]byte(strings.Repeat("x", stratum.MaxLine)+"\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		if cut < 0 || cut > len(in) {
			return
		}
		whole, _, err1 := cutLines(in)
		pieces, rest, err2 := cutLines(in[:cut])
		if err2 == nil {
			var more []string
			more, _, err2 = cutLines(append(append([]byte(nil), rest...), in[cut:]...))
			pieces = append(pieces, more...)
		}
		if diff := cmp.Diff(whole, pieces); diff != "" || !errors.Is(err2, err1) {
			t.Fatalf("errors %v and %v\n%s", err1, err2, diff)
		}
		for _, line := range whole {
			if len(line) > stratum.MaxLine {
				t.Fatalf("line of %d bytes", len(line))
			}
		}
	})
}
