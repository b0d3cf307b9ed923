//go:build integration

package load

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"btcpool/internal/bitcoin"
	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/share"
	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

var recordingPath = flag.String("recording", "", "`file` for what TestPipeline scrapes; empty: a temporary one")

// published is what btcpool's README has of 100,000 connections on six machines, without the rate of shares: processor
// in percent of a core, resident memory in MB. Its two sservers had half of the connections each.
var published = map[string]string{
	"gbtmaker": "0.3 %, 8 MB", "jobmaker": "1.3 %, 91 MB", "sserver": "2 × 49.0 %, 528 MB", "blkmaker": "3.3 %, 221 MB",
	"sharelogger": "1.7 %, 7 MB", "slparser": "1.3 %, 124 MB", "statshttpd": "3.3 %, 373 MB", "Kafka": "3 × 18.0 %, 1,237 MB",
	"MariaDB": "17 % of 4 cores, 86 % of 8 GB",
}

// TestPipeline has minersim mine on the whole pool, every service a process of its own as it is by default, on Kafka,
// MariaDB and a node whose blocks take -block on average. Meanwhile all is scraped as Prometheus would; deploy/check
// then judges the alerts and the dashboards by that. What was acknowledged must be in the share log, what that says in
// the tables and the API, and every block of the chain in found_blocks. It prints what each process took:
//
//	go test -tags integration -v -timeout 2h ./test/load -run TestPipeline -connections 10000 -time 30m -rate 1000 -block 1m
func TestPipeline(t *testing.T) {
	const difficulty bitcoin.Difficulty = -26 // 64 hashes: minersim takes little of the processor
	needFiles(t)
	dir := t.TempDir()
	kafka, db := rig.StartKafka(t, dir), rig.StartMariaDB(t, dir)
	node, nodePid := startNode(t, *rate*hashes(difficulty)*block.Seconds())
	began := time.Now()
	pool := rig.Setup{
		Kafka: kafka, DB: db, Nodes: []rig.Node{node}, Direct: true,
		Difficulties: difficulties(difficulty, difficulty, difficulty), Unhurried: true,
	}.Start(t, dir)
	r := newRecorder(t, pool)

	each := *rate / float64(*connections)
	miner := pool.StartMiner(t, dir, "minersim", "-user", "load.%d", "-conns", strconv.Itoa(*connections), "-threads", "1",
		"-rate", fmt.Sprint(each), "-ramp", (time.Duration(*connections) * time.Millisecond).String(), "-reconnect")
	processes := []process{{"minersim", miner.Pid()}, {"node", nodePid}, {"Kafka", kafka.Pid()}, {"MariaDB", db.Pid()}}
	for _, service := range pool.Names {
		processes = append(processes, process{service, pool.Service(service).Pid()})
	}
	testkit.Until(t, 5*time.Minute, "all miners are authorized", func(ctx context.Context) error {
		n, err := metric(ctx, pool, "sserver", `btcpool_sserver_sessions\{.*state="authorized".*\}`)
		if err == nil && int(n) < *connections {
			err = fmt.Errorf("%.0f are", n)
		}
		return err
	})
	stopRecording := testkit.Run(t, r.run)
	first := measured(t, processes)
	hold(t, *duration)
	last := measured(t, processes)
	testkit.Until(t, time.Minute, "all workers are online", func(ctx context.Context) error {
		n, err := metric(ctx, pool, "statshttpd", `btcpool_statshttpd_workers_online\{.*\}`)
		if err == nil && int(n) != *connections {
			err = fmt.Errorf("%.0f are", n)
		}
		return err
	})
	testkit.Until(t, 5*time.Minute+20**block, "blocks are found", func(ctx context.Context) error {
		n, err := metric(ctx, pool, "blkmaker", `btcpool_blkmaker_solved_shares_total\{result="accepted",.*\}`)
		if err == nil && n < 3 {
			err = fmt.Errorf("%.0f are", n)
		}
		return err
	})
	stopRecording()
	if code, err := miner.Stop(); err != nil || code != 0 {
		t.Errorf("minersim ended with code %d, %v", code, err)
	}
	first.print(t, last, miner.Report())
	comparePipeline(t, pool, db, node, miner, began)
	r.judge(t)
}

// comparePipeline holds the share log against what minersim was told, and tables, API and counters against the log and
// the chain.
func comparePipeline(t *testing.T, pool *rig.Pool, db *rig.MariaDB, node rig.Node, miner *rig.Miner, began time.Time) {
	t.Helper()
	var ledger rig.Ledger
	report := miner.Report()
	ledger.Add(miner.Acks(), report.Unanswered)
	if int64(ledger.Acknowledged) != report.Accepted || report.Accepted == 0 || report.Refused() > 0 || report.Reconnects > 0 {
		t.Errorf("minersim: %d acknowledged in its ledger, %+v", ledger.Acknowledged, report)
	}
	testkit.Until(t, 10*time.Minute, "the spools are empty", func(ctx context.Context) error {
		n, err := metric(ctx, pool, "sserver", `btcpool_spool_depth_records\{.*\}`)
		if err == nil && n > 0 {
			err = fmt.Errorf("%.0f records are left", n)
		}
		return err
	})
	client, err := noderpc.New(noderpc.Config{URL: node.URL, User: node.User, Password: node.Password})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn := db.Open(t)
	var blocks int32
	log := pool.WaitLog(t, 10*time.Minute, "log, tables, API, chain and counters agree", func(ctx context.Context, log []share.Share) (err error) {
		if err := ledger.Compare(log); err != nil {
			return err
		}
		if err := rig.CompareStatistics(ctx, conn, log); err != nil {
			return err
		}
		if time.Since(began) < 55*time.Minute {
			if err := pool.CompareLive(ctx, log); err != nil {
				return err
			}
		}
		if blocks, err = rig.CompareBlocks(ctx, conn, client, nil); err != nil {
			return err
		}
		return compareCounters(ctx, pool, log, blocks)
	})
	t.Logf("%s; the log and the tables have them once, and %d refused ones", ledger.String(), len(log)-ledger.Acknowledged)
	t.Logf("%d blocks on the chain, each with its row", blocks)
}

// compareCounters says how what the dashboards show differs from what there is.
func compareCounters(ctx context.Context, pool *rig.Pool, log []share.Share, blocks int32) error {
	accepted := 0
	for i := range log {
		if log[i].Status == share.StatusAccept {
			accepted++
		}
	}
	for _, c := range []struct {
		service, series string
		want            int
	}{
		{"sserver", `btcpool_sserver_shares_total\{code="0",.*\}`, accepted},
		{"sharelogger", `btcpool_sharelogger_shares_written_total\{.*\}`, len(log)},
		{"slparser", `btcpool_slparser_shares_total\{.*\}`, len(log)},
		{"statshttpd", `btcpool_statshttpd_shares_total\{result="accepted",.*\}`, accepted},
		{"blkmaker", `btcpool_blkmaker_solved_shares_total\{result="accepted",.*\}`, int(blocks)},
	} {
		got, err := metric(ctx, pool, c.service, c.series)
		if err == nil && int(got) != c.want {
			err = fmt.Errorf("%s counts %.0f as %s, want %d", c.service, got, c.series, c.want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// metric sums up the values of the series of a service's page that a pattern describes.
func metric(ctx context.Context, pool *rig.Pool, service, series string) (sum float64, err error) {
	page, err := pool.Metrics(ctx, service)
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^`+series+` (\S+)$`).FindAllStringSubmatch(page, -1)
	if found == nil {
		return 0, errors.New(service + " does not tell " + series)
	}
	for _, m := range found {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

type process struct {
	name string
	pid  int
}

// measurement is what processes have taken by some time.
type measurement struct {
	at        time.Time
	processes []process
	usages    []usage
	busy      time.Duration // of all cores, whatever works on them
}

func measured(t *testing.T, processes []process) measurement {
	t.Helper()
	m := measurement{at: time.Now(), processes: processes, busy: busy(t)}
	for _, p := range processes {
		m.usages = append(m.usages, usageOf(t, p.pid))
	}
	return m
}

// busy is for how long cores of the machine have not been idle since it started.
func busy(t *testing.T) (sum time.Duration) {
	t.Helper()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, text := range strings.Fields(line)[1:9] { // user nice system idle iowait irq softirq steal
		const idle, iowait = 3, 4
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		if i != idle && i != iowait {
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// print writes the table of docs/performance.md.
func (m measurement) print(t *testing.T, last measurement, report rig.Mined) {
	span := last.at.Sub(m.at).Seconds()
	w := tabwriter.NewWriter(t.Output(), 0, 0, 1, ' ', 0)
	fmt.Fprintf(w, "| %d connections, %.0f shares/s, %s\t| cores\t| memory at most\t| btcpool, 100,000 connections on six machines\t|\n", *connections, *rate, *duration)
	fmt.Fprint(w, "| ---\t| ---\t| ---\t| ---\t|\n")
	all := 0.0
	for i, p := range m.processes {
		cores := (last.usages[i].User + last.usages[i].System - m.usages[i].User - m.usages[i].System).Seconds() / span
		all += cores
		fmt.Fprintf(w, "| %s\t| %.4f\t| %.0f MB\t| %s\t|\n", p.name, cores, float64(last.usages[i].Peak)/1e6, published[p.name])
	}
	fmt.Fprintf(w, "| all\t| %.2f\t| \t| \t|\n", all)
	fmt.Fprintf(w, "| the machine\t| %.2f\t| \t| \t|\n", (last.busy-m.busy).Seconds()/span)
	w.Flush()
	t.Logf("%d shares submitted, %d accepted, %d rejected, %d unanswered, %d reconnects; answers p50 %.1f ms, p99 %.1f ms, longest %.0f ms; a job to p99 of miners %.0f ms",
		report.Submitted, report.Accepted, report.Rejected, report.Unanswered, report.Reconnects,
		report.Latency.Submit.P50, report.Latency.Submit.P99, report.Latency.Submit.Max, report.Latency.Notify.P99)
}

// recorder keeps what Prometheus would scrape: before each page a line with job, instance and time in milliseconds. A
// service that does not answer has an empty page.
type recorder struct {
	pool *rig.Pool
	file *os.File
}

func newRecorder(t *testing.T, pool *rig.Pool) *recorder {
	t.Helper()
	path := *recordingPath
	if path == "" {
		path = filepath.Join(t.TempDir(), "recording")
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &recorder{pool, file}
}

// run scrapes as often as deploy/prometheus/prometheus.yml says, or so that a short test has some, and looks at the
// dashboard as often.
func (r *recorder) run(ctx context.Context) error {
	every := time.NewTicker(min(15*time.Second, *duration/20))
	defer every.Stop()
	for {
		now := time.Now().UnixMilli()
		for _, service := range r.pool.Names {
			page, err := r.pool.Metrics(ctx, service)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				page = ""
			}
			if _, err := fmt.Fprintf(r.file, "# scrape %s %s %d\n%s", service, service, now, page); err != nil {
				return err
			}
		}
		for _, path := range []string{"pool", "pool/history", "users", "blocks"} {
			var answer json.RawMessage
			if err := r.pool.Get(ctx, "/api/v1/"+path, &answer); err != nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
	}
}

// judge has Prometheus' engine say which alerts had fired, and what the dashboards show.
func (r *recorder) judge(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run", "^TestRecording$", ".", "-args", "-recording", r.file.Name())
	cmd.Dir = filepath.Join(rig.Root(t), "deploy", "check")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("alerts and dashboards: %v", err)
	}
}
