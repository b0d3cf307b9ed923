package testkit

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// Updating reports whether the test was asked to rewrite golden files.
func Updating() bool { return *update }

// Golden compares got with the file testdata/name; -update rewrites it.
func Golden(tb testing.TB, name string, got []byte) {
	tb.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", name), got, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(Data(tb, name)), string(got)); diff != "" {
		tb.Errorf("%s (-golden +got):\n%s", name, diff)
	}
}

// Data returns what is in the file testdata/name.
func Data(tb testing.TB, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// Hex returns what the file testdata/name says in hex, on any number of lines.
func Hex(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := hex.DecodeString(strings.Join(strings.Fields(string(Data(tb, name))), ""))
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return data
}

// Seeds adds the files testdata/pattern to what a fuzz target begins with.
func Seeds(f *testing.F, pattern string) {
	f.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds %s: %v", pattern, err)
	}
	for _, path := range paths {
		f.Add(Data(f, filepath.Base(path)))
	}
}
