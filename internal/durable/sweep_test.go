//go:build !windows

package durable_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"btcpool/internal/durable"
)

// killedConfig is, in the environment, the file that a process replaces until it is killed.
const killedConfig = "DURABLE_KILLED"

func TestMain(m *testing.M) {
	path := os.Getenv(killedConfig)
	if path == "" {
		os.Exit(m.Run())
	}
	fmt.Println("begun")
	for content := make([]byte, 64<<10); ; {
		if err := durable.Replace(path, content, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// TestSweep kills a process amid Replace until it leaves something, which Sweep removes, and nothing else.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	names := func() (all []string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	for len(names()) < 2 { // the file and what was left
		killed := exec.CommandContext(t.Context(), os.Args[0])
		killed.Env, killed.Stderr = append(os.Environ(), killedConfig+"="+path), os.Stderr
		out, err := killed.StdoutPipe()
		if err == nil {
			err = killed.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		for len(names()) == 0 { // the first content has no file to replace
			runtime.Gosched()
		}
		_ = killed.Process.Kill()
		_ = killed.Wait() // was killed
	}
	want := []string{".file", ".file.1", ".file1x", ".other1", "file", "file1"}
	for _, name := range want {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	durable.Sweep(path)
	durable.Sweep(filepath.Join(dir, "missing", "file"))
	if got := names(); !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
}
