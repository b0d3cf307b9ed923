package noderpc_test

import (
	"context"
	"encoding/binary"
	"io"
	"log"
	"net"
	"testing"
	"time"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/go-zeromq/zmq4"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"btcpool/internal/bitcoin/noderpc"
	"btcpool/internal/testkit"
)

// publisher plays the ZeroMQ side of a node.
type publisher struct {
	t      *testing.T
	socket zmq4.Socket
}

func publish(t *testing.T, addr string) *publisher {
	t.Helper()
	socket := zmq4.NewPub(context.Background(), zmq4.WithLogger(log.New(io.Discard, "", 0)))
	if err := socket.Listen(addr); err != nil {
		t.Fatal(err)
	}
	if err := socket.SetOption(zmq4.OptionHWM, 100); err != nil {
		t.Fatal(err)
	}
	return &publisher{t, socket}
}

func (p *publisher) send(frames ...[]byte) {
	p.t.Helper()
	if err := p.socket.Send(zmq4.NewMsgFrom(frames...)); err != nil {
		p.t.Fatal(err)
	}
}

// block announces a block whose hash, in display order, starts with n.
func (p *publisher) block(n byte, seq uint32) {
	p.t.Helper()
	p.send([]byte("hashblock"), append([]byte{n}, make([]byte, 31)...), binary.LittleEndian.AppendUint32(nil, seq))
}

func TestSubscribeBlocks(t *testing.T) {
	t.Parallel()
	// The port of a node that is not there yet.
	ln, err := net.Listen("tcp", testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	addr := "tcp://" + ln.Addr().String()

	type event struct {
		Block  byte
		Missed uint32
	}
	events := make(chan event, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- noderpc.SubscribeBlocks(ctx, noderpc.Subscription{
			Addr: addr, Log: zerolog.Nop(),
			OnBlock:  func(hash chainhash.Hash) { events <- event{Block: hash[31]} },
			OnMissed: func(n uint32) { events <- event{Missed: n} },
		})
	}()
	if conn, err := ln.Accept(); err != nil { // a proxy whose node is down
		t.Fatal(err)
	} else {
		conn.Close()
	}
	ln.Close()

	// A subscription takes a moment to arrive: repeat a block until it is heard.
	connect := func() *publisher {
		node := publish(t, addr)
		for {
			node.block(0, 0)
			select {
			case <-events:
				return node
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	// next returns the events but for those of repeating.
	next := func(count int) (got []event) {
		for len(got) < count {
			if e := <-events; e != (event{}) && e.Missed != 1<<32-1 {
				got = append(got, e)
			}
		}
		return got
	}
	node := connect()
	node.block(1, 1)
	node.send([]byte("hashblock"), []byte("short"), []byte{0, 0, 0, 0})
	node.send([]byte("hashblock2"), make([]byte, 32), []byte{0, 0, 0, 0})
	node.send([]byte("hashblock"))
	node.block(2, 2)
	node.block(3, 5)
	node.block(4, 6)
	want := []event{{Block: 1}, {Block: 2}, {Missed: 2}, {Block: 3}, {Block: 4}}
	if diff := cmp.Diff(want, next(len(want))); diff != "" {
		t.Error(diff)
	}
	if err := node.socket.Close(); err != nil {
		t.Fatal(err)
	}

	node = connect() // counts from 0 again: nothing is missed
	node.block(5, 1)
	want = []event{{Block: 5}}
	if diff := cmp.Diff(want, next(len(want))); diff != "" {
		t.Error(diff)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := node.socket.Close(); err != nil {
		t.Error(err)
	}
}

// TestSubscribeAgain has a node that says nothing for long, and then goes away.
func TestSubscribeAgain(t *testing.T) {
	t.Parallel()
	addr := "tcp://" + testkit.FreeAddr(t)
	node := publish(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	blocks := make(chan byte, 100)
	states := make(chan bool, 100)
	go func() {
		ended <- noderpc.SubscribeBlocks(ctx, noderpc.Subscription{
			Addr: addr, Log: zerolog.Nop(), Silence: 50 * time.Millisecond,
			OnBlock: func(hash chainhash.Hash) { blocks <- hash[31] },
			OnState: func(up bool) { states <- up },
		})
	}()
	if up := <-states; !up {
		t.Error("down before it was up")
	}
	for range 3 { // sessions and more
		time.Sleep(60 * time.Millisecond)
		for heard := false; !heard; {
			node.block(1, 0)
			select {
			case <-blocks:
				heard = true
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	if len(states) != 0 {
		t.Errorf("silence made the state %v", <-states)
	}
	if err := node.socket.Close(); err != nil {
		t.Error(err)
	}
	if up := <-states; up {
		t.Error("up twice")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestSubscribeBlocksRefuses(t *testing.T) {
	t.Parallel()
	err := noderpc.SubscribeBlocks(t.Context(), noderpc.Subscription{Addr: "carrier://pigeon"})
	if err == nil {
		t.Error("unknown transport: no error")
	}
}
