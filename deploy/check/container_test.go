//go:build integration

package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/sys/unix"
)

// engine runs the services of a project as Docker would, each with a file system, a network address and a user of its
// own: what the compose file says is done. Images of ours are laid by the Dockerfile, those of others by this machine's
// packages, with what is special about the image in testdata/images.
type engine struct {
	t       *testing.T
	project *types.Project
	dir     string
	bin     string // the pool's programs
	hosts   string // what stands in every /etc/hosts
	all     map[string]*container
	volumes map[string]string
}

type container struct {
	types.ServiceConfig
	addr string
	root string
	env  []string
	uid  uint32
	gid  uint32
	log  *os.File
	main *exec.Cmd
	done chan struct{} // closed when main has ended
}

const bridge = "pool0"

// newEngine prepares what the named services need. It must run in namespaces of its own, see inside.
func newEngine(t *testing.T, project *types.Project, dir, bin string, names []string) *engine {
	t.Helper()
	e := &engine{t: t, project: project, dir: dir, bin: bin, all: map[string]*container{}, volumes: map[string]string{}}
	e.run("ip", "link", "set", "lo", "up")
	e.run("ip", "link", "add", bridge, "type", "bridge")
	e.run("ip", "addr", "add", "10.90.0.1/24", "dev", bridge)
	e.run("ip", "link", "set", bridge, "up")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	e.hosts = "127.0.0.1 localhost " + hostname + "\n"
	for i, name := range names {
		e.all[name] = &container{ServiceConfig: project.Services[name], addr: fmt.Sprintf("10.90.0.%d", 10+i)}
		e.hosts += e.all[name].addr + " " + name + "\n"
	}
	for i, name := range names {
		e.create(e.all[name], i)
	}
	return e
}

func (e *engine) run(name string, args ...string) {
	e.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		e.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// create gives a container its network, its file system and its user.
func (e *engine) create(c *container, number int) {
	e.t.Helper()
	far, near := "c"+strconv.Itoa(number), "v"+strconv.Itoa(number)
	e.run("ip", "netns", "add", far)
	e.run("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", far)
	e.run("ip", "link", "set", near, "master", bridge, "up")
	e.run("ip", "-n", far, "addr", "add", c.addr+"/24", "dev", "eth0")
	e.run("ip", "-n", far, "link", "set", "eth0", "up")
	e.run("ip", "-n", far, "link", "set", "lo", "up")

	uid, gid, _ := strings.Cut(c.User, ":")
	c.uid, c.gid = e.number(uid), e.number(gid)
	c.root = filepath.Join(e.dir, "roots", c.Name)
	var env []string
	if c.Image == image {
		env = e.ourImage(c)
	} else {
		env = e.imageOfOthers(c)
	}
	for key, value := range c.Environment {
		env = append(env, key+"="+*value)
	}
	c.env = env
	e.mount(c)
	log, err := os.Create(filepath.Join(e.dir, c.Name+".log"))
	if err != nil {
		e.t.Fatal(err)
	}
	c.log = log
}

func (e *engine) number(s string) uint32 {
	e.t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		e.t.Fatal(err)
	}
	return uint32(n)
}

// ourImage lays the file system that the Dockerfile describes: nothing else is in it.
func (e *engine) ourImage(c *container) (env []string) {
	e.t.Helper()
	for _, copied := range copies(e.t) {
		to := filepath.Join(c.root, copied.to)
		e.run("mkdir", "-p", to)
		switch copied.from {
		case "/out/":
			e.run("cp", "-r", e.bin+"/.", to)
		case "/data":
			e.run("chown", copied.owner, to)
		default:
			e.run("cp", "-r", filepath.Join(root, copied.from)+"/.", to)
		}
	}
	e.run("mount", "--bind", c.root, c.root)
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// imageOfOthers lays this machine's file system, of which nothing is changed, with what the image has besides.
func (e *engine) imageOfOthers(c *container) (env []string) {
	e.t.Helper()
	layers := filepath.Join(e.dir, "layers", c.Name)
	e.run("mkdir", "-p", layers+"/upper", layers+"/work", c.root)
	e.run("mount", "-t", "overlay", "overlay", "-o", "lowerdir=/,upperdir="+layers+"/upper,workdir="+layers+"/work", c.root)
	name, _, _ := strings.Cut(filepath.Base(c.Image), ":")
	of := filepath.Join("testdata", "images", name)
	e.run("cp", "-r", of+"/.", c.root)
	cache, err := filepath.Abs(filepath.Join(root, ".cache"))
	if err != nil {
		e.t.Fatal(err)
	}
	switch name {
	case "kafka":
		libs, err := filepath.Glob(cache + "/kafka-" + strings.SplitN(c.Image, ":", 2)[1])
		if err != nil || len(libs) != 1 {
			e.t.Fatalf("%s is not installed: run test/install.sh", c.Image)
		}
		e.run("cp", "-r", libs[0]+"/lib", c.root+"/opt/kafka/libs")
	case "bitcoin":
		e.run("cp", cache+"/bin/btcd", c.root+"/usr/local/bin/btcd")
	}
	for _, kernel := range []string{"/proc", "/dev"} {
		e.run("mount", "--rbind", kernel, c.root+kernel)
	}
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// mount gives a container what the compose file mounts, and makes the rest read-only if that is what it says.
func (e *engine) mount(c *container) {
	e.t.Helper()
	type mounted struct {
		source, target string
		options        []string
		readOnly       bool
	}
	var all []mounted
	hosts := filepath.Join(e.dir, "hosts")
	if err := os.WriteFile(hosts, []byte(e.hosts), 0o644); err != nil {
		e.t.Fatal(err)
	}
	all = append(all, mounted{hosts, "/etc/hosts", []string{"--bind"}, true})
	for _, volume := range c.Volumes {
		source := volume.Source
		if volume.Type == types.VolumeTypeVolume {
			source = filepath.Join(e.dir, "volumes", volume.Source)
			if e.volumes[volume.Source] == "" { // a new one has the owner that the image's folder has
				e.run("mkdir", "-p", source)
				e.run("chown", c.User, source)
				e.volumes[volume.Source] = source
			}
		}
		all = append(all, mounted{source, volume.Target, []string{"--bind"}, volume.ReadOnly})
	}
	for _, secret := range c.Secrets {
		all = append(all, mounted{e.project.Secrets[secret.Source].File, "/run/secrets/" + secret.Source, []string{"--bind"}, true})
	}
	for _, tmpfs := range c.Tmpfs {
		target, options, _ := strings.Cut(tmpfs, ":")
		if options == "" {
			options = "mode=1777"
		}
		all = append(all, mounted{"tmpfs", target, []string{"-t", "tmpfs", "-o", options}, false})
	}
	for _, m := range all {
		at := c.root + m.target
		if info, err := os.Stat(m.source); err == nil && !info.IsDir() {
			e.run("mkdir", "-p", filepath.Dir(at))
			e.run("touch", at)
		} else {
			e.run("mkdir", "-p", at)
		}
	}
	if c.ReadOnly {
		e.run("mount", "-o", "remount,bind,ro", c.root)
	}
	for _, m := range all {
		e.run("mount", append(m.options, m.source, c.root+m.target)...)
		if m.readOnly {
			e.run("mount", "-o", "remount,bind,ro", c.root+m.target)
		}
	}
}

// command is a process in the container, which start begins.
func (e *engine) command(ctx context.Context, c *container, words []string, out io.Writer) (cmd *exec.Cmd, start func() error) {
	path := words[0]
	if !strings.Contains(path, "/") {
		for _, dir := range strings.Split(strings.TrimPrefix(c.env[0], "PATH="), ":") {
			if info, err := os.Stat(filepath.Join(c.root, dir, path)); err == nil && info.Mode()&0o111 != 0 {
				path = filepath.Join(dir, path)
				break
			}
		}
	}
	cmd = exec.CommandContext(ctx, path, words[1:]...)
	cmd.Err = nil // exec looked for it outside of the container
	cmd.Env, cmd.Dir = c.env, "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: c.root, Setpgid: true, Credential: &syscall.Credential{Uid: c.uid, Gid: c.gid},
	}
	number := slices.IndexFunc(slices.Sorted(maps.Keys(e.all)), func(name string) bool { return name == c.Name })
	return cmd, func() error {
		started := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: what is changed of this thread ends with it
			network, err := os.Open("/run/netns/c" + strconv.Itoa(number))
			if err == nil {
				defer network.Close()
				err = errors.Join(unix.Setns(int(network.Fd()), unix.CLONE_NEWNET), unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			}
			if err == nil {
				err = cmd.Start()
			}
			started <- err
		}()
		return <-started
	}
}

// start runs the container's command. It ends with the test, which shows the log if it failed.
func (e *engine) start(c *container) error {
	words := append(slices.Clone([]string(c.Entrypoint)), c.Command...)
	if c.Entrypoint == nil && c.Image != image {
		words = append([]string{"docker-entrypoint.sh"}, words...)
	}
	cmd, start := e.command(context.Background(), c, words, c.log)
	if err := start(); err != nil {
		return fmt.Errorf("%s: %q: %w", c.Name, words, err)
	}
	c.main, c.done = cmd, make(chan struct{})
	go func() {
		_ = cmd.Wait() // its state says more
		close(c.done)
	}()
	return nil
}

// healthy runs the health check once.
func (e *engine) healthy(ctx context.Context, c *container) error {
	test := []string(c.HealthCheck.Test)
	if test[0] != "CMD" {
		return fmt.Errorf("%s: health check %q", c.Name, test)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*c.HealthCheck.Timeout))
	defer cancel()
	var said bytes.Buffer
	cmd, start := e.command(ctx, c, test[1:], &said)
	if err := start(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, said.String())
	}
	return nil
}

// await repeats the health check as the file says until the container is healthy.
func (e *engine) await(ctx context.Context, c *container) error {
	for {
		err := e.healthy(ctx, c)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended: %v", c.Name, c.main.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%s is not healthy: %w", c.Name, err)
		case <-time.After(time.Duration(*c.HealthCheck.StartInterval)):
		}
	}
}

// up starts all containers, each when those that it depends on are healthy, and returns when all are.
func (e *engine) up(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	healthy, failed := map[string]chan struct{}{}, make(chan error, len(e.all))
	for name := range e.all {
		healthy[name] = make(chan struct{})
	}
	for name, c := range e.all {
		go func() {
			for on, how := range c.DependsOn {
				if wait, ok := healthy[on]; ok && how.Condition == types.ServiceConditionHealthy {
					select {
					case <-wait:
					case <-ctx.Done():
						failed <- fmt.Errorf("%s waits for %s", name, on)
						return
					}
				}
			}
			err := e.start(c)
			if err == nil && c.HealthCheck != nil {
				err = e.await(ctx, c)
			}
			if err == nil {
				e.t.Logf("%s is up", name)
				close(healthy[name])
			}
			failed <- err
		}()
	}
	var errs []error
	for range e.all {
		if err := <-failed; err != nil {
			errs = append(errs, err)
			cancel()
		}
	}
	return errors.Join(errs...)
}

// downwards are the containers in the order in which docker compose stops them: none before those that depend on it.
func (e *engine) downwards() (order []*container) {
	left := maps.Clone(e.all)
	for len(left) > 0 {
		for name, c := range left {
			needed := slices.ContainsFunc(slices.Collect(maps.Values(left)), func(other *container) bool {
				_, depends := other.DependsOn[name]
				return depends
			})
			if !needed {
				order = append(order, c)
				delete(left, name)
			}
		}
	}
	return order
}

// stop ends a container as docker stop does, and returns its exit code.
func (e *engine) stop(c *container) int {
	_ = c.main.Process.Signal(syscall.SIGTERM)
	grace := 10 * time.Second
	if c.StopGracePeriod != nil {
		grace = time.Duration(*c.StopGracePeriod)
	}
	select {
	case <-c.done:
	case <-time.After(grace):
		_ = syscall.Kill(-c.main.Process.Pid, syscall.SIGKILL)
		<-c.done
	}
	return c.main.ProcessState.ExitCode()
}

// tail is the end of the container's log.
func (c *container) tail() string {
	text, err := os.ReadFile(c.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}
