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
	machine, _ := net.InterfaceAddrs()
	places := func(scheme string, listener net.Addr, path string) (all []string) {
		for _, addr := range reachable(listener, machine) {
			all = append(all, scheme+addr+path)
		}
		return all
	}
	stratum, dashboard := places("stratum+tcp://", p.stratum, ""), places("http://", p.dashboard, "/")
	var b strings.Builder
	if p.chain != nil {
		fmt.Fprintf(&b, "\n  btcpool runs on an embedded chain: real blocks, worthless coins.\n\n")
	} else {
		fmt.Fprintf(&b, "\n  btcpool runs on %s for %s.\n\n", p.cfg.Network, p.cfg.PayoutAddress)
	}
	const also = "\n             "
	fmt.Fprintf(&b, "  Stratum    %s   any user.worker, any password\n", strings.Join(stratum, also))
	fmt.Fprintf(&b, "  Dashboard  %s\n", strings.Join(dashboard, also))
	fmt.Fprintf(&b, "  Data       %s\n\n", p.cfg.path(""))
	next := fmt.Sprintf("go run ./cmd/minersim -url %s -user %s", stratum[0], demoUser)
	if p.cfg.Demo {
		fmt.Fprintf(&b, "  The built-in miner is at work as %s; the first block takes some seconds.\n", demoUser)
		next = fmt.Sprintf("curl %sapi/v1/blocks", dashboard[0])
	}
	fmt.Fprintf(&b, "  Next       %s\n", next)
	fmt.Fprintf(&b, "             Ctrl-C ends it; what was mined stays in the data folder.\n\n")
	return b.String()
}

// reachable returns the addresses to type for a listener, one at least: where it listens at all addresses, those of the
// machine that others can reach, and else this machine's own.
func reachable(listener net.Addr, machine []net.Addr) []string {
	tcp, ok := listener.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return []string{listener.String()}
	}
	var all []string
	for _, addr := range machine {
		if in, ok := addr.(*net.IPNet); ok && in.IP.IsGlobalUnicast() && (in.IP.To4() != nil || tcp.IP.To4() == nil) {
			all = append(all, (&net.TCPAddr{IP: in.IP, Port: tcp.Port}).String())
		}
	}
	if len(all) == 0 {
		all = append(all, fmt.Sprintf("127.0.0.1:%d", tcp.Port))
	}
	return all
}

// stratumURL is what the dashboard tells miners: without a host where sserver listens at all addresses, since the page
// knows by which it was reached.
func stratumURL(listener net.Addr) string {
	if tcp, ok := listener.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("stratum+tcp://:%d", tcp.Port)
	}
	return "stratum+tcp://" + listener.String()
}
