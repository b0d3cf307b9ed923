package testkit

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// given holds what keeps the ports that FreePort has returned from other processes, until this one ends.
var given sync.Map

// FreePort returns a port of this machine that nothing listens at, and no other call has returned, in this process or
// another that is still there: tests of several packages run at a time. It is not one that the kernel gives to
// connections and listeners, which could take it while who is to listen there has not started, or starts again.
func FreePort(tb testing.TB) int {
	tb.Helper()
	const lowest, highest = 15_000, 32_000
	for range 1000 {
		port := lowest + rand.IntN(highest-lowest)
		own, err := net.Listen("unix", fmt.Sprintf("@btcpool-test-port-%d", port)) // no file, and of one network, as ports are
		if err != nil {
			continue
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			own.Close()
			continue
		}
		ln.Close()
		given.Store(port, own)
		return port
	}
	tb.Fatal("no free port found")
	return 0
}

// FreeAddr returns an address on loopback with such a port.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(tb))
}
