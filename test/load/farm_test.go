//go:build integration

package load

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"btcpool/internal/testkit"
	"btcpool/test/integration/rig"
)

// jobEvery is how often the farm gets a job while its traffic is counted.
const jobEvery = 30 * time.Second

// TestFarm has all miners behind an agentproxy, and measures what that takes and what is on the line to the pool; it
// fails when a share is lost or counted twice, or a miner is lost.
func TestFarm(t *testing.T) {
	for _, way := range []struct {
		name, pool, proxy string
		verify            bool
		check, tls        bool
	}{
		{name: "batches", verify: true},
		{name: "checked batches", verify: true, check: true},
		{name: "batches by TLS", proxy: "tls = true\ntls_skip_verify = true\n", verify: true, tls: true},
		{name: "old frames", pool: "[development]\nsimulator = true\n", proxy: "no_extensions = true\n"},
	} {
		t.Run(way.name, func(t *testing.T) {
			text, secret := noHashing()+way.pool, netip.MustParseAddrPort(testkit.FreeAddr(t))
			if way.tls {
				text += secretListener(t, secret)
			}
			p := startPool(t, text)
			m := start(t, "miners")
			direct := p.answers(t, m)
			if way.tls {
				p.addr = secret
			}
			x := startProxy(t, p, fmt.Sprintf("pool_verdicts = %v\ncheck_shares = %v\n", way.verify, way.check), way.proxy)
			took := connect(t, m, x.addr, *connections, "")
			idle := x.usage(t)
			t.Logf("%d miners connected in %s, %.1f MB", *connections, short(took), float64(idle.RSS)/1e6)

			ask[tally](t, m, order{Do: "pace", Rate: *rate})
			hold(t, *duration/4)
			said := ask[tally](t, m, order{Do: "report"})
			before, traffic, begin := x.usage(t), lineOf(t, p.addr), time.Now()
			for end := begin.Add(*duration); time.Now().Before(end); {
				p.newJob(t)
				hold(t, min(jobEvery, time.Until(end)+time.Millisecond))
			}
			after, total, span := x.usage(t), lineOf(t, p.addr), time.Since(begin)
			submitted := said.Submitted
			said = ask[tally](t, m, order{Do: "report"})
			cpu := (after.User + after.System - before.User - before.System).Seconds() / span.Seconds()
			kbit := func(n int64) float64 { return float64(n) * 8 / 1000 / span.Seconds() }
			t.Logf("%.0f shares/s: up %.0f kbit/s with headers, %.0f without; down %.1f kbit/s with headers, %.1f without; %.3f cores, %.1f MB",
				float64(said.Submitted-submitted)/span.Seconds(), kbit(total.up-traffic.up), kbit(total.upPayload-traffic.upPayload),
				kbit(total.down-traffic.down), kbit(total.downPayload-traffic.downPayload), cpu, float64(after.RSS)/1e6)
			t.Logf("answers p50 %s, p99 %s, longest %s; without proxy p50 %s, p99 %s: it adds %s and %s",
				short(said.P50), short(said.P99), short(said.Longest), short(direct.P50), short(direct.P99),
				short(said.P50-direct.P50), short(said.P99-direct.P99))

			var ways []time.Duration
			for range *rounds {
				ask[tally](t, m, order{Do: "watch"})
				at := p.newBlock(t)
				f := &figures{t: t, n: *connections}
				got := f.arrived(m)
				ways = append(ways, time.Duration(got.ArrivedP99-at))
			}
			t.Logf("new block to p99 of miners, median of %d: %s", *rounds, short(median(ways)))
			rest(t, m)
			if said := ask[tally](t, m, order{Do: "report"}); said.Disconnects > 0 || len(said.Refused) > 0 {
				t.Errorf("%d disconnected, refused: %v", said.Disconnects, said.Refused)
			}
			ask[tally](t, m, order{Do: "leave"})
			if way.verify {
				p.stop(t)
				p.verify(t, m)
			}
		})
	}
}

// answers has all miners at the pool itself for a while, at the same pace, and returns how long it takes to answer.
func (p *pool) answers(t *testing.T, m *helper) tally {
	t.Helper()
	connect(t, m, p.addr, *connections, "")
	ask[tally](t, m, order{Do: "pace", Rate: *rate})
	hold(t, *duration/4)
	ask[tally](t, m, order{Do: "report"}) // those after it are measured
	hold(t, *duration/4)
	said := ask[tally](t, m, order{Do: "report"})
	rest(t, m)
	ask[tally](t, m, order{Do: "leave"})
	return said
}

// TestIdleFarm has machines connected to an agentproxy that find nothing, and measures what they take there. A process
// may have 20,000 descriptors on many machines; agentproxy's TestAsManyMinersAsThereAreNumbers has 65,535 without
// sockets.
func TestIdleFarm(t *testing.T) {
	p := startPool(t, noHashing())
	x := startProxy(t, p, "", "")
	m := start(t, "miners")
	empty := x.usage(t)
	took := connect(t, m, x.addr, *connections, "")
	for range liveJobs {
		ask[tally](t, m, order{Do: "watch"})
		p.newJob(t)
		f := &figures{t: t, n: *connections}
		f.arrived(m)
	}
	full := x.usage(t)
	each := float64(full.RSS-empty.RSS) / float64(*connections)
	t.Logf("%d miners connected in %s: %.1f MB, %.1f without them, %.0f bytes each: %.0f MB for 65,000", *connections, short(took),
		float64(full.RSS)/1e6, float64(empty.RSS)/1e6, each, (float64(empty.RSS)+65_000*each)/1e6)
	hold(t, *duration)
	if said := ask[tally](t, m, order{Do: "report"}); said.Disconnects > 0 || said.Authorized != *connections {
		t.Errorf("%d disconnected, %d are left", said.Disconnects, said.Authorized)
	}
	later := x.usage(t)
	t.Logf("after %s: %.1f MB, %.3f cores", *duration, float64(later.RSS)/1e6,
		(later.User+later.System-full.User-full.System).Seconds()/duration.Seconds())
	ask[tally](t, m, order{Do: "leave"})
}

// secretListener is a configuration that has miners connect by TLS.
func secretListener(t *testing.T, addr netip.AddrPort) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	testkit.Certificate(t, cert, key)
	return fmt.Sprintf("[[listeners]]\nlisten = %q\ntls_cert_file = %q\ntls_key_file = %q\n", addr, cert, key)
}

// farmProxy is an agentproxy as a process.
type farmProxy struct {
	addr netip.AddrPort
	cmd  *exec.Cmd
}

func startProxy(t *testing.T, p *pool, text, ofPool string) *farmProxy {
	t.Helper()
	x := &farmProxy{addr: netip.MustParseAddrPort(testkit.FreeAddr(t))}
	admin := testkit.FreeAddr(t)
	config := filepath.Join(t.TempDir(), "agentproxy.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "admin = %q\npage = \"\"\n%s[[listeners]]\nlisten = %q\n[[pools]]\naddr = %q\naccount = \"miner\"\n%s",
		admin, text, x.addr, p.addr, ofPool), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	x.cmd = exec.Command(rig.Bin(t, "agentproxy"), "-config", config)
	x.cmd.Stderr = &log
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = x.cmd.Process.Signal(os.Interrupt)
		if err := x.cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("agentproxy: %v\n%s", err, log.Bytes()[max(0, log.Len()-4<<10):])
		}
	})
	testkit.Until(t, time.Minute, "agentproxy is ready", func(ctx context.Context) error {
		page := pool{admin: admin}
		_, err := page.get(ctx, "/readyz")
		return err
	})
	return x
}

func (x *farmProxy) usage(t *testing.T) usage { return usageOf(t, x.cmd.Process.Pid) }

// line is what has been on a pool's connections so far, in bytes, as the kernel counts it: with 52 bytes a segment of
// IPv4 and TCP with time stamps, and without.
type line struct{ up, upPayload, down, downPayload int64 }

var counter = regexp.MustCompile(`\b(segs_in|segs_out|bytes_received|bytes_sent):(\d+)`)

func lineOf(t *testing.T, pool netip.AddrPort) (l line) {
	t.Helper()
	out, err := exec.Command("ss", "-tinHO", "state", "established", "sport", "=", strconv.Itoa(int(pool.Port()))).Output()
	if err != nil {
		t.Fatalf("ss: %v (Debian's iproute2 has it)", err)
	}
	const headers = 52
	for text := range strings.Lines(string(out)) {
		for _, found := range counter.FindAllStringSubmatch(text, -1) {
			n, err := strconv.ParseInt(found[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			switch found[1] {
			case "segs_in":
				l.up += headers * n
			case "segs_out":
				l.down += headers * n
			case "bytes_received":
				l.up += n
				l.upPayload += n
			case "bytes_sent":
				l.down += n
				l.downPayload += n
			}
		}
	}
	return l
}
