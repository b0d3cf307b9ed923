//go:build integration

package rig

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"btcpool/internal/testkit"
)

// unit is what deploy/systemd/btcpool@.service says, in a tree of folders that stands for the root of a machine.
type unit struct {
	root    string
	options map[string]string
}

// newUnit installs the project as docs/operating.md says and reads the unit.
func newUnit(t testing.TB) *unit {
	t.Helper()
	// Not t.TempDir, which other users may not enter.
	root, err := os.MkdirTemp("", "btcpool-unit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	install := exec.Command("make", "install", "DESTDIR="+root, "BIN="+filepath.Dir(Bin(t, "sserver")))
	install.Dir = Root(t)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	u := &unit{root: root, options: map[string]string{}}
	file, err := os.Open(u.in("usr/lib/systemd/system/btcpool@.service"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			u.options[key] = value
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return u
}

// in returns a path of the machine in the tree that stands for it.
func (u *unit) in(path string) string { return filepath.Join(u.root, path) }

// command returns what the option says to run for a service.
func (u *unit) command(option, service string) []string {
	words := strings.Fields(strings.ReplaceAll(u.options[option], "%i", service))
	for i, word := range words {
		if strings.HasPrefix(word, "/") {
			words[i] = u.in(word)
		}
	}
	return words
}

// start checks and starts a service as systemd would: by the unit's commands, in its folder, and as a user who may
// write there only. Where the tests are not run by root they are that user themselves.
func (u *unit) start(t testing.TB, dir, service string, user uint32) *Process {
	t.Helper()
	state := u.in("var/lib/" + strings.ReplaceAll(u.options["StateDirectory"], "%i", service))
	if err := os.MkdirAll(state, 0o755); err != nil {
		t.Fatal(err)
	}
	var who *syscall.Credential
	if os.Getuid() == 0 {
		const group = 64000 // slparser reads what sharelogger writes, as one group
		who = &syscall.Credential{Uid: group + user, Gid: group}
		if err := errors.Join(os.Chown(state, int(who.Uid), group), os.Chown(u.in("etc/btcpool/"+service+".toml"), 0, group)); err != nil {
			t.Fatal(err)
		}
	}
	folder := u.in(strings.ReplaceAll(u.options["WorkingDirectory"], "%i", service))
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + u.in("var/lib/btcpool"), "STATE_DIRECTORY=" + state}

	words := u.command("ExecStartPre", service)
	check := exec.Command(words[0], words[1:]...)
	check.Dir, check.Env, check.SysProcAttr = folder, env, &syscall.SysProcAttr{Credential: who}
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", words, err, out)
	}
	words = u.command("ExecStart", service)
	p := &Process{
		Name: service, path: words[0], args: words[1:], dir: folder, env: env, who: who,
		log: filepath.Join(dir, service+".log"),
	}
	p.run(t)
	return p
}

// StartSamples starts every service from its file in configs/ as the systemd unit does, each as an ordinary user, and
// waits until all are ready. Only what stands outside of the pool differs from the files: the network and who is paid,
// addresses, and logins.
func StartSamples(t testing.TB, dir string, k *Kafka, db *MariaDB, node *Btcd) *Pool {
	t.Helper()
	p := &Pool{
		Stratum: testkit.FreeAddr(t), HTTP: "http://" + testkit.FreeAddr(t),
		Names: slices.Clone(Services), services: map[string]*Process{}, admin: map[string]string{},
	}
	u := newUnit(t)
	p.Log = u.in("var/lib/btcpool/sharelogger")
	changes := []string{
		`"/var/lib/btcpool/`, `"` + u.in("var/lib/btcpool") + "/",
		`network = "mainnet"`, `network = "regtest"`,
		"\npayout_address = \"\"", fmt.Sprintf("\npayout_address = %q", PayoutAddress),
		"0.0.0.0:3333", p.Stratum,
		`"127.0.0.1:8080"`, fmt.Sprintf("%q", p.HTTP[len("http://"):]),
		`"127.0.0.1:8081"`, fmt.Sprintf("%q", testkit.FreeAddr(t)),
		`"127.0.0.1:9092"`, fmt.Sprintf("%q", k.Addr),
		"mysql://btcpool:password@tcp(127.0.0.1:3306)/btcpool", "mysql://" + db.DSN,
		`"http://127.0.0.1:8332"`, fmt.Sprintf("%q", node.URL),
		`rpc_cookie_file = "/var/lib/bitcoind/.cookie"`, fmt.Sprintf("rpc_user = %q\nrpc_password = %q", node.User, node.Password),
		`zmq_hashblock = "tcp://127.0.0.1:28332"`, `zmq_hashblock = ""`, // btcd has none
	}
	for i, service := range Services {
		p.admin[service] = testkit.FreeAddr(t)
		changes = append(changes, fmt.Sprintf("\nadmin = \"127.0.0.1:%d\"", 9101+i), fmt.Sprintf("\nadmin = %q", p.admin[service]))
	}
	file := func(service string) string { return u.in("etc/btcpool/" + service + ".toml") }
	samples := map[string]string{}
	for _, service := range Services {
		text, err := os.ReadFile(file(service))
		if err != nil {
			t.Fatal(err)
		}
		samples[service] = string(text)
	}
	for i := 0; i < len(changes); i += 2 {
		found := false
		for _, text := range samples {
			found = found || strings.Contains(text, changes[i])
		}
		if !found {
			t.Fatalf("no sample has %q", changes[i])
		}
	}
	outside := strings.NewReplacer(changes...)
	for i, service := range Services {
		write(t, file(service), outside.Replace(samples[service]))
		p.services[service] = u.start(t, dir, service, uint32(1+i))
	}
	for _, service := range p.Names {
		p.WaitReady(t, service)
	}
	return p
}
