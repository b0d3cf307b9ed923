//go:build integration

package load

import (
	"fmt"
	"testing"
	"time"
)

// maxWaiting is what one connection may take, in bytes: answers that it does not read, a line that does not end, and
// what the session itself needs.
const maxWaiting = (64 + 16 + 16) << 10

// TestHostile attacks sserver in each way there is while honest miners mine. It fails when one of them is disconnected
// or refused, and when something is left of an attack.
//
// Each attack comes twice: from addresses that are exempt from limits and bans, so that nothing but the server itself
// withstands it, and under the limits that are the default, from an address for each connection, so that no ban ends
// what there is to see.
func TestHostile(t *testing.T) {
	// The defaults, but shorter if the attacks are.
	timeout := func(usual time.Duration) time.Duration { return max(min(usual, *duration/2), time.Second) }
	p := startPool(t, noHashing()+fmt.Sprintf("login_timeout = %q\ntcp_write_timeout = %q\n", timeout(15*time.Second), timeout(20*time.Second))+
		"[limits]\nexempt = [\"127.1.0.0/16\", \"127.2.0.0/16\"]\n")
	m := start(t, "miners")
	connect(t, m, p.addr, *connections, "")
	connected := ask[tally](t, m, order{Do: "report"})
	// The same miners on the bare server, which nobody attacks, show what the machine has left for all.
	control, kernel := start(t, "miners"), start(t, "bare")
	connect(t, control, ask[listening](t, kernel, order{Do: "where"}).Addr, *connections, "bare")
	for _, honest := range []*helper{m, control} {
		ask[tally](t, honest, order{Do: "pace", Rate: *rate})
	}
	hold(t, *duration/2)
	before, goroutines := p.usage(t), p.metrics(t)["go_goroutines"]
	quiet, calm := ask[tally](t, m, order{Do: "report"}), ask[tally](t, control, order{Do: "report"})
	t.Logf("%-24s %9s %9s %9s %9s %9s %9s %9s %9s %9s %9s", "", "p50", "p99", "longest", "bare p99", "peak MiB", "conns", "dials", "cut off", "acts", "bans")
	t.Logf("%-24s %9s %9s %9s %9s %9.1f", "no attack", short(quiet.P50), short(quiet.P99), short(quiet.Longest), short(calm.P99), float64(before.RSS)/(1<<20))
	for _, a := range attacks {
		for _, from := range []struct{ what, network string }{{"exempt", "127.2"}, {"limited", "127.3"}} {
			t.Run(a.name+", "+from.what, func(t *testing.T) {
				p.attack(t, m, control, before, a.name, from.what, from.network)
				p.settled(t, before.Descriptors, goroutines)
			})
		}
	}
	rest(t, m)
	innocent(t, m, connected)
	ask[tally](t, m, order{Do: "leave"})
	after := p.usage(t)
	t.Logf("RSS before %.1f MiB, after all %.1f MiB", float64(before.RSS)/(1<<20), float64(after.RSS)/(1<<20))
	p.stop(t)
}

// attack lets the intruders do their worst for a while.
func (p *pool) attack(t *testing.T, m, control *helper, before usage, kind, what, network string) {
	h := start(t, "hostile")
	p.resetPeak(t)
	bans := p.metrics(t)["btcpool_sserver_bans_total"]
	lost := ask[tally](t, m, order{Do: "report"})
	ask[tally](t, control, order{Do: "report"}) // its percentiles begin anew
	ask[damage](t, h, order{Do: "attack", Kind: kind, Addr: p.addr, Network: network, Sources: *intruders, Connections: *intruders, Rate: *hostileRate})
	// Often enough that those who do not read have more coming than the kernel takes for them.
	blocks, end, most := time.NewTicker(max(min(*duration/30, 2*time.Second), 100*time.Millisecond)), time.After(*duration), 0
	defer blocks.Stop()
	for running := true; running; {
		select {
		case <-end:
			running = false
		case <-blocks.C:
			p.newBlock(t)
			most = max(most, ask[damage](t, h, order{Do: "report"}).Connected)
		}
	}
	got, calm := ask[tally](t, m, order{Do: "report"}), ask[tally](t, control, order{Do: "report"})
	done := ask[damage](t, h, order{Do: "report"})
	u := p.usage(t)
	ask[damage](t, h, order{Do: "leave"})
	t.Logf("%-24s %9s %9s %9s %9s %9.1f %9d %9d %9d %9d %9.0f", kind+", "+what, short(got.P50), short(got.P99), short(got.Longest), short(calm.P99), float64(u.Peak)/(1<<20),
		max(most, done.Connected), done.Dials, done.Cut, done.Acts, p.metrics(t)["btcpool_sserver_bans_total"]-bans)
	if n := got.Disconnects - lost.Disconnects; n != 0 {
		t.Errorf("%d honest miners were disconnected", n)
	}
	if bound := before.RSS + int64(*intruders)*maxWaiting + 64<<20; u.Peak > bound {
		t.Errorf("memory rose to %d MiB, %d are what the connections may take", u.Peak>>20, bound>>20)
	}
	if done.Dials == 0 {
		t.Error("there was no attack")
	}
}
