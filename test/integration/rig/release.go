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

// Previous builds the programs of a release that CHANGELOG.md names, of the newest if version is "". A tree without a
// git repository, as a tarball has it, has no release before: then these are the programs of this tree, and the log
// says so. In a repository that lacks the commit the test fails.
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
	if _, err := os.Lstat(filepath.Join(root, ".git")); errors.Is(err, os.ErrNotExist) {
		t.Logf("NO GIT REPOSITORY HERE: release %s cannot be built, programs of this tree stand for it", r.Version)
		return Current(t)
	}
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := git("cat-file", "-e", commit+"^{commit}"); err != nil {
		t.Fatalf("release %s is commit %s, which this clone does not have: git fetch --unshallow\n%s", r.Version, commit, out)
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
