package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"btcpool/internal/retry"
)

// awaitReady returns true as soon as the pool can work, or false when ctx ends first.
func (p *pool) awaitReady(ctx context.Context) bool {
	for p.Ready() != nil {
		if !retry.Sleep(ctx, 20*time.Millisecond) {
			return false
		}
	}
	return true
}

// greet prints where everything is.
func (p *pool) greet(ctx context.Context) error {
	if p.awaitReady(ctx) {
		fmt.Fprint(p.out, p.banner())
	}
	<-ctx.Done()
	return nil
}

func (p *pool) banner() string {
	stratum := reachable(p.stratum)
	dashboard := "http://" + reachable(p.dashboard)
	var b strings.Builder
	if p.chain != nil {
		fmt.Fprintf(&b, "\n  btcpool is mining on an embedded chain: real blocks, worthless coins.\n\n")
	} else {
		fmt.Fprintf(&b, "\n  btcpool is mining on %s for %s.\n\n", p.cfg.Network, p.cfg.PayoutAddress)
	}
	fmt.Fprintf(&b, "  Stratum    stratum+tcp://%s   any user.worker, any password\n", stratum)
	fmt.Fprintf(&b, "  Dashboard  %s/\n", dashboard)
	fmt.Fprintf(&b, "  Data       %s\n\n", p.cfg.path(""))
	next := fmt.Sprintf("go run ./cmd/minersim -url stratum+tcp://%s -user %s", stratum, demoUser)
	if p.cfg.Demo {
		fmt.Fprintf(&b, "  The built-in miner is at work as %s; the first block takes some seconds.\n", demoUser)
		next = fmt.Sprintf("curl %s/api/v1/blocks", dashboard)
	}
	fmt.Fprintf(&b, "  Next       %s\n", next)
	fmt.Fprintf(&b, "             Ctrl-C ends it; what was mined stays in the data folder.\n\n")
	return b.String()
}

// reachable is the address to type for a listener, which may listen on all of them.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
}
