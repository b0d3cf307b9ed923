package main

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAddressesToType(t *testing.T) {
	t.Parallel()
	var machine []net.Addr
	for _, text := range []string{"127.0.0.1/8", "192.168.1.5/24", "::1/128", "fe80::1/64", "2001:db8::5/64"} {
		ip, in, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		machine = append(machine, &net.IPNet{IP: ip, Mask: in.Mask})
	}
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 3333} }
	for _, c := range []struct {
		listener net.Addr
		machine  []net.Addr
		want     []string
		url      string
	}{
		{at("127.0.0.1"), machine, []string{"127.0.0.1:3333"}, "stratum+tcp://127.0.0.1:3333"},
		{at("::1"), machine, []string{"[::1]:3333"}, "stratum+tcp://[::1]:3333"},
		{at("0.0.0.0"), machine, []string{"192.168.1.5:3333"}, "stratum+tcp://:3333"},
		{at("::"), machine, []string{"192.168.1.5:3333", "[2001:db8::5]:3333"}, "stratum+tcp://:3333"},
		{at("::"), machine[:1], []string{"127.0.0.1:3333"}, "stratum+tcp://:3333"},
	} {
		if diff := cmp.Diff(c.want, reachable(c.listener, c.machine)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.listener, diff)
		}
		if got := stratumURL(c.listener); got != c.url {
			t.Errorf("%s: the dashboard tells %s, want %s", c.listener, got, c.url)
		}
	}
}
