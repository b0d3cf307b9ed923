//go:build integration

package rig

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// Release is a set of the project's programs.
type Release struct {
	Version string
	Source  string // folder of the tree that they were built of

	bin string
}

// Program returns the path of one of its programs.
func (r *Release) Program(name string) string { return filepath.Join(r.bin, name) }

// Current are the programs of this tree.
func Current(t testing.TB) *Release {
	t.Helper()
	return &Release{Version: "this tree", Source: Root(t), bin: filepath.Dir(Bin(t, "sserver"))}
}

// releaseHeading of CHANGELOG.md names a release and its commit.
var releaseHeading = regexp.MustCompile(`(?m)^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d \(commit ([0-9a-f]{12,40})\)$`)

// Previous builds the programs of a release that CHANGELOG.md names, of the newest if version is "". Where its commit
// cannot be had, as in a tarball's tree or a clone without history, these are the programs of this tree, and the log
// says so, as does the summary of test/all.sh.
func Previous(t testing.TB, version string) *Release {
	t.Helper()
	root := Root(t)
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	var r *Release
	var commit string
	for _, m := range releaseHeading.FindAllSubmatch(text, -1) {
		if r == nil && (version == "" || version == string(m[1])) {
			r, commit = &Release{Version: string(m[1])}, string(m[2])
		}
	}
	if r == nil {
		t.Fatalf("CHANGELOG.md names no release %s with its commit", version)
	}
	if out, err := exec.Command("git", "-C", root, "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		t.Logf("RELEASE %s CANNOT BE BUILT, programs of this tree stand for it: its commit %s is not here, which git fetch --unshallow may bring: %s",
			r.Version, commit, out)
		return Current(t)
	}

	r.Source, r.bin = t.TempDir(), filepath.Join(root, ".cache", "releases", commit)
	archive := exec.Command("git", "-C", root, "archive", commit)
	unpack := exec.Command("tar", "-x", "-C", r.Source)
	var said bytes.Buffer
	archive.Stderr, unpack.Stderr = &said, &said
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(archive.Start(), unpack.Run(), archive.Wait()); err != nil {
		t.Fatalf("source of release %s: %v\n%s", r.Version, err, said.Bytes())
	}
	if err := os.MkdirAll(r.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(r.bin, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", r.bin+string(filepath.Separator), "./cmd/...")
	build.Dir = r.Source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build release %s: %v\n%s", r.Version, err, out)
	}
	return r
}
