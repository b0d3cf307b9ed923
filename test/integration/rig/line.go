//go:build integration

package rig

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"btcpool/internal/testkit"
)

// Lines are the network between services and the servers that they use, each way from one to another apart. It is a
// relay: what TCP makes of delay and loss is the same, but no packet of it is lost. Cuts, silence and half-closed
// connections are as the kernel's.
type Lines struct {
	t   testing.TB
	all []*Line
}

// Line is the way from a service to a server.
type Line struct {
	Service, Server string

	ln     net.Listener
	target string

	mu     sync.Mutex
	conns  map[*pair]struct{}
	delay  time.Duration // each way, half of it more or less
	loss   float64       // of what is sent, the part that has to be sent again
	silent chan struct{} // nil: what is sent arrives; closed at its end
	over   chan struct{} // closed with the test
}

// pair is a connection as both ends see it.
type pair struct{ service, server *net.TCPConn }

// NewLines returns none as yet: those that are asked for are laid.
func NewLines(t testing.TB) *Lines { return &Lines{t: t} }

// Of returns the lines of a service; "": of all.
func (l *Lines) Of(service string) []*Line {
	return slices.DeleteFunc(slices.Clone(l.all), func(line *Line) bool { return service != "" && line.Service != service })
}

// lay returns where a service finds a server that listens at target.
func (l *Lines) lay(service, server, target string) string {
	if l == nil {
		return target
	}
	l.t.Helper()
	for _, line := range l.all {
		if line.Service == service && line.Server == server {
			return line.ln.Addr().String()
		}
	}
	ln, err := net.Listen("tcp", testkit.FreeAddr(l.t))
	if err != nil {
		l.t.Fatal(err)
	}
	line := &Line{Service: service, Server: server, ln: ln, target: target, conns: map[*pair]struct{}{}, over: make(chan struct{})}
	l.all = append(l.all, line)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			done.Go(func() { line.carry(conn.(*net.TCPConn)) })
		}
	})
	l.t.Cleanup(func() {
		ln.Close()
		close(line.over)
		line.Cut()
		done.Wait()
	})
	return ln.Addr().String()
}

// carry connects both ends until either has gone. A server that does not listen refuses the connection, as far as a
// relay can.
func (l *Line) carry(service *net.TCPConn) {
	defer hangUp(service)
	l.pass(time.Time{})
	conn, err := net.Dial("tcp", l.target)
	if err != nil {
		_ = service.SetLinger(0)
		return
	}
	p := &pair{service, conn.(*net.TCPConn)}
	defer hangUp(p.server)
	l.mu.Lock()
	l.conns[p] = struct{}{}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, p)
		l.mu.Unlock()
	}()
	select {
	case <-l.over: // since nobody has cut this one
		return
	default:
	}
	var ways sync.WaitGroup
	ways.Go(func() { l.move(p.service, p.server) })
	ways.Go(func() { l.move(p.server, p.service) })
	ways.Wait()
}

// chunk is what was sent at once, and when it arrives.
type chunk struct {
	data []byte
	due  time.Time
}

// move brings what from sends to the other end, in its order, and then its end; a connection that broke breaks there,
// too.
func (l *Line) move(from, to *net.TCPConn) {
	const window = 64 // chunks that are under way at most
	sent := make(chan chunk, window)
	broke := make(chan error, 1)
	go func() {
		defer close(sent)
		for {
			data := make([]byte, 16<<10)
			n, err := from.Read(data)
			if n > 0 {
				sent <- chunk{data[:n], time.Now().Add(l.takes())}
			}
			if err != nil {
				broke <- err
				return
			}
		}
	}()
	defer func() {
		for range sent { // the reader must not wait for ever
		}
	}()
	for c := range sent {
		l.pass(c.due)
		if _, err := to.Write(c.data); err != nil {
			hangUp(from)
			return
		}
	}
	l.pass(time.Time{})
	if err := <-broke; errors.Is(err, io.EOF) {
		_ = to.CloseWrite() // fails if the other end has gone
		return
	}
	reset(to)
}

// An end that has gone already cannot be closed any more.
func hangUp(conn *net.TCPConn) { _ = conn.Close() }

func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// pass waits until what arrives at a time does.
func (l *Line) pass(due time.Time) {
	if wait := time.Until(due); wait > 0 {
		select {
		case <-time.After(wait):
		case <-l.over:
			return
		}
	}
	for {
		l.mu.Lock()
		silent := l.silent
		l.mu.Unlock()
		if silent == nil {
			return
		}
		select {
		case <-silent:
		case <-l.over:
			return
		}
	}
}

// takes is how long something takes that is sent now. What is lost is sent again after the time that the kernel's TCP
// waits for it, each time twice as long.
func (l *Line) takes() (d time.Duration) {
	const again = 200 * time.Millisecond
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.delay > 0 {
		d = l.delay/2 + rand.N(l.delay)
	}
	for wait := again; l.loss > 0 && rand.Float64() < l.loss; wait *= 2 {
		d += wait
	}
	return d
}

// Delay has everything take this time, half of it more or less.
func (l *Line) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Lose has this part of what is sent arrive late.
func (l *Line) Lose(part float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loss = part
}

// Silence has nothing arrive any more, and nobody hear of it: connections stay, new ones wait.
func (l *Line) Silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent == nil {
		l.silent = make(chan struct{})
	}
}

// Speak ends the silence: what was sent meanwhile arrives.
func (l *Line) Speak() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent != nil {
		close(l.silent)
		l.silent = nil
	}
}

// Cut resets all connections.
func (l *Line) Cut() {
	for _, p := range l.pairs() {
		reset(p.service)
		reset(p.server)
	}
}

// HalfClose has the service see the end of what its servers send on all connections, though they would go on.
func (l *Line) HalfClose() {
	for _, p := range l.pairs() {
		_ = p.service.CloseWrite() // fails if it has gone
	}
}

func (l *Line) pairs() (all []*pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.conns {
		all = append(all, p)
	}
	return all
}
