package switchapi

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// TestDayLog begins a file a day, keeps as many as it is told, and none of others.
func TestDayLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	failed := 0
	d := &dayLog{dir: dir, name: "audit", keep: 2, log: zerolog.Nop(), failed: func() { failed++ }}
	for _, name := range []string{"audit-2025-12-30.jsonl", "audit-2025-12-31.jsonl", "decisions-2025-01-01.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A process was killed, or the disk full, amid a line.
	if err := os.WriteFile(filepath.Join(dir, "audit-2026-01-02.jsonl"), []byte("1\n{\"cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.write(at, 2, 3)
	d.file.Close()
	d.write(at, 4) // fails, and the next does not
	d.write(at, 5)
	d.write(at.AddDate(0, 0, 1), 6)
	if err := d.Close(); err != nil || failed != 1 {
		t.Errorf("%v, %d failed", err, failed)
	}
	got := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		got[filepath.Base(file)] = string(text)
	}
	want := map[string]string{
		"audit-2026-01-02.jsonl": "1\n{\"cut\n2\n3\n5\n", "audit-2026-01-03.jsonl": "6\n", "decisions-2025-01-01.jsonl": "{}\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
