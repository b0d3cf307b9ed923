package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/regnode"
	"btcpool/internal/miner"
	"btcpool/internal/testkit"
)

// samples are the services that make a pool by their files in configs/.
var samples = []string{"gbtmaker", "jobmaker", "sserver", "blkmaker", "sharelogger", "slparser", "statshttpd"}

func readSample(t *testing.T, service string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "configs", service+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSamplesFitTheUnit holds the shipped files against deploy/systemd, under which a service may write to
// /var/lib/btcpool/<service> only, and against each other.
func TestSamplesFitTheUnit(t *testing.T) {
	t.Parallel()
	dataDir, dsn := regexp.MustCompile(`(?m)^data_dir = "(.*?)"`), regexp.MustCompile(`(?m)^dsn = "(.*?)"`)
	databases := map[string]bool{}
	for _, service := range samples {
		text := readSample(t, service)
		owner := service
		if service == "slparser" {
			owner = "sharelogger" // whose files it reads
		}
		if dir := dataDir.FindStringSubmatch(text); dir != nil && dir[1] != "/var/lib/btcpool/"+owner {
			t.Errorf("%s keeps its data in %s", service, dir[1])
		}
		if d := dsn.FindStringSubmatch(text); d != nil {
			databases[d[1]] = true
		}
	}
	if len(databases) != 1 {
		t.Errorf("the samples name several databases: %v", databases)
	}
}

// TestSamplesTogether runs every service from its shipped file as the unit does, each in a folder of its own, and
// mines. Only what stands outside of the pool is another: node, broker, database, addresses, and where /var/lib/btcpool
// is.
func TestSamplesTogether(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds every service")
	}
	bin, state := t.TempDir(), t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../...").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	node, err := regnode.Open(regnode.Config{Dir: t.TempDir(), User: "pool", Password: "secret", Bits: 0x1f00ffff}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		node.Close()
	})
	cookie := filepath.Join(state, "cookie")
	if err := os.WriteFile(cookie, []byte("pool:secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := map[string]string{}
	var changes []string
	for _, at := range []string{"0.0.0.0:3333", "127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:9101", "127.0.0.1:9102", "127.0.0.1:9103", "127.0.0.1:9104", "127.0.0.1:9105", "127.0.0.1:9106", "127.0.0.1:9107"} {
		addr[at] = freeAddr(t)
		changes = append(changes, `"`+at+`"`, `"`+addr[at]+`"`)
	}
	outside := strings.NewReplacer(append(changes,
		"/var/lib/btcpool/", state+"/",
		"mysql://btcpool:password@tcp(127.0.0.1:3306)/btcpool", "sqlite:"+filepath.Join(state, "pool.db"),
		"127.0.0.1:9092", testkit.Broker(t).Brokers[0],
		"http://127.0.0.1:8332", node.RPCURL(), "tcp://127.0.0.1:28332", node.ZMQAddr(),
		"/var/lib/bitcoind/.cookie", cookie,
		`network = "mainnet"`, `network = "regtest"`,
		"\npayout_address = \"\"", "\npayout_address = \""+embeddedPayout+"\"",
	)...)
	for _, service := range samples {
		runSample(t, filepath.Join(bin, service), filepath.Join(state, service), outside.Replace(readSample(t, service)))
	}
	go func() {
		_ = miner.Run(ctx, miner.Config{URL: addr["0.0.0.0:3333"], User: "alice.rig1", Password: "d=0.00002", Threads: 1}, zerolog.Nop())
	}()

	ready := func(at string) error {
		_, err := fetch("http://" + addr[at] + "/readyz")
		return err
	}
	for what, holds := range map[string]func() error{
		"every service is ready": func() error {
			for at := 9101; at <= 9107; at++ {
				if err := ready(fmt.Sprint("127.0.0.1:", at)); err != nil {
					return err
				}
			}
			return nil
		},
		"mined, kept and shown": func() error {
			text, err := fetch("http://" + addr["127.0.0.1:8080"] + "/api/v1/blocks")
			var answer struct {
				Blocks []struct{ State, Finder string }
			}
			if err == nil {
				err = json.Unmarshal(text, &answer)
			}
			if err == nil && (len(answer.Blocks) == 0 || answer.Blocks[0].State != "accepted" || answer.Blocks[0].Finder != "alice.rig1") {
				err = fmt.Errorf("blocks: %s", text)
			}
			return err
		},
		"counted from the share log": func() error {
			text, err := fetch("http://" + addr["127.0.0.1:9106"] + "/metrics")
			if err == nil && !regexp.MustCompile(`(?m)^btcpool_slparser_shares_total\{.*\} [1-9]`).Match(text) {
				err = fmt.Errorf("slparser has counted nothing")
			}
			return err
		},
		"workers have names": func() error {
			text, err := fetch("http://" + addr["127.0.0.1:8080"] + "/api/v1/workers")
			if err == nil && !strings.Contains(string(text), `"alice"`) {
				err = fmt.Errorf("workers: %s", text)
			}
			return err
		},
	} {
		var last error
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if last = holds(); last == nil || time.Now().After(deadline) {
				break
			}
		}
		if last != nil {
			t.Errorf("%s: not in time: %v", what, last)
		}
	}
}

// runSample runs a service as deploy/systemd does until the test ends: checked first, in its own folder.
func runSample(t *testing.T, program, dir, text string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := program + ".toml"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check := exec.Command(program, "-config", file, "-check")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("%s -check: %v\n%s", program, err, out)
	}
	var log lockedBuffer
	run := exec.Command(program, "-config", file)
	run.Dir, run.Stderr = dir, &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		if err := run.Wait(); err != nil || t.Failed() {
			t.Errorf("%s: %v\n%s", program, err, log.String())
		}
	})
}

// freeAddr returns an address of this machine that nobody listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func fetch(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", url, resp.Status, text)
	}
	return text, err
}
