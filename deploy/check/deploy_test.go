// Package check reads the deployment files with the libraries of the tools that will read them:
// a module of its own, so that the pool does not depend on Docker's code.
package check

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/coreos/go-systemd/v22/unit"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
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

func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithName("btcpool"), cli.WithEnv([]string{
			"BITCOIND_RPC_URL=http://bitcoind:8332", "BITCOIND_RPC_USER=u", "BITCOIND_RPC_PASSWORD=p",
			"PAYOUT_ADDRESS=bc1q", "NETWORK=mainnet", "DB_PASSWORD=p",
		}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	known := programs(t)
	var ours int
	for name, service := range project.Services {
		for dependency := range service.DependsOn {
			if _, ok := project.Services[dependency]; !ok {
				t.Errorf("%s depends on %s, which is no service", name, dependency)
			}
		}
		if service.Build == nil {
			if service.Image == "" {
				t.Errorf("%s has neither image nor build", name)
			}
			continue
		}
		ours++
		if len(service.Command) == 0 || !slices.Contains(known, service.Command[0]) {
			t.Errorf("%s runs %v, which is no program of this project", name, service.Command)
		}
		for i, arg := range service.Command {
			if arg == "-config" {
				config := strings.TrimPrefix(service.Command[i+1], "/etc/btcpool/")
				if _, err := os.Stat(filepath.Join(root, "configs", config)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	if ours < 7 {
		t.Errorf("the file runs %d of the pool's services, want at least 7", ours)
	}
}

func TestDockerfile(t *testing.T) {
	file, err := os.Open(filepath.Join(root, "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != 2 {
		t.Fatalf("%d stages, want a build and a runtime stage", len(stages))
	}
	for _, command := range stages[1].Commands {
		switch c := command.(type) {
		case *instructions.CopyCommand:
			for _, source := range c.SourcePaths {
				if c.From == "" {
					if _, err := os.Stat(filepath.Join(root, source)); err != nil {
						t.Error(err)
					}
				}
			}
		case *instructions.CmdCommand:
			if !slices.Contains(programs(t), c.CmdLine[0]) {
				t.Errorf("CMD runs %s, which is no program of this project", c.CmdLine[0])
			}
		}
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
			for key, want := range map[string]string{"Service.Type": "notify", "Service.Restart": "always"} {
				if got[key] != want {
					t.Errorf("%s = %q, want %q", key, got[key], want)
				}
			}
			if !strings.HasPrefix(got["Service.ExecStart"], "/usr/bin/%i -config /etc/btcpool/%i.toml") {
				t.Errorf("ExecStart = %q", got["Service.ExecStart"])
			}
		})
	}
	for _, program := range programs(t) {
		if program == "btcpool" || program == "minersim" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "configs", program+".toml")); err != nil {
			t.Errorf("btcpool@%s has no sample configuration: %v", program, err)
		}
	}
}
