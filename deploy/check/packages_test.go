//go:build integration

package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// release runs deploy/release.sh in a tree, for one processor and without the boxes of farms.
func release(t *testing.T, tree, dist, version string, env ...string) {
	t.Helper()
	cmd := exec.Command("deploy/release.sh")
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "DIST="+dist, "ARCHS=amd64", "AGENTS=", "VERSION="+version, "SOURCE_DATE_EPOCH=1700000000")
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("release.sh: %v\n%s", err, out)
	}
}

// TestRelease makes a release twice, the second time of a copy in another folder, and lets dpkg take its packages.
func TestRelease(t *testing.T) {
	if inside(t, func() []string {
		first, later := releases(t)
		return []string{"RELEASE=" + first, "RELEASE_LATER=" + later}
	}) {
		checkInstallation(t, os.Getenv("RELEASE"), os.Getenv("RELEASE_LATER"))
	}
}

// releases makes the first release twice, and a later one.
func releases(t *testing.T) (first, later string) {
	t.Helper()
	first, later = t.TempDir(), t.TempDir()
	second, tree := t.TempDir(), t.TempDir()
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", `cd "$0" && git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | tar -x --touch -C "$1"`, here, tree).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
	release(t, here, first, "1.2.3")
	release(t, tree, second, "1.2.3")
	release(t, here, later, "1.2.4", "FORMATS=deb")

	sums, err := os.ReadFile(filepath.Join(first, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		names = append(names, name)
		for _, dist := range []string{first, second} {
			text, err := os.ReadFile(filepath.Join(dist, name))
			if err != nil {
				t.Error(err)
			}
			if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
				t.Errorf("%s is not the same in %s", name, dist)
			}
		}
	}
	want := []string{
		"btcpool-1.2.3-1.x86_64.rpm", "btcpool-1.2.3-linux-amd64.tar.gz", "btcpool-1.2.3.sbom.json", "btcpool-agentproxy-1.2.3-1.x86_64.rpm",
		"btcpool-agentproxy_1.2.3_amd64.deb", "btcpool_1.2.3_amd64.deb",
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("a release has %q, want %q", names, want)
	}
	checkBill(t, filepath.Join(first, "btcpool-1.2.3.sbom.json"))
	return first, later
}

// checkBill wants every module that the programs are linked of in the bill of materials, with its licence.
func checkBill(t *testing.T, path string) {
	t.Helper()
	var bill struct {
		Components []struct {
			Name, Version string
			Evidence      struct {
				Licenses []struct{ License struct{ ID string } }
			}
		}
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &bill)
	}
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range bill.Components {
		listed[c.Name+"@"+c.Version] = true
		if len(c.Evidence.Licenses) == 0 && c.Name != "std" {
			t.Logf("%s: its licence is not found by its text", c.Name)
		}
	}
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if .Version}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./cmd/...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range slices.Compact(slices.Sorted(strings.Lines(string(out)))) {
		if module = strings.TrimSpace(module); module != "" && !listed[module] {
			t.Errorf("%s is not in the bill of materials", module)
		}
	}
}

// checkInstallation installs, upgrades, removes and purges the packages on a machine that is this one but for what is
// written to it, which goes with the test.
func checkInstallation(t *testing.T, first, later string) {
	t.Helper()
	layers := t.TempDir()
	machine := filepath.Join(layers, "machine")
	for _, words := range [][]string{
		{"mount", "-t", "tmpfs", "tmpfs", layers},
		{"mkdir", layers + "/upper", layers + "/work", machine},
		{"mount", "-t", "overlay", "overlay", "-o", "lowerdir=/,upperdir=" + layers + "/upper,workdir=" + layers + "/work", machine},
		{"mount", "--rbind", "/dev", machine + "/dev"},
	} {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", words, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--recursive", "--lazy", layers).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	on := func(words ...string) (string, error) {
		out, err := exec.Command("chroot", append([]string{machine}, words...)...).CombinedOutput()
		return string(out), err
	}
	dpkg := func(words ...string) {
		t.Helper()
		if out, err := on(append([]string{"dpkg"}, words...)...); err != nil {
			t.Fatalf("dpkg %q: %v\n%s", words, err, out)
		}
	}
	bring := func(dist, version string) (paths []string) {
		for _, name := range []string{"btcpool_" + version + "_amd64.deb", "btcpool-agentproxy_" + version + "_amd64.deb"} {
			text, err := os.ReadFile(filepath.Join(dist, name))
			if err == nil {
				err = os.WriteFile(filepath.Join(machine, "tmp", name), text, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, "/tmp/"+name)
		}
		return paths
	}
	file := func(path string) string {
		text, err := os.ReadFile(filepath.Join(machine, path))
		if err != nil {
			return err.Error()
		}
		return string(text)
	}
	says := func(program, version string) {
		t.Helper()
		if out, err := on(program, "-version"); err != nil || !strings.HasPrefix(out, program+" "+version+" go1.") {
			t.Errorf("%s -version: %q, %v", program, out, err)
		}
	}

	dpkg(append([]string{"--install"}, bring(first, "1.2.3")...)...)
	for _, program := range programs(t) {
		if program != "btcpoolctl" {
			says(program, "1.2.3")
		}
	}
	if out, err := on("stat", "-c", "%U:%G %a", "/etc/btcpool/sserver.toml"); err != nil || out != "root:btcpool 640\n" {
		t.Errorf("a configuration is %q, %v", out, err)
	}
	if out, err := on("setpriv", "--reuid=btcpool", "--regid=btcpool", "--clear-groups", "sserver", "-config", "/etc/btcpool/sserver.toml", "-check"); err != nil {
		t.Errorf("the services' user cannot use the configuration: %v\n%s", err, out)
	}
	for _, path := range []string{
		"usr/share/doc/btcpool/docs/api/openapi.yaml", "usr/share/btcpool/grafana/dashboards/pool.json", "usr/share/man/man1/btcpoolctl-check.1",
	} {
		if info, err := os.Stat(filepath.Join(machine, path)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v", path, err)
		}
	}
	changed := file("etc/btcpool/sserver.toml") + "# changed by the operator\n"
	kept := filepath.Join(machine, "var/lib/btcpool/sserver/kept")
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{filepath.Join(machine, "etc/btcpool/sserver.toml"): changed, kept: "a spool"} {
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}

	dpkg(append([]string{"--install"}, bring(later, "1.2.4")...)...)
	says("sserver", "1.2.4")
	says("agentproxy", "1.2.4")
	if file("etc/btcpool/sserver.toml") != changed {
		t.Error("an upgrade has changed a configuration")
	}
	dpkg(append([]string{"--install"}, bring(first, "1.2.3")...)...) // and back
	says("sserver", "1.2.3")
	if file("etc/btcpool/sserver.toml") != changed {
		t.Error("going back has changed a configuration")
	}

	dpkg("--remove", "btcpool", "btcpool-agentproxy")
	if _, err := os.Stat(filepath.Join(machine, "usr/bin/sserver")); err == nil {
		t.Error("a removed package leaves its programs")
	}
	if file("etc/btcpool/sserver.toml") != changed {
		t.Error("a removed package takes its configurations along")
	}
	dpkg("--purge", "btcpool", "btcpool-agentproxy")
	if _, err := os.Stat(filepath.Join(machine, "etc/btcpool/sserver.toml")); err == nil {
		t.Error("a purged package leaves its configurations")
	}
	if text, err := os.ReadFile(kept); err != nil || !bytes.Equal(text, []byte("a spool")) {
		t.Errorf("a purged package takes data along: %v", err)
	}
}
