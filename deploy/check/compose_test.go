package check

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// newcomer is a copy of what docker compose reads, in which deploy/env.sh has written .env and secrets/ for regtest.
func newcomer(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"docker-compose.yml", ".env.example", "deploy"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(root, name), dir).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
	environment(t, dir, "regtest")
	return dir
}

// environment runs the copy's deploy/env.sh.
func environment(t *testing.T, dir string, args ...string) (said string) {
	t.Helper()
	out, err := exec.Command(filepath.Join(dir, "deploy", "env.sh"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("env.sh: %v\n%s", err, out)
	}
	return string(out)
}

// load reads the copy's compose file as docker compose would, with the profiles of its .env or those that are named.
func load(t *testing.T, dir string, profiles []string, env ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")},
		cli.WithWorkingDirectory(dir), cli.WithEnv(env), cli.WithEnvFiles(), cli.WithDotEnv, cli.WithDefaultProfiles(profiles...))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// everything is the whole file, with values for what a profile needs besides .env.
func everything(t *testing.T) *types.Project {
	t.Helper()
	return load(t, newcomer(t), []string{"*"},
		"WATCHED_POOL_ADDR=pool:3333", "WATCHED_POOL_USER=us", "MERGED_MINING_ENV=deploy/merged-mining.env.example", "SWITCHAPI_ENV=deploy/switchapi.env.example", "SWITCHER_ENV=deploy/switcher.env.example")
}

const image = "btcpool"

// ofOurs are the services of the pool among those of the project, with their programs.
func ofOurs(project *types.Project) map[string]string {
	ours := map[string]string{}
	for name, service := range project.Services {
		if service.Image == image {
			ours[name] = service.Command[0]
		}
	}
	return ours
}

// TestCompose lets each of the pool's services judge the environment that the file gives it.
func TestCompose(t *testing.T) {
	project := everything(t)
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./cmd/...")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	builders := 0
	run := map[string]bool{}
	for name, program := range ofOurs(project) {
		run[program] = true
		service := project.Services[name]
		if service.Build != nil {
			builders++
		} else if service.PullPolicy != "never" {
			t.Errorf("%s would be pulled from a registry, which does not have the image", name)
		}
		if program == "minersim" {
			continue
		}
		check := exec.Command(filepath.Join(bin, program), "-check")
		for key, value := range service.Environment {
			check.Env = append(check.Env, key+"="+*value)
		}
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s would not start: %v\n%s", name, err, out)
		}
		if got := []string(service.HealthCheck.Test); !slices.Equal(got, []string{"CMD", program, "-health"}) {
			t.Errorf("%s is asked for its health by %q", name, got)
		}
	}
	for _, program := range programs(t) {
		if program != "btcpool" && program != "btcpoolctl" && program != "agentproxy" && !run[program] {
			t.Errorf("no container runs %s", program)
		}
	}
	if builders != 1 {
		t.Errorf("%d services build the image %s at once, want one", builders, image)
	}
	give, take := project.Services["sserver"].Environment, project.Services["blkmaker"].Environment
	_, port, err := net.SplitHostPort(*take["BTCPOOL_HANDOVER_LISTEN"])
	if err != nil || *give["BTCPOOL_HANDOVER_URLS"] != "http://blkmaker:"+port || *give["BTCPOOL_HANDOVER_TOKEN_FILE"] != *take["BTCPOOL_HANDOVER_TOKEN_FILE"] {
		t.Errorf("sserver does not hand found blocks to blkmaker: %v", err)
	}
}

// TestComposeContains holds every container to what limits the harm that one can do.
func TestComposeContains(t *testing.T) {
	project := everything(t)
	published := map[string]string{} // by service, the address
	for name, service := range project.Services {
		uid, _, _ := strings.Cut(service.User, ":")
		if n, err := strconv.Atoi(uid); err != nil || n == 0 {
			t.Errorf("%s runs as %q, want a number that is not root's", name, service.User)
		}
		switch {
		case !service.ReadOnly, !slices.Equal(service.CapDrop, []string{"ALL"}), len(service.CapAdd) > 0, service.Privileged,
			!slices.Equal(service.SecurityOpt, []string{"no-new-privileges:true"}):
			t.Errorf("%s is not contained", name)
		case service.MemLimit == 0, service.CPUS == 0, service.PidsLimit == 0:
			t.Errorf("%s has no limits", name)
		case service.Logging == nil, service.Logging.Options["max-size"] == "", service.Logging.Options["max-file"] == "":
			t.Errorf("%s may fill the disk with its log", name)
		case service.NetworkMode != "", service.Pid != "", service.Ipc != "":
			t.Errorf("%s has a namespace of the machine", name)
		}
		if limit, ok := service.Environment["GOMEMLIMIT"]; ok {
			mb, err := strconv.ParseInt(strings.TrimSuffix(*limit, "MiB"), 10, 64)
			if err != nil || mb<<20 >= int64(service.MemLimit) {
				t.Errorf("%s: GOMEMLIMIT %s, mem_limit %d", name, *limit, service.MemLimit)
			}
		}
		if name != "minersim" && (service.HealthCheck == nil || len(service.HealthCheck.Test) == 0) {
			t.Errorf("%s has no health check", name)
		}
		if _, tag, _ := strings.Cut(service.Image, ":"); service.Image != image && (tag == "" || tag == "latest") {
			t.Errorf("%s is whatever %s is today", name, service.Image)
		}
		for on, how := range service.DependsOn {
			if how.Condition != types.ServiceConditionHealthy && on != "bitcoind" {
				t.Errorf("%s does not wait for %s", name, on)
			}
			// What no profile has chosen must not keep it from starting.
			if len(project.Services[on].Profiles) > 0 && how.Required {
				t.Errorf("%s cannot start without the profile of %s", name, on)
			}
		}
		for _, port := range service.Ports {
			published[name] = port.HostIP
		}
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(volume.Source); err != nil || !volume.ReadOnly {
				t.Errorf("%s: %s is not there, or may be written", name, volume.Source)
			}
		}
		if _, ok := service.Networks["outside"]; !ok && len(service.Ports) > 0 {
			t.Errorf("%s publishes a port of a network that nobody reaches", name)
		}
	}
	want := map[string]string{"sserver": "", "sserver-2": "", "statshttpd": "", "grafana": "127.0.0.1", "switchapi": "127.0.0.1", "switcher": ""}
	for name, ip := range published {
		if w, ok := want[name]; !ok || w != ip {
			t.Errorf("%s is reached at %q", name, ip)
		}
	}
	if !project.Networks["inside"].Internal {
		t.Error("the inner network has a way out")
	}
}

// TestComposeSecrets wants secrets in files that only those have who need them, and nowhere else.
func TestComposeSecrets(t *testing.T) {
	dir := newcomer(t)
	project := load(t, dir, []string{"*"})
	values := map[string]string{}
	for name, secret := range project.Secrets {
		text, err := os.ReadFile(secret.File)
		if err != nil {
			t.Fatal(err)
		}
		values[name] = strings.TrimSpace(string(text))
		if info, err := os.Stat(secret.File); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: who has another number than the one who made it cannot read it: %v", name, info.Mode())
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("secrets/ is open to others: %v", info.Mode())
	}
	if len(values) < 5 || values["database_password"] == values["handover_token"] || len(values["handover_token"]) < 32 {
		t.Errorf("secrets: %d, some are the same, or short", len(values))
	}
	rendered, err := project.MarshalYAML()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range values {
		if strings.Contains(string(rendered), value) {
			t.Errorf("%s stands in the environment or a command", name)
		}
	}
	for name, service := range project.Services {
		given := map[string]bool{}
		for _, s := range service.Secrets {
			given["/run/secrets/"+s.Source] = true
		}
		for key, value := range service.Environment {
			if strings.HasPrefix(*value, "/run/secrets/") && !given[*value] {
				t.Errorf("%s: %s names %s, which it is not given", name, key, *value)
			}
			delete(given, *value)
		}
		delete(given, "/run/secrets/node_rpc_password") // by bitcoind.sh
		for path := range given {
			t.Errorf("%s is given %s and does not use it", name, path)
		}
	}
}

// TestEnvironmentScript runs deploy/env.sh as a newcomer, as one with a node, again, and over an .env of before.
func TestEnvironmentScript(t *testing.T) {
	dir := newcomer(t)
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	env, token := read(".env"), read("secrets/handover_token")
	if got := load(t, dir, nil); got.Services["minersim"].Name == "" || got.Services["bitcoind"].Name == "" || got.Services["zookeeper"].Name != "" {
		t.Errorf("regtest starts %v", got.ServiceNames())
	}
	environment(t, dir)
	if read(".env") != env || read("secrets/handover_token") != token {
		t.Error("what was there has changed")
	}

	if err := os.RemoveAll(filepath.Join(dir, "secrets")); err != nil {
		t.Fatal(err)
	}
	old := "NETWORK=mainnet\nDB_PASSWORD=of the old file\nHANDOVER_TOKEN=known-to-both-ends\nNODE_RPC_PASSWORD=of the node\n"
	if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	environment(t, dir)
	if got := read("secrets/database_dsn"); got != "mysql://btcpool:of the old file@tcp(mariadb:3306)/btcpool\n" {
		t.Errorf("dsn %q", got)
	}
	if read("secrets/handover_token") != "known-to-both-ends\n" || read("secrets/node_rpc_password") != "of the node\n" || read(".env") != old {
		t.Error("an .env of before was not taken over")
	}

	if err := os.Remove(filepath.Join(dir, ".env")); err != nil {
		t.Fatal(err)
	}
	said := environment(t, dir, "testnet4", "http://10.0.0.5:48332", "me")
	project := load(t, dir, nil, "PAYOUT_ADDRESS=tb1q")
	node := project.Services["gbtmaker"].Environment
	if project.Services["bitcoind"].Name != "" || *node["BTCPOOL_NODE_RPC_URL"] != "http://10.0.0.5:48332" || *node["BTCPOOL_NODE_RPC_USER"] != "me" {
		t.Errorf("a node of one's own: %v, %v", project.ServiceNames(), node)
	}
	if !strings.Contains(said, "PAYOUT_ADDRESS") || !strings.Contains(said, "node_rpc_password") {
		t.Errorf("env.sh does not say what is left to do: %s", said)
	}
	wrong := exec.Command(filepath.Join(dir, "deploy", "env.sh"), "testnet")
	if err := os.Remove(filepath.Join(dir, ".env")); err != nil {
		t.Fatal(err)
	}
	if out, err := wrong.CombinedOutput(); err == nil {
		t.Errorf("a network that does not exist: %s", out)
	}
}
