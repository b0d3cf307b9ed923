//go:build integration

package load

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	rates    = flag.String("rates", "200,0", "shares a second in TestRates, separated by commas; 0: as many as possible")
	repeat   = flag.Int("repeat", 1, "how often TestRates measures each; it prints medians")
	peer     = flag.String("peer", "", "address of another pool's server, that takes shares of any difficulty from anybody")
	peerPids = flag.String("peer-pids", "", "its processes, separated by commas")
)

// TestRates measures what a share costs when there are few and when there are many, beside a server in C that only
// answers, and beside another pool's if there is one. -sserver may name several programs, separated by commas, to hold
// them against each other: their turns alternate. It fails when a share is lost or counted twice.
func TestRates(t *testing.T) {
	type contender struct {
		name string
		server
		costs [][]cost // by rate
	}
	var all []*contender
	add := func(name string, s server) { all = append(all, &contender{name: name, server: s}) }

	echo, pid := startEcho(t)
	m := start(t, "miners")
	connect(t, m, echo, *connections, "bare")
	add("echo in C", server{pid: pid, miners: m})
	var pools []*pool
	for _, program := range strings.Split(*sserver, ",") {
		p := startPoolOf(t, program, noHashing()+"mining_notify_interval = \"10m\"\n")
		pools = append(pools, p)
		m := start(t, "miners")
		connect(t, m, p.addr, *connections, "")
		add(filepath.Base(cmp.Or(program, "sserver")), p.server(t, m))
	}
	if *peer != "" {
		s := server{miners: start(t, "miners")}
		for _, text := range strings.Split(*peerPids, ",") {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("-peer-pids: %v", err)
			}
			s.more = append(s.more, pid)
		}
		s.pid, s.more = s.more[0], s.more[1:]
		connect(t, s.miners, netip.MustParseAddrPort(*peer), *connections, "")
		add("peer", s)
	}

	loads := strings.Split(*rates, ",")
	for range *repeat {
		for i, text := range loads {
			rate, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("-rates: %v", err)
			}
			load := order{Do: "pace", Rate: rate}
			if rate == 0 {
				load = order{Do: "saturate"}
			}
			for _, c := range all {
				c.costs = append(c.costs, make([][]cost, len(loads)-len(c.costs))...)
				c.costs[i] = append(c.costs[i], measure(t, c.server, load))
			}
		}
	}
	w := tabwriter.NewWriter(t.Output(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d connections\tshares/s\tprocessor a share\tuser\tkernel\tKafka's\tload generator's\tanswer p50\tp99\n", *connections)
	for i := range loads {
		for _, c := range all {
			of := func(get func(cost) time.Duration) string {
				var list []time.Duration
				for _, c := range c.costs[i] {
					list = append(list, get(c))
				}
				return short(median(list))
			}
			slices.SortFunc(c.costs[i], func(a, b cost) int { return cmp.Compare(a.perSecond, b.perSecond) })
			fmt.Fprintf(w, "%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.name, c.costs[i][*repeat/2].perSecond,
				of(func(c cost) time.Duration { return c.each }), of(func(c cost) time.Duration { return c.user }),
				of(func(c cost) time.Duration { return c.system }), of(func(c cost) time.Duration { return c.kafka }),
				of(func(c cost) time.Duration { return c.clients }),
				of(func(c cost) time.Duration { return c.said.P50 }), of(func(c cost) time.Duration { return c.said.P99 }))
		}
	}
	w.Flush()
	for i, p := range pools {
		ask[tally](t, all[1+i].miners, order{Do: "leave"})
		p.stop(t)
		p.verify(t, all[1+i].miners)
	}
}

// startEcho starts the server in C, or, where there is no compiler, the one in Go.
func startEcho(t *testing.T) (addr netip.AddrPort, pid int) {
	t.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil {
		t.Log("there is no C compiler: the limit is a server in Go")
		kernel := start(t, "bare")
		return ask[listening](t, kernel, order{Do: "where"}).Addr, kernel.pid
	}
	program := filepath.Join(t.TempDir(), "echo")
	if out, err := exec.Command(compiler, "-O2", "-D_GNU_SOURCE", "-o", program, "testdata/echo.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program)
	_, out := startPiped(t, "echo", cmd)
	var port uint16
	if _, err := fmt.Fscan(out, &port); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), cmd.Process.Pid
}
