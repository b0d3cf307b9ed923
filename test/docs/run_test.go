//go:build integration

package docs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// TestCommandsRun runs the commands that documents show, in a folder of their own, with addresses of this machine and
// less to do.
func TestCommandsRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin := filepath.Dir(rig.Bin(t, "btcpool"))
	// shell runs a script with the programs at hand, and returns what it prints.
	shell := func(t *testing.T, script string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TOKEN="+token)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	pool := start(t, dir, bin, "-demo")
	sserver := operated(t, dir, bin)
	functions := "" // that a document has defined
	how := map[string]func(t *testing.T, text string){
		"pool": func(t *testing.T, text string) { start(t, t.TempDir(), bin, strings.Fields(text)[3:]...) },
		"check": func(t *testing.T, text string) {
			text = strings.NewReplacer("go run ./cmd/btcpool", "btcpool", "bc1q…", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4").Replace(text)
			if out := shell(t, text+" -check"); !strings.Contains(out, "configuration ok") {
				t.Error(out)
			}
		},
		"mine": func(t *testing.T, text string) {
			text = regexp.MustCompile(`-url \S+`).ReplaceAllString(text, "-url stratum+tcp://"+pool)
			less := " -shares 1"
			if strings.Contains(text, "-duration") {
				less = " -conns 10 -ramp 1s -duration 3s"
			}
			shell(t, text+less)
		},
		"operator": func(t *testing.T, text string) {
			text = strings.ReplaceAll(text, "127.0.0.1:9120", sserver)
			if strings.HasPrefix(text, "a()") {
				functions = strings.ReplaceAll(text, "curl ", "curl -sS ") + "\n"
				return
			}
			// There is no session: the answer says that, and not that the request is none.
			if out := shell(t, functions+text); strings.Contains(out, "invalid_request") || strings.Contains(out, "unauthorized") || strings.Contains(out, "method_not_allowed") || !strings.Contains(out, "{") {
				t.Error(out)
			}
		},
		"day": func(t *testing.T, text string) {
			for name, config := range map[string]string{
				"sharelogger": fmt.Sprintf("data_dir = %q\nadmin = \"\"\n[kafka]\nbrokers = [\"127.0.0.1:1\"]\n", filepath.Join(dir, "days")),
				"slparser":    fmt.Sprintf("data_dir = %q\nadmin = \"\"\nlisten = \"127.0.0.1:0\"\n[database]\ndsn = %q\n", filepath.Join(dir, "days"), "sqlite:"+filepath.Join(dir, "days.db")),
			} {
				if err := os.WriteFile(filepath.Join(dir, name+".toml"), []byte(config), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(filepath.Join(dir, "days"), 0o755); err != nil {
				t.Fatal(err)
			}
			program := strings.Fields(text)[0]
			// There is no such day, which is not wrong usage.
			out := shell(t, strings.ReplaceAll(text, "FILE", program+".toml")+"; code=$?; test $code -lt 2 || exit $code")
			if strings.Contains(out, "flag provided") || strings.Contains(out, "Usage") {
				t.Error(out)
			}
		},
		"env": func(t *testing.T, text string) {
			tree(t, dir, "Makefile", "deploy/env.sh", "deploy/merged-mining.env.example", ".env.example")
			shell(t, "cd tree && "+text+" && test -s .env && test -s secrets/database_dsn")
		},
		"install": func(t *testing.T, text string) {
			tree(t, dir, "Makefile", "cmd", "configs", "deploy/systemd")
			shell(t, "cd tree && "+strings.TrimPrefix(text, "sudo ")+" BIN="+bin+" DESTDIR=../machine && test -x ../machine/usr/bin/sserver && test -s ../machine/etc/btcpool/sserver.toml")
		},
	}
	for _, c := range commands(t) {
		i := wayOf(c)
		if i < 0 || ways[i].run == "" {
			continue
		}
		do := how[ways[i].run]
		if do == nil {
			t.Fatalf("nobody knows how to run %q", ways[i].run)
		}
		t.Run(c.file+" "+c.text, func(t *testing.T) { do(t, c.text) })
	}
}

// token is an operator's.
const token = "known-to-the-operator"

// tree copies parts of the project to dir/tree.
func tree(t *testing.T, dir string, parts ...string) {
	t.Helper()
	to := filepath.Join(dir, "tree")
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cp", append(append([]string{"-r", "--parents"}, parts...), to)...)
	cmd.Dir = rig.Root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// run starts a program until the test ends; it must stop properly then.
func run(t *testing.T, dir, path string, args ...string) {
	t.Helper()
	log := filepath.Join(dir, filepath.Base(path)+".log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s", text[max(0, len(text)-2000):])
		}
	})
}

// start starts the pool in one process, with addresses and a folder of its own, and returns where miners connect when
// it can be used.
func start(t *testing.T, dir, bin string, args ...string) (stratum string) {
	t.Helper()
	stratum, page := testkit.FreeAddr(t), testkit.FreeAddr(t)
	run(t, dir, filepath.Join(bin, "btcpool"), append(args, "-data", filepath.Join(dir, "pool"), "-stratum", stratum, "-http", page)...)
	answers(t, "http://"+page+"/api/v1/pool")
	return stratum
}

// operated starts sserver with an admin API, and returns where that is.
func operated(t *testing.T, dir, bin string) (addr string) {
	t.Helper()
	addr = testkit.FreeAddr(t)
	config := fmt.Sprintf("listen = %q\nadmin = \"\"\ndata_dir = %q\n[admin_api]\nlisten = %q\ntoken = %q\n[users]\nsource = \"static\"\n[users.static]\nalice = 1\n[kafka]\nbrokers = [\"127.0.0.1:1\"]\n",
		testkit.FreeAddr(t), filepath.Join(dir, "sserver"), addr, token)
	path := filepath.Join(dir, "sserver.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, filepath.Join(bin, "sserver"), "-config", path)
	answers(t, "http://"+addr+"/")
	return addr
}

// answers waits until somebody does at url.
func answers(t *testing.T, url string) {
	t.Helper()
	testkit.Until(t, testkit.Patience, url, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode >= http.StatusInternalServerError {
			return errors.New(res.Status)
		}
		return nil
	})
}

// untold are flags that no usage has: the library's, and BTCAgent's, which agentproxy takes.
var untold = []string{"-h", "-help", "-c"}

// TestFlagsInText holds the flags and subcommands that documents name to what the programs say of themselves.
func TestFlagsInText(t *testing.T) {
	t.Parallel()
	mains, err := filepath.Glob(filepath.Join(root, "cmd", "*", "main.go"))
	if err != nil || len(mains) == 0 {
		t.Fatalf("no programs: %v", err)
	}
	var programs []string
	for _, main := range mains {
		programs = append(programs, filepath.Base(filepath.Dir(main)))
	}
	ours := regexp.MustCompile("`(" + strings.Join(programs, "|") + ") ([^`]+)`") // a call within a line of text
	help := map[string]string{}
	for _, path := range documents(t) {
		for _, found := range ours.FindAllStringSubmatch(read(t, path), -1) {
			program, words := found[1], strings.Fields(found[2])
			if help[program] == "" {
				out, _ := exec.Command(rig.Bin(t, program), "-h").CombinedOutput() // its code is 2 of some
				help[program] = string(out)
			}
			if program == "btcpoolctl" && !regexp.MustCompile(`(?m)^  `+regexp.QuoteMeta(words[0])+` `).MatchString(help[program]) {
				t.Errorf("%s: %s has no such command: %s", path, program, found[0])
			}
			for _, word := range words {
				if program != "btcpoolctl" && strings.HasPrefix(word, "-") && !slices.Contains(untold, word) && !regexp.MustCompile(`(?m)^ +`+regexp.QuoteMeta(word)+`\b`).MatchString(help[program]) {
					t.Errorf("%s: %s has no flag %s: %s", path, program, word, found[0])
				}
			}
		}
	}
	if len(help) < 4 {
		t.Errorf("only %d programs are named", len(help))
	}
}
