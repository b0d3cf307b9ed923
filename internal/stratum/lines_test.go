package stratum_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/stratum"
)

// readLines returns all lines and the error that ended them.
func readLines(r io.Reader) (lines []string, err error) {
	l := stratum.NewLineReader(r)
	for {
		for line := l.Next(); line != nil; line = l.Next() {
			lines = append(lines, string(line))
		}
		if err := l.Fill(); err != nil {
			return lines, err
		}
	}
}

func TestLineReader(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", stratum.MaxLine)
	for _, test := range []struct {
		name, in string
		want     []string
		err      error
	}{
		{name: "both line ends", in: "a\nb\r\n\n\r\nc", want: []string{"a", "b", "", ""}, err: io.EOF},
		{name: "longest", in: "a\n" + longest + "\nb\n", want: []string{"a", longest, "b"}, err: io.EOF},
		{name: "too long", in: "a\n" + longest + "\r\nb\n", want: []string{"a"}, err: stratum.ErrLineTooLong},
		{name: "endless", in: "a\n" + longest + longest, want: []string{"a"}, err: stratum.ErrLineTooLong},
	} {
		for _, how := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{
			{"at once", func(r io.Reader) io.Reader { return r }},
			{"by bytes", iotest.OneByteReader},
			{"error with data", iotest.DataErrReader},
		} {
			t.Run(test.name+" "+how.name, func(t *testing.T) {
				t.Parallel()
				got, err := readLines(how.wrap(strings.NewReader(test.in)))
				if !errors.Is(err, test.err) {
					t.Errorf("error %v, want %v", err, test.err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// Any input gives the same lines however it is cut.
func FuzzLineReader(f *testing.F) {
	for _, line := range requests(f) {
		f.Add(append(line, '\n'), 10)
	}
	f.Add([]byte(strings.Repeat("x", stratum.MaxLine)+"\n\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		if cut < 0 || cut > len(in) {
			return
		}
		whole, err1 := readLines(bytes.NewReader(in))
		pieces, err2 := readLines(io.MultiReader(bytes.NewReader(in[:cut]), bytes.NewReader(in[cut:])))
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

// What is no line stands between lines.
func TestSkip(t *testing.T) {
	t.Parallel()
	const in = "a\n\x01xy\nz\x01b\n"
	for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
		l := stratum.NewLineReader(r)
		var got []string
		for l.Fill() == nil {
			for {
				if p := l.Pending(); len(p) > 0 && p[0] == 1 {
					end := bytes.IndexByte(p[1:], 1)
					if end < 0 {
						break
					}
					got = append(got, string(p[1:1+end]))
					l.Skip(end + 2)
					continue
				}
				line := l.Next()
				if line == nil {
					break
				}
				got = append(got, string(line))
			}
		}
		if diff := cmp.Diff([]string{"a", "xy\nz", "b"}, got); diff != "" {
			t.Error(diff)
		}
	}
}
