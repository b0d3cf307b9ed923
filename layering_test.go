package btcpool_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestLayering keeps the house in order: cmd imports services, services import internal, internal imports nobody above
// it, and no service imports another.
func TestLayering(t *testing.T) {
	t.Parallel()
	const module = "btcpool/"
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	layer := func(path string) string { return strings.SplitN(strings.TrimPrefix(path, module), "/", 2)[0] }
	seen := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		from := layer(words[0])
		if from == "cmd" || from == "btcpool" {
			continue
		}
		seen++
		for _, imported := range slices.DeleteFunc(words[1:], func(p string) bool { return !strings.HasPrefix(p, module) }) {
			if to := layer(imported); to != "internal" && to != from {
				t.Errorf("%s imports %s", words[0], imported)
			}
		}
	}
	if seen < 7 {
		t.Errorf("looked at %d packages only", seen)
	}
}
