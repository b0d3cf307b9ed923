//go:build integration

package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"golang.org/x/sys/unix"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bus"
	"btcpool/internal/job"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// pool is a real sserver on a real Kafka, with jobs made here.
type pool struct {
	addr   netip.AddrPort
	admin  string
	file   string // its configuration
	log    string // a file
	config bus.Config
	bus    *bus.Client
	kafka  *rig.Kafka
	cmd    *exec.Cmd
	ids    *job.IDs
	height int32
	prev   chainhash.Hash
}

// startPool starts both; text is added to sserver's configuration, before its sections.
func startPool(t *testing.T, text string) *pool {
	t.Helper()
	return startPoolOf(t, *sserver, text)
}

// startPoolOf is startPool with another program; "": the project's.
func startPoolOf(t *testing.T, program, text string) *pool {
	t.Helper()
	needFiles(t)
	dir := t.TempDir()
	p := &pool{
		addr:   netip.MustParseAddrPort(testkit.FreeAddr(t)),
		admin:  testkit.FreeAddr(t),
		config: bus.DefaultConfig(),
		ids:    job.NewIDs(1),
		height: 900_000,
	}
	p.kafka = rig.StartKafka(t, dir)
	p.config.Brokers = []string{p.kafka.Addr}
	p.bus = testkit.Bus(t, p.config, p.config.Topics.Job)

	config := filepath.Join(dir, "sserver.toml")
	p.file, p.log = config, filepath.Join(dir, "sserver.log")
	if err := os.WriteFile(config, fmt.Appendf(nil, "listen = %q\nadmin = %q\ndata_dir = %q\n%s\n"+
		"[users]\nsource = \"static\"\n[users.static]\nminer = 1\n[kafka]\nbrokers = [%q]\n",
		p.addr, p.admin, filepath.Join(dir, "sserver"), text, p.config.Brokers[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if program == "" {
		program = rig.Bin(t, "sserver")
	}
	p.start(t, program)
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait() // killed
		}
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("sserver:\n%s", text[max(0, len(text)-4<<10):])
		}
	})
	testkit.Until(t, time.Minute, "sserver has a job", func(ctx context.Context) error {
		p.newBlock(t)
		_, err := p.get(ctx, "/readyz")
		return err
	})
	return p
}

// start starts sserver.
func (p *pool) start(t *testing.T, program string) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(program, "-config", p.file)
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// needFiles fails the test when a process may not open as many sockets as there are to be.
func needFiles(t *testing.T) {
	t.Helper()
	const others = 300 // of sserver: files, Kafka, the metrics page
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(*connections + *intruders + others); limit.Max < need {
		t.Fatalf("the limit of open files (ulimit -Hn) is %d: must be at least %d", limit.Max, need)
	}
}

// newBlock publishes a job on a new block, newJob another one on the same. Both return the moment before, by the
// monotonic clock.
func (p *pool) newBlock(t *testing.T) int64 {
	t.Helper()
	p.height++
	for i := range p.prev[:24] { // what remains are the zeros of proof of work
		p.prev[i] = byte(rand.Uint32())
	}
	return p.newJob(t)
}

// newJob makes what is usual of a full block: 12 branches, a coinbase of 250 bytes. Miners get it at once.
func (p *pool) newJob(t *testing.T) int64 {
	t.Helper()
	j := job.StratumJob{
		ID:                p.ids.Next(time.Now()),
		GBTHash:           chainhash.Hash{}.String(),
		PrevHash:          p.prev,
		Height:            p.height,
		Coinbase1:         make([]byte, 60),
		Coinbase2:         make([]byte, 250-60-job.ExtranonceSize),
		MerkleBranch:      make([]chainhash.Hash, 12),
		Version:           0x20000000,
		Bits:              0x1703a30c,
		Time:              uint32(time.Now().Unix()),
		MergedMiningClean: true,
	}
	for i := range j.MerkleBranch {
		binary.LittleEndian.PutUint64(j.MerkleBranch[i][:], rand.Uint64())
	}
	text := j.AppendTo(nil)
	at := monotonic()
	if err := p.bus.Write(t.Context(), p.config.Topics.Job, bus.Message{Value: text}); err != nil {
		t.Fatal(err)
	}
	return at
}

// stop has sserver drain what is in its spool.
func (p *pool) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("sserver did not end well: %v", err)
	}
}

// verify holds the share topic against the ledger of the miners: each accepted share is in it once, and no more were
// credited than were left without an answer. It returns how many records were sent again, which their readers drop: a
// process that is killed leaves some that may have been sent.
func (p *pool) verify(t *testing.T, m *helper) (again int64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ledger")
	said := ask[tally](t, m, order{Do: "ledger", File: file})
	ledger, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	topic := make([]byte, len(ledger))
	var credited, twice, unanswered int64
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	whole := false
	known := map[share.ID]bool{}
	err = p.bus.Read(ctx, p.config.Topics.Share, bus.Earliest(), func(msg bus.Message) error {
		var s share.Share
		if err := s.Parse(msg.Value); err != nil {
			return err
		}
		if s.Status != share.StatusAccept {
			return nil
		}
		if known[s.ID] {
			again++
			return nil
		}
		known[s.ID] = true
		for int(s.Nonce/8) >= len(topic) {
			topic = append(topic, make([]byte, len(topic)+1)...)
		}
		if topic[s.Nonce/8]&(1<<(s.Nonce%8)) != 0 {
			twice++
		}
		topic[s.Nonce/8] |= 1 << (s.Nonce % 8)
		credited++
		return nil
	}, bus.CaughtUp(func() {
		whole = true
		cancel()
	}))
	if err != nil || !whole {
		t.Fatalf("share topic: whole %v, %v", whole, err)
	}
	missing := int64(0)
	for i, b := range topic {
		var accepted byte
		if i < len(ledger) {
			accepted = ledger[i]
		}
		missing += count(accepted &^ b)
		unanswered += count(b &^ accepted)
	}
	left := said.Submitted - said.Accepted - said.Unlucky - said.Stale
	for _, n := range said.Refused {
		left -= n
	}
	t.Logf("%d shares accepted by answer, %d credited in the topic: %d missing, %d twice, %d credited of %d left unanswered, %d sent again",
		said.Accepted, credited, missing, twice, unanswered, left, again)
	if missing != 0 || twice != 0 || unanswered > left || said.Accepted == 0 {
		t.Error("the share topic is not what the miners were told")
	}
	return again
}

func count(b byte) (n int64) {
	for ; b != 0; b &= b - 1 {
		n++
	}
	return n
}

// sent waits until Kafka has what is in the spools.
func (p *pool) sent(t *testing.T) {
	t.Helper()
	testkit.Until(t, 5*time.Minute, "the spools are empty", func(context.Context) error {
		if n := p.metrics(t)["btcpool_spool_depth_records"]; n > 0 {
			return fmt.Errorf("%.0f records are left", n)
		}
		return nil
	})
}

// usage is what a process has taken so far and holds now.
type usage struct {
	User, System time.Duration
	RSS, Peak    int64 // bytes; the peak since resetPeak
	Descriptors  int
}

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on
	const tick = 10 * time.Millisecond
	for i, d := range []*time.Duration{&u.User, &u.System} {
		n, err := strconv.Atoi(fields[14-3+i])
		if err != nil {
			t.Fatal(err)
		}
		*d = time.Duration(n) * tick
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		for key, value := range map[string]*int64{"VmRSS:": &u.RSS, "VmHWM:": &u.Peak} {
			if text, ok := strings.CutPrefix(line, key); ok {
				if _, err := fmt.Sscanf(text, "%d kB", value); err != nil {
					t.Fatal(err)
				}
				*value <<= 10
			}
		}
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.Descriptors = len(descriptors)
	return u
}

func (p *pool) usage(t *testing.T) usage { return usageOf(t, p.cmd.Process.Pid) }

func (p *pool) resetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Logf("peaks are those of the whole run: %v", err)
	}
}

// metrics are the values of sserver's metrics page by name, those with labels summed up.
func (p *pool) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	page, err := p.get(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for line := range strings.Lines(page) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.IndexByte(line, '}'); i >= 0 {
			name, value, ok = line[:strings.IndexByte(line, '{')], strings.TrimSpace(line[i+1:]), true
		}
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] += v
		}
	}
	return values
}

// A connection for each question: one that is kept would count among sserver's goroutines.
var web = http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

func (p *pool) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.admin+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// helper is a helper process of the test.
type helper struct {
	pid int
	in  *json.Encoder
	out *json.Decoder
}

// start runs this program as the helper called role, until the test ends, behind a command that runs the rest of its
// arguments, if there is one.
func start(t *testing.T, role string, within ...string) *helper {
	t.Helper()
	words := append(within, os.Args[0])
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, out := startPiped(t, role, cmd)
	return &helper{cmd.Process.Pid, json.NewEncoder(in), json.NewDecoder(out)}
}

// startPiped starts a program that ends with its standard input, which is closed when the test ends.
func startPiped(t *testing.T, name string, cmd *exec.Cmd) (in io.Writer, out io.Reader) {
	t.Helper()
	to, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		to.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return to, out
}

// ask gives an order and returns the answer.
func ask[T any](t *testing.T, h *helper, o order) (answer T) {
	t.Helper()
	if err := h.in.Encode(o); err != nil {
		t.Fatalf("%s: %v", o.Do, err)
	}
	if err := h.out.Decode(&answer); err != nil {
		t.Fatalf("%s: %v", o.Do, err)
	}
	return answer
}

// connect has n miners authorized at addr, with a job unless it is the bare server, and returns how long that took
// until the last login.
func connect(t *testing.T, m *helper, addr netip.AddrPort, n int, kind string) time.Duration {
	t.Helper()
	begin := monotonic()
	network := networkApart
	if addr.Addr().IsLoopback() {
		network = "127.1"
	}
	ask[tally](t, m, order{Do: "connect", Addr: addr, Connections: n, Network: network, Sources: 100, Kind: kind})
	var got tally
	testkit.Until(t, 5*time.Minute, "all miners are authorized", func(context.Context) error {
		got = ask[tally](t, m, order{Do: "report"})
		if got.Authorized < n || kind == "" && got.WithJob < n {
			return fmt.Errorf("%d of %d are, %d have a job", got.Authorized, n, got.WithJob)
		}
		return nil
	})
	return time.Duration(got.LastAuthorized - begin)
}

// rest ends a load and waits until all shares are answered.
func rest(t *testing.T, m *helper) {
	t.Helper()
	ask[tally](t, m, order{Do: "rest"})
	testkit.Until(t, time.Minute, "all shares are answered", func(context.Context) error {
		if got := ask[tally](t, m, order{Do: "report"}); got.Waiting > 0 {
			return fmt.Errorf("%d are not", got.Waiting)
		}
		return nil
	})
}

// difficulties is the part of a configuration that says where they start and what their bounds are.
func difficulties(start, least, most bitcoin.Difficulty) string {
	return fmt.Sprintf("default_difficulty = %v\nmin_difficulty = %v\nmax_difficulty = %v\n", start, least, most)
}

// noHashing is a configuration in which practically every nonce is a share.
func noHashing() string {
	return difficulties(bitcoin.MinDifficulty, bitcoin.MinDifficulty, bitcoin.MinDifficulty)
}
