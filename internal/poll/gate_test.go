package poll_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"btcpool/internal/poll"
)

// Who comes while a gate is shut waits, and is served when it is open again; one that others serve is closed for good.
func TestGate(t *testing.T) {
	t.Parallel()
	l, err := poll.Listen(poll.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var gate poll.Gate
	served, ended := make(chan struct{}), make(chan error)
	go func() {
		for {
			err := gate.Accept(l, func(link poll.Link, _ netip.Addr) {
				link.Close()
				served <- struct{}{}
			})
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	dial := func() {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	dial()
	<-served
	open := gate.Shut(l)
	dial()
	select {
	case <-served:
		t.Fatal("served while the gate is shut")
	default:
	}
	open(false)
	<-served
	gate.Shut(l)(true)
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
