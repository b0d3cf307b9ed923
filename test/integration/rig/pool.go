//go:build integration

package rig

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"btcpool/internal/auxpow/auxpowtest"
	"btcpool/internal/testkit"
)

// Services are the pool's, in the order of the data flow.
var Services = []string{"gbtmaker", "jobmaker", "sserver", "blkmaker", "sharelogger", "slparser", "statshttpd"}

// Pool is every service as a process of its own.
type Pool struct {
	Stratum string   // host:port
	Farm    string   // host:port of the farm proxy, if there is one
	HTTP    string   // URL of the dashboard
	Stats   string   // URL of slparser
	Log     string   // folder of the share log
	Names   []string // of its services, in the order of the data flow

	services map[string]*Process
	admin    map[string]string
	clocks   bool // of its machines can be moved
}

// Two sets of programs: as they are, and with a clock that can be moved.
var (
	build      = sync.OnceValues(func() ([]byte, error) { return goBuild(binDir) })
	buildMoved = sync.OnceValues(func() ([]byte, error) {
		dir, err := os.MkdirTemp("", "clock")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }() // what is left is of no harm
		replaced, err := overlay(dir)
		if err != nil {
			return nil, err
		}
		return goBuild(movedDir, "-overlay", replaced)
	})
)

var binDir, movedDir = filepath.Join(".cache", "bin"), filepath.Join(".cache", "clock")

func goBuild(dir string, flags ...string) ([]byte, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	// Tests of other packages, in processes of their own, run what is built.
	lock, err := os.OpenFile(filepath.Join(root, ".cache", "build.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	args := append([]string{"build", "-trimpath", "-o", dir + string(filepath.Separator)}, flags...)
	cmd := exec.Command("go", append(args, "./cmd/...")...)
	cmd.Dir = root
	return cmd.CombinedOutput()
}

// Bin builds the project's programs, once, and returns the path of one.
func Bin(t testing.TB, program string) string {
	t.Helper()
	return built(t, build, binDir, program)
}

func built(t testing.TB, build func() ([]byte, error), dir, program string) string {
	t.Helper()
	if out, err := build(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(Root(t), dir, program)
}

// StartService starts one of the project's programs as name, with this configuration, behind a command that runs the
// rest of its arguments, if there is one.
func StartService(t testing.TB, dir, name, program, config string, within ...string) *Process {
	t.Helper()
	return startService(t, dir, name, Bin(t, program), nil, config, within...)
}

// StartMoved starts one of the programs on a machine with this clock.
func StartMoved(t testing.TB, dir, program string, clock *Clock, config string) *Process {
	return startService(t, dir, program, binWith(t, program, clock != nil), clock, config)
}

// startService is StartService of a program at a path, on a machine with this clock.
func startService(t testing.TB, dir, name, binary string, clock *Clock, config string, within ...string) *Process {
	t.Helper()
	path := filepath.Join(dir, name+".toml")
	write(t, path, config)
	command := append(within, binary, "-config", path)
	return start(t, dir, name, command[0], clock.env(), command[1:]...)
}

// binWith is Bin, of programs whose clock can be moved if need be: one set of them is enough for a pool.
func binWith(t testing.TB, program string, clock bool) string {
	t.Helper()
	if clock {
		return built(t, buildMoved, movedDir, program)
	}
	return Bin(t, program)
}

// Setup is what a pool works with.
type Setup struct {
	Kafka *Kafka
	DB    *MariaDB
	Nodes []Node
	// Direct makes sserver hand solved shares to blkmaker, beside Kafka.
	Direct bool
	// ZooKeeper lets sserver lease its id; nil: it has one of its own.
	ZooKeeper *ZooKeeper
	// Aux is a chain that is mined along, of the name "aux"; nil: none.
	Aux *auxpowtest.Node
	// Clocks are those of the machines that services of these names run on; others have this machine's.
	Clocks map[string]*Clock
	// OpenFiles is how many descriptors sserver has; 0: as many as the test.
	OpenFiles int
	// DiskBytes is the size of a disk of sserver's own for its data_dir; 0: none.
	DiskBytes int
	// Watched is the host:port of another pool that poolwatcher watches; "": none.
	Watched string
	// MaxWorkers is statshttpd's setting; 0: the default.
	MaxWorkers int
	// Farm adds a farm proxy, agentproxy, whose machines mine for the account "farm".
	Farm bool
	// Release has the programs to start; nil: those of this tree.
	Release *Release
	// Lines are between services and servers, Kafka's those with which it was started; nil: they reach them directly.
	Lines *Lines
	// Only are the services that are started; nil: all.
	Only []string
	// Difficulties are sserver's settings of them; "": at which a CPU mines in a fraction of a second.
	Difficulties string
	// SubPool is the payout address of a sub-pool, "guests", for whose coinbase all miners work; their shares have the
	// external user -5. "": none.
	SubPool string
	// Unhurried leaves the time between writes of statistics as it is by default; a test would wait for them.
	Unhurried bool
}

// StartPool starts a pool on one node, with Kafka as the only way of solved shares.
func StartPool(t testing.TB, dir string, k *Kafka, db *MariaDB, node *Btcd) *Pool {
	t.Helper()
	return Setup{Kafka: k, DB: db, Nodes: []Node{node.Node()}}.Start(t, dir)
}

// Start writes a configuration for every service, starts them and waits until all are ready.
func (s Setup) Start(t testing.TB, dir string) *Pool {
	t.Helper()
	p := &Pool{
		Stratum:  testkit.FreeAddr(t),
		HTTP:     "http://" + testkit.FreeAddr(t),
		Stats:    "http://" + testkit.FreeAddr(t),
		Log:      filepath.Join(dir, "sharelog"),
		Names:    slices.Clone(Services),
		services: map[string]*Process{},
		admin:    map[string]string{},
		clocks:   len(s.Clocks) > 0,
	}
	network := "network = \"regtest\"\n"
	kafka := func(service string) string {
		return fmt.Sprintf("[kafka]\nbrokers = [%q]\n", s.Lines.lay(service, "kafka", s.Kafka.Addr))
	}
	database := func(service string) string {
		dsn := strings.Replace(s.DB.DSN, s.DB.Addr, s.Lines.lay(service, "database", s.DB.Addr), 1)
		return fmt.Sprintf("[database]\ndsn = %q\n", "mysql://"+dsn)
	}
	nodes := func(service string, more func(n Node) string) (text string) {
		for i, n := range s.Nodes {
			server := fmt.Sprint("node ", i)
			url := "http://" + s.Lines.lay(service, server, strings.TrimPrefix(n.URL, "http://"))
			text += fmt.Sprintf("[[nodes]]\nrpc_url = %q\nrpc_user = %q\nrpc_password = %q\n%s", url, n.User, n.Password, more(n))
		}
		return text
	}
	hashblock := func(n Node) string {
		if n.ZMQ == "" {
			return ""
		}
		return fmt.Sprintf("zmq_hashblock = %q\n", n.ZMQ)
	}
	difficulties := cmp.Or(s.Difficulties, "default_difficulty = 0.000244140625\nmin_difficulty = 0.00000001\nshare_interval = \"1s\"\n")
	soon := func(key, value string) string {
		if s.Unhurried {
			return ""
		}
		return fmt.Sprintf("%s = %q\n", key, value)
	}
	var give, take string // the two ends of the direct way
	if s.Direct {
		addr, token := testkit.FreeAddr(t), filepath.Join(dir, "handover.token")
		write(t, token, "known-to-sserver-and-blkmaker\n")
		give = fmt.Sprintf("[handover]\nurls = [%q]\ntoken_file = %q\n", "http://"+s.Lines.lay("sserver", "blkmaker", addr), token)
		take = fmt.Sprintf("[handover]\nlisten = %q\ntoken_file = %q\n", addr, token)
	}
	serverID, lease := 1, ""
	if s.ZooKeeper != nil {
		serverID = 0
		lease = fmt.Sprintf("[zookeeper]\nservers = [%q]\nsession_timeout = \"4s\"\n", s.Lines.lay("sserver", "zookeeper", s.ZooKeeper.Addr))
	}
	configs := map[string]string{
		"gbtmaker": network + fmt.Sprintf("data_dir = %q\n", filepath.Join(dir, "gbtmaker")) + kafka("gbtmaker") + nodes("gbtmaker", hashblock),
		"jobmaker": network + fmt.Sprintf("payout_address = %q\n", PayoutAddress) + kafka("jobmaker"),
		"sserver": fmt.Sprintf("listen = %q\ndata_dir = %q\nserver_id = %d\n", p.Stratum, filepath.Join(dir, "sserver"), serverID) +
			difficulties + give + kafka("sserver") + database("sserver") + lease,
		"blkmaker": network + fmt.Sprintf("data_dir = %q\n", filepath.Join(dir, "blkmaker")) + take +
			nodes("blkmaker", func(Node) string { return "" }) + kafka("blkmaker") + database("blkmaker"),
		"sharelogger": fmt.Sprintf("data_dir = %q\n", p.Log) + soon("flush_interval", "500ms") + kafka("sharelogger"),
		"slparser": network + fmt.Sprintf("data_dir = %q\nlisten = %q\n", p.Log, p.Stats[len("http://"):]) +
			soon("flush_db_interval", "1s") + database("slparser"),
		"statshttpd": fmt.Sprintf("listen = %q\nstratum_url = %q\n", p.HTTP[len("http://"):], "stratum+tcp://"+p.Stratum) +
			soon("flush_db_interval", "1s") + kafka("statshttpd") + database("statshttpd"),
	}
	if s.MaxWorkers != 0 {
		configs["statshttpd"] = fmt.Sprintf("max_workers = %d\n", s.MaxWorkers) + configs["statshttpd"]
	}
	if s.SubPool != "" {
		configs["jobmaker"] += fmt.Sprintf("[[sub_pools]]\nname = \"guests\"\npayout_address = %q\ncoinbase_text = \"/guests/\"\n", s.SubPool)
		configs["sserver"] += "[sub_pool]\nname = \"guests\"\next_user_id = -5\n"
	}
	if s.Aux != nil {
		login := fmt.Sprintf("name = \"aux\"\nrpc_url = %q\nrpc_user = \"user\"\nrpc_password = \"secret\"\n", s.Aux.URL())
		configs["auxmaker"] = "poll_interval = \"250ms\"\n" + kafka("auxmaker") + "[[chains]]\npayout_address = \"anybody\"\n" + login
		configs["jobmaker"] += "[kafka.topics]\naux_work = \"AuxPowBlock\"\n"
		configs["blkmaker"] += "[[aux_nodes]]\n" + login
		p.Names = append(p.Names, "auxmaker")
	}
	if s.Watched != "" {
		n := s.Nodes[0]
		configs["poolwatcher"] = network + kafka("poolwatcher") + fmt.Sprintf("[[pools]]\nname = \"other\"\naddr = %q\nuser = \"us.watcher\"\n", s.Watched) +
			fmt.Sprintf("[node]\nrpc_url = %q\nrpc_user = %q\nrpc_password = %q\n", n.URL, n.User, n.Password)
		p.Names = append(p.Names, "poolwatcher")
	}
	if s.Farm {
		p.Farm = testkit.FreeAddr(t)
		configs["agentproxy"] = fmt.Sprintf("page = \"\"\n[[listeners]]\nlisten = %q\n[[pools]]\naddr = %q\naccount = \"farm\"\n", p.Farm, p.Stratum)
		p.Names = append(p.Names, "agentproxy")
	}
	if s.Only != nil {
		p.Names = s.Only
	}
	for service, text := range configs {
		if !slices.Contains(p.Names, service) {
			continue
		}
		p.admin[service] = testkit.FreeAddr(t)
		text = fmt.Sprintf("admin = %q\n", p.admin[service]) + text
		var within []string
		if service == "sserver" {
			within = s.confinement(t, dir)
		}
		p.services[service] = startService(t, dir, service, s.program(t, service), s.Clocks[service], text, within...)
	}
	for _, service := range p.Names {
		p.WaitReady(t, service)
	}
	return p
}

// program returns the path of a service's program.
func (s Setup) program(t testing.TB, service string) string {
	t.Helper()
	if s.Release != nil {
		return s.Release.Program(service)
	}
	return binWith(t, service, s.Clocks[service] != nil)
}

// confinement returns the command that confines sserver, which follows it, to what s gives it.
func (s Setup) confinement(t testing.TB, dir string) (command []string) {
	t.Helper()
	if s.OpenFiles > 0 {
		command = append(command, "prlimit", fmt.Sprintf("--nofile=%d:%d", s.OpenFiles, s.OpenFiles))
	}
	if s.DiskBytes > 0 {
		data := filepath.Join(dir, "sserver")
		if err := os.Mkdir(data, 0o750); err != nil {
			t.Fatal(err)
		}
		const mount = `mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"`
		command = append(command, "unshare", "--map-root-user", "--mount", "sh", "-c", mount, fmt.Sprint(s.DiskBytes), data)
	}
	return command
}

// StartSingle starts the whole pool as one process on a real node, everything else embedded, of a release or, if that
// is nil, of this tree.
func StartSingle(t testing.TB, dir string, node *Btcd, of *Release) *Pool {
	t.Helper()
	p := &Pool{
		Stratum:  testkit.FreeAddr(t),
		HTTP:     "http://" + testkit.FreeAddr(t),
		Log:      filepath.Join(dir, "data", "regtest", "sharelog"),
		services: map[string]*Process{},
		admin:    map[string]string{"btcpool": testkit.FreeAddr(t)},
	}
	password := filepath.Join(dir, "password")
	write(t, password, node.Password+"\n")
	p.services["btcpool"] = start(t, dir, "btcpool", Setup{Release: of}.program(t, "btcpool"), []string{"BTCPOOL_ADMIN=" + p.admin["btcpool"]},
		"-network", "regtest", "-payout", PayoutAddress, "-node", node.URL, "-node-user", node.User, "-node-password-file", password,
		"-data", filepath.Join(dir, "data"), "-stratum", p.Stratum, "-http", p.HTTP[len("http://"):])
	p.WaitReady(t, "btcpool")
	return p
}

// Service is the process of a service.
func (p *Pool) Service(name string) *Process { return p.services[name] }

// Once runs a service's program with its configuration and more arguments, to its end. It returns the exit code and
// what it printed.
func (p *Pool) Once(t testing.TB, service string, args ...string) (code int, printed string) {
	t.Helper()
	of := p.services[service]
	cmd := exec.CommandContext(t.Context(), of.path, append(slices.Clone(of.args), args...)...)
	cmd.Env = append(os.Environ(), of.env...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// WaitReady waits until the service says that it can work.
func (p *Pool) WaitReady(t testing.TB, service string) {
	t.Helper()
	testkit.Until(t, 3*time.Minute, service+" is ready", func(ctx context.Context) error {
		if p.services[service].Exited() {
			t.Fatalf("%s ended by itself", service)
		}
		return p.Ready(ctx, service)
	})
}

// Ready returns what keeps the service from working, as it says itself.
func (p *Pool) Ready(ctx context.Context, service string) error {
	_, err := get(ctx, "http://"+p.admin[service]+"/readyz")
	return err
}

// Get asks the HTTP API and decodes its answer.
func (p *Pool) Get(ctx context.Context, path string, answer any) error {
	return p.get(ctx, p.HTTP+path, answer)
}

// GetStats asks slparser and decodes its answer.
func (p *Pool) GetStats(ctx context.Context, path string, answer any) error {
	return p.get(ctx, p.Stats+path, answer)
}

func (p *Pool) get(ctx context.Context, url string, answer any) error {
	body, err := get(ctx, url)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

// Metrics returns a service's metrics page.
func (p *Pool) Metrics(ctx context.Context, service string) (string, error) {
	body, err := get(ctx, "http://"+p.admin[service]+"/metrics")
	return string(body), err
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return body, err
}

// Ack is a share that the pool acknowledged as accepted, as minersim writes it down.
type Ack struct {
	Session     string `json:"session"` // extranonce1
	Extranonce2 string `json:"extranonce2"`
	Time        uint32 `json:"ntime"`
	Nonce       uint32 `json:"nonce"`
	VersionBits uint32 `json:"version_bits"`
	User        string `json:"user"`
}

// Mined is what minersim reports at its end.
type Mined struct {
	Submitted  int64 `json:"submitted"`
	Accepted   int64 `json:"accepted"`
	Rejected   int64 `json:"rejected"`
	Unanswered int64 `json:"unanswered"`
	Reconnects int64 `json:"reconnects"`
	Latency    struct {
		Notify, Submit struct{ P50, P99, Max float64 }
	} `json:"latency_ms"`
	RejectedBy []struct {
		Code  int   `json:"code"`
		Count int64 `json:"count"`
	} `json:"rejected_by"`
}

// Refused counts the rejected shares but for those that a new block outran on their way (code 21).
func (m *Mined) Refused() int64 {
	n := m.Rejected
	for _, r := range m.RejectedBy {
		if r.Code == 21 {
			n -= r.Count
		}
	}
	return n
}

// Miner is a running minersim.
type Miner struct {
	*Process
	acks string
}

// StartFarmMiner is StartMiner at the farm proxy.
func (p *Pool) StartFarmMiner(t testing.TB, dir, name string, args ...string) *Miner {
	t.Helper()
	return (&Pool{Stratum: p.Farm, clocks: p.clocks}).StartMiner(t, dir, name, args...)
}

// StartMiner starts minersim with the arguments given besides address, ledger and report.
func (p *Pool) StartMiner(t testing.TB, dir, name string, args ...string) *Miner {
	t.Helper()
	m := &Miner{acks: filepath.Join(dir, name+".acks")}
	args = append([]string{"-url", "stratum+tcp://" + p.Stratum, "-acks", m.acks, "-json"}, args...)
	m.Process = &Process{
		Name: name, path: binWith(t, "minersim", p.clocks), args: args,
		log: filepath.Join(dir, name+".log"), out: filepath.Join(dir, name+".json"),
	}
	m.run(t)
	return m
}

// Report is what the miner said at its end.
func (m *Miner) Report() (r Mined) {
	m.t.Helper()
	text, err := os.ReadFile(m.out)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		m.t.Fatalf("report of %s: %v", m.Name, err)
	}
	return r
}

// Acks reads the ledger so far.
func (m *Miner) Acks() (acks []Ack) {
	m.t.Helper()
	text, err := os.ReadFile(m.acks)
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		var a Ack
		if err := json.Unmarshal(line, &a); err != nil {
			m.t.Fatalf("%s: %v", m.acks, err)
		}
		acks = append(acks, a)
	}
	return acks
}
