// Package check reads the deployment files with the libraries of the tools that will read them: a module of its own, so
// that the pool does not depend on Docker's code.
package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

const root = "../.."

// programs are the folders of cmd/, so that no file names a program that does not exist.
func programs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "cmd"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// dockerfile reads the file with the parser and the linter of docker build.
func dockerfile(t *testing.T) []instructions.Stage {
	t.Helper()
	file, err := os.Open(filepath.Join(root, "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range parsed.Warnings {
		t.Error(warning.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		t.Errorf("%s: %s", rule, message)
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != 2 {
		t.Fatalf("%d stages, want a build and a runtime stage", len(stages))
	}
	return stages
}

// copied is what the runtime stage has from elsewhere.
type copied struct{ from, to, owner string }

// copies are those of the runtime stage.
func copies(t *testing.T) (all []copied) {
	t.Helper()
	for _, command := range dockerfile(t)[1].Commands {
		if c, ok := command.(*instructions.CopyCommand); ok {
			for _, source := range c.SourcePaths {
				all = append(all, copied{source, c.DestPath, c.Chown})
			}
		}
	}
	return all
}

func TestDockerfile(t *testing.T) {
	for _, c := range copies(t) {
		if filepath.IsAbs(c.from) { // of the build stage
			continue
		}
		if _, err := os.Stat(filepath.Join(root, c.from)); err != nil {
			t.Error(err)
		}
	}
	user, owner := "", ""
	for _, command := range dockerfile(t)[1].Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.CopyCommand:
			owner = c.Chown
		case *instructions.CmdCommand:
			if !slices.Contains(programs(t), c.CmdLine[0]) {
				t.Errorf("CMD runs %s, which is no program of this project", c.CmdLine[0])
			}
		}
	}
	if user != "65532:65532" || owner != user {
		t.Errorf("runs as %s, its folder belongs to %s", user, owner)
	}
}

func TestUnits(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "deploy", "systemd", "*.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, name := range files {
		if !strings.HasSuffix(name, ".service") && !strings.HasSuffix(name, ".target") {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			options, err := unit.DeserializeOptions(file)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, o := range options {
				got[o.Section+"."+o.Name] = o.Value
			}
			if got["Unit.Description"] == "" || got["Install.WantedBy"] == "" {
				t.Error("a unit needs Unit.Description and Install.WantedBy")
			}
			if !strings.HasSuffix(name, ".service") {
				return
			}
			for key, want := range map[string]string{
				"Service.Type": "notify", "Service.Restart": "always",
				"Unit.StartLimitIntervalSec": "0", // or a few quick failures leave it dead
				// The last is how a program learns the addresses of its machine.
				"Service.RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
			} {
				if got[key] != want {
					t.Errorf("%s = %q, want %q", key, got[key], want)
				}
			}
			if !strings.HasPrefix(got["Service.ExecStart"], "/usr/bin/%i -config /etc/btcpool/%i.toml") {
				t.Errorf("ExecStart = %q", got["Service.ExecStart"])
			}
		})
	}
	for service, signal := range map[string]string{"agentproxy": "HUP", "sserver": "USR2", "switcher": "USR2"} {
		drop, err := os.Open(filepath.Join(root, "deploy", "systemd", "btcpool@"+service+".service.d", "reload.conf"))
		if err != nil {
			t.Fatal(err)
		}
		defer drop.Close()
		options, err := unit.DeserializeOptions(drop)
		if err != nil {
			t.Fatal(err)
		}
		want := []*unit.UnitOption{
			{Section: "Service", Name: "ExecReload", Value: "/usr/bin/%i -config /etc/btcpool/%i.toml -check"},
			{Section: "Service", Name: "ExecReload", Value: "/bin/kill -" + signal + " $MAINPID"},
		}
		if !unit.AllMatch(options, want) {
			t.Errorf("%s is reloaded by %v", service, options)
		}
	}
	for _, program := range programs(t) {
		if program == "btcpool" || program == "btcpoolctl" || program == "minersim" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "configs", program+".toml")); err != nil {
			t.Errorf("btcpool@%s has no sample configuration: %v", program, err)
		}
	}
}
