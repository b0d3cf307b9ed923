package btcpool_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"btcpool/internal/bitcoin"
)

// TestNetworksAreListedOnce makes another network one line of code: no other code lists the networks, and where people
// read a list, it has all of them.
func TestNetworksAreListedOnce(t *testing.T) {
	t.Parallel()
	names := bitcoin.NetworkNames()
	slices.Sort(names)
	name := regexp.MustCompile(`\b(?:` + strings.Join(names, "|") + `)\b`)
	list := regexp.MustCompile(name.String() + `(?:[\s"/#,]+(?:(?:or|and)\s)?` + name.String() + `)+`)
	listsIn := func(path string) []string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return list.FindAllString(string(text), -1)
	}

	const home = "internal/bitcoin/network.go"
	if err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || path == filepath.FromSlash(home) {
			return err
		}
		for _, found := range listsIn(path) {
			t.Errorf("%s: %q: see bitcoin.NetworkNames", path, found)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	samples, err := filepath.Glob("configs/*.toml")
	if err != nil || len(samples) < 9 {
		t.Fatalf("%d samples: %v", len(samples), err)
	}
	seen := 0
	for _, path := range append(samples, "README.md", ".env.example") {
		for _, found := range listsIn(path) {
			seen++
			if diff := cmp.Diff(names, slices.Sorted(slices.Values(name.FindAllString(found, -1)))); diff != "" {
				t.Errorf("%s: %q is not the list (-networks +text):\n%s", path, found, diff)
			}
		}
	}
	if seen == 0 {
		t.Error("the networks are listed nowhere")
	}
}
