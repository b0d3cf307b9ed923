package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestVersion makes releases of a tree and looks at how deploy/version.sh calls it.
func TestVersion(t *testing.T) {
	t.Parallel()
	tree := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = tree
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_COMMITTER_DATE=2026-01-31T23:59:59Z")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	changelog := func(sections ...string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(tree, "CHANGELOG.md"), []byte("# Changelog\n\n"+strings.Join(sections, "\n\n- [CHANGE] it\n\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	says := func(what, want string) {
		t.Helper()
		got := run("deploy/version.sh")
		if matched, err := regexp.MatchString("^"+want+"$", got); err != nil || !matched {
			t.Errorf("%s is called %s, want %s", what, got, want)
		}
	}
	script, err := os.ReadFile(filepath.Join(root, "deploy", "version.sh"))
	if err == nil {
		err = os.Mkdir(filepath.Join(tree, "deploy"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, "deploy", "version.sh"), script, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	const released, before, unreleased = "## 0.10.0 - 2026-01-31", "## 0.9.0 - 2026-01-01 (commit 0123456789ab)", "## Unreleased"
	changelog(unreleased)
	says("a tree without a release", `0\.1\.0-next`)
	changelog(unreleased, before)
	says("a tree without git", `0\.10\.0-next`)
	changelog(released, before)
	says("a release without git", `0\.10\.0`)
	run("git", "init", "-q")
	commit := func() {
		t.Helper()
		run("git", "add", "-A")
		run("git", "-c", "user.name=any", "-c", "user.email=any", "commit", "-qm", "any")
	}
	commit()
	says("a release", `0\.10\.0\+[0-9a-f]{12}`)
	changelog(unreleased, released, before)
	says("a tree with changes", `0\.11\.0-next\.20260131235959\+[0-9a-f]{12}\.modified`)
	commit()
	says("what follows a release", `0\.11\.0-next\.20260131235959\+[0-9a-f]{12}`)
}

// TestStamp builds programs as `make build` does: they say the version of the tree. Whatever else builds programs
// stamps them in the same way.
func TestStamp(t *testing.T) {
	t.Parallel()
	script := exec.Command("deploy/version.sh")
	script.Dir = root
	version, err := script.Output()
	if err != nil {
		t.Fatal(err)
	}
	bin, stamped := t.TempDir(), []string{"sserver", "minersim", "btcpoolctl"}
	build := exec.Command("make", "--no-print-directory", "build", "BIN="+bin, "PROGRAMS="+strings.Join(stamped, " "))
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	for _, program := range stamped {
		out, err := exec.Command(filepath.Join(bin, program), "--version").CombinedOutput()
		if want := strings.TrimSpace(string(version)); err != nil || !strings.Contains(string(out)+" ", " "+want) {
			t.Errorf("%s: %q, %v, want %s", program, out, err, want)
		}
	}
	for _, file := range []string{"Makefile", "deploy/release.sh", "deploy/Dockerfile"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "deploy/version.sh)") {
			t.Errorf("%s does not ask deploy/version.sh", file)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "go build") && !strings.Contains(line, "$(STAMP)") && !strings.Contains(line, "-X btcpool/internal/service.version=$") {
				t.Errorf("%s builds programs without their version: %s", file, line)
			}
		}
	}
}

// TestReleases holds CHANGELOG.md to its form: test/upgrade and deploy/version.sh read it.
func TestReleases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?m)^## (.*)\n\n(?:An operator must: .|(?:[^-#\n].*\n)+\nAn operator must: .)`)
	heading := regexp.MustCompile(`^\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d( \(commit [0-9a-f]{12}\))?$`)
	sections := section.FindAllSubmatch(text, -1)
	if all := strings.Count(string(text), "\n## "); len(sections) != all {
		t.Errorf("%d of %d sections begin with what an operator must do", len(sections), all)
	}
	for i, s := range sections {
		name := string(s[1])
		if name == "Unreleased" && i == 0 {
			continue
		}
		if m := heading.FindStringSubmatch(name); m == nil || m[1] == "" && i > 0 {
			t.Errorf("section %q is not called as a release: version, date and, but for one that is being made, its commit", name)
		}
	}
}
