package durable

import (
	"os"
	"path/filepath"
	"strings"
)

// Sweep removes what a kill amid Replace left beside the file at path, as far as it can: that is of no use to anybody.
// Nobody may be replacing the file meanwhile.
func Sweep(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path)) // those that could be read
	for _, e := range entries {
		random, ok := strings.CutPrefix(e.Name(), "."+filepath.Base(path)) // as renameio names them
		if ok && random != "" && strings.Trim(random, "0123456789") == "" && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
}
