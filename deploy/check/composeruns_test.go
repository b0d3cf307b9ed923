//go:build integration

package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// notHere are the images that no package of this machine has.
var notHere = []string{"prometheus", "grafana"}

// insideEnv marks the test's second process, which has namespaces of its own.
const insideEnv = "COMPOSE_TEST_INSIDE"

// inside runs the calling test again in namespaces of its own (mounts, network, processes), so that nothing of this
// machine is changed, and all that it started ends with it. It reports whether this is that second run, to which
// before, which runs where there is a network, gives variables.
func inside(t *testing.T, before func() (env []string)) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		return true
	}
	env := before()
	if t.Failed() {
		return false
	}
	words := []string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Getuid() != 0 {
		words = append(words, "--map-root-user", "--map-auto")
	}
	words = append(words, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.count=1", "-test.timeout=15m")
	if testing.Verbose() {
		words = append(words, "-test.v")
	}
	again := exec.Command("unshare", words...)
	again.Env = append(append(os.Environ(), insideEnv+"=yes"), env...)
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	if err := again.Run(); err != nil {
		t.Errorf("in namespaces of its own: %v", err)
	}
	return false
}

// TestComposeRuns starts what the compose file has, on regtest with a second sserver and ZooKeeper, by the very
// commands, environments, users, mounts and health checks of the file. minersim of the file finds blocks, of which the
// dashboard tells. Each container is killed once, and no share is lost.
func TestComposeRuns(t *testing.T) {
	if !inside(t, func() []string {
		bin := t.TempDir()
		build := exec.Command("go", "build", "-o", bin+"/", "./cmd/...")
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		return []string{"POOL_BIN=" + bin}
	}) {
		return
	}
	dir := t.TempDir()
	for _, words := range [][]string{
		{"mount", "-t", "tmpfs", "tmpfs", dir},
		{"mount", "-t", "tmpfs", "tmpfs", "/run"}, // of which some belongs to the machine
	} {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", words, err, out)
		}
	}
	t.Cleanup(func() { // or nobody could remove the folder, which has read-only mounts
		if out, err := exec.Command("umount", "--recursive", "--lazy", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	project := load(t, newcomer(t), []string{"node", "regtest", "second-sserver", "zookeeper"},
		"NODE_ZMQ_HASHBLOCK=", // btcd, which stands in for Bitcoin Core, has none
		"SERVER_ID=0", "SERVER_ID_2=0", "ZOOKEEPER_SERVERS=zookeeper:2181")
	names := slices.DeleteFunc(project.ServiceNames(), func(name string) bool { return slices.Contains(notHere, name) })
	slices.Sort(names)
	e := newEngine(t, project, dir, os.Getenv("POOL_BIN"), names)
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range names {
				t.Logf("%s: last lines of its log\n%s", name, e.all[name].tail())
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := e.up(ctx); err != nil {
		t.Fatal(err)
	}

	dashboard := "http://" + e.all["statshttpd"].addr + ":8080/api/v1/"
	until(ctx, t, "minersim's blocks are on the dashboard", func() error {
		var blocks struct {
			Blocks []struct{ Hash, State string }
		}
		if err := ask(ctx, dashboard+"blocks", &blocks); err != nil {
			return err
		}
		if len(blocks.Blocks) < 3 {
			return fmt.Errorf("%d blocks", len(blocks.Blocks))
		}
		return nil
	})
	checkScraped(ctx, t, e)
	killEach(ctx, t, e, names)
	for _, name := range names {
		c := e.all[name]
		touch, start := e.command(ctx, c, []string{"/bin/touch", "/written"}, io.Discard)
		if c.Image == image {
			continue // has no touch
		}
		if err := start(); err != nil {
			t.Error(err)
		} else if touch.Wait() == nil {
			t.Errorf("%s may write where nothing is mounted", name)
		}
	}
	ours := ofOurs(project)
	for _, c := range e.downwards() {
		program, isOurs := ours[c.Name]
		if code := e.stop(c); isOurs && code != 0 {
			t.Errorf("%s: %s ended with code %d", c.Name, program, code)
		}
		if c.HealthCheck != nil && e.healthy(ctx, c) == nil {
			t.Errorf("%s is healthy though it has ended", c.Name)
		}
	}
}

// checkScraped fetches what Prometheus of the file would, and wants each service to be among it.
func checkScraped(ctx context.Context, t *testing.T, e *engine) {
	t.Helper()
	targets := scraped(t, "deploy/compose/prometheus.yml")
	for name, program := range ofOurs(e.project) {
		if program == "minersim" {
			continue
		}
		target := name + ":9100"
		if !slices.Contains(targets[program], target) {
			t.Errorf("%s is not scraped as %s", target, program)
			continue
		}
		until(ctx, t, target+" is ready", func() error {
			text, err := fetch(ctx, "http://"+e.all[name].addr+":9100/metrics")
			if err == nil && !strings.Contains(text, "\nbtcpool_ready 1\n") {
				err = errors.New("it is not")
			}
			return err
		})
	}
}

func until(ctx context.Context, t *testing.T, what string, done func() error) {
	t.Helper()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func ask(ctx context.Context, url string, into any) error {
	text, err := fetch(ctx, url)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

func fetch(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status + ": " + string(text))
	}
	return string(text), err
}
